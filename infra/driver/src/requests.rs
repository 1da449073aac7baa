//! Compute requests on their way from a queue to the driver: those of one flow or one compute
//! resource wait for each other, others do not.

use crate::dispatch::Driver;
use contract::{Code, driver::ComputeRequest};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// The time between two heartbeats of a request that is worked on.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// The pauses before a request that failed is tried again: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// One request as its queue delivered it.
pub trait Delivery: Send + Sync + 'static {
    /// The number of its deliveries, with this one.
    fn times(&self) -> u32;
    /// Keeps it from others for at least twice as long as passes until the next call.
    fn keep(&self) -> impl Future<Output = ()> + Send;
    /// It is done.
    fn done(&self) -> impl Future<Output = ()> + Send;
    /// It is to come again after this pause.
    fn again(&self, pause: Duration) -> impl Future<Output = ()> + Send;
}

/// Requests that wait for each other, by name.
type Waiting<D> = Mutex<HashMap<String, mpsc::UnboundedSender<(ComputeRequest, D)>>>;

/// Hands requests to a driver.
pub struct Lanes<D> {
    driver: Arc<Driver>,
    waiting: Waiting<D>,
    emptied: Notify,
}

/// The key of requests that wait for each other.
fn lane_of(request: &ComputeRequest) -> String {
    match request {
        ComputeRequest::CreateCompute { compute, .. } | ComputeRequest::ReleaseCompute { compute } => {
            format!("compute {compute}")
        }
        // A registry may take its time, and a stop does not wait for it.
        ComputeRequest::CheckImage { flow, .. } => format!("image {flow}"),
        ComputeRequest::LaunchSession { flow, .. } | ComputeRequest::RemoveSession { flow, .. } => {
            format!("flow {flow}")
        }
    }
}

impl<D: Delivery> Lanes<D> {
    /// No request yet.
    pub fn new(driver: Arc<Driver>) -> Arc<Self> {
        Arc::new(Self {
            driver,
            waiting: Mutex::default(),
            emptied: Notify::new(),
        })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<(ComputeRequest, D)>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request behind those of its flow; the first task works through them.
    pub fn line_up(self: &Arc<Self>, request: ComputeRequest, delivery: D) {
        let lane = lane_of(&request);
        let mut all = self.waiting();
        let work = match all.get(&lane) {
            Some(others) => match others.send((request, delivery)) {
                Ok(()) => return,
                Err(mpsc::error::SendError(work)) => work,
            },
            None => (request, delivery),
        };
        let (sender, mut inbox) = mpsc::unbounded_channel();
        let _ = sender.send(work);
        all.insert(lane.clone(), sender);
        drop(all);
        let lanes = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                while let Ok((request, delivery)) = inbox.try_recv() {
                    lanes.work(&lane, request, delivery).await;
                }
                let mut all = lanes.waiting();
                if inbox.is_empty() {
                    all.remove(&lane);
                    lanes.emptied.notify_waiters();
                    return;
                }
            }
        });
    }

    /// Returns when nothing is being worked on.
    pub async fn are_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.waiting().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    async fn work(&self, lane: &str, request: ComputeRequest, delivery: D) {
        let driver = Arc::clone(&self.driver);
        // A task of its own, so that a panic in it is a failure like another.
        let mut work = tokio::spawn(async move { driver.handle(request).await });
        let outcome = loop {
            match tokio::time::timeout(HEARTBEAT, &mut work).await {
                Ok(done) => break done.map_err(anyhow::Error::from).and_then(|outcome| outcome),
                Err(_) => delivery.keep().await,
            }
        };
        match outcome {
            Ok(()) => delivery.done().await,
            Err(cause) => {
                let (first, longest) = BACKOFF;
                let pause = (first * 2u32.pow(delivery.times().saturating_sub(1).min(10))).min(longest);
                tracing::warn!(
                    fault = Code::DriverFailed.as_str(),
                    cause = format!("{cause:#}"),
                    lane,
                    again_in = pause.as_millis(),
                    "a compute request comes again"
                );
                delivery.again(pause).await;
            }
        }
    }
}
