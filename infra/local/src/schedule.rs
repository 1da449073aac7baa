//! The schedules: each sends its input to its queue, at its rate. A tick that is still waiting is
//! enough.

use crate::{
    queues::{New, Queue, Queues},
    template::Schedule,
};
use std::sync::Arc;
use tokio::time::MissedTickBehavior;

/// Keeps a schedule, until it is dropped.
pub(crate) async fn keep(schedule: Schedule, queues: Arc<Queues>, queue: Arc<Queue>) {
    let mut ticks = tokio::time::interval(schedule.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sent = queues.is_empty(&queue).and_then(|empty| {
            if empty {
                let tick = New {
                    body: schedule.input.clone(),
                    sender: "host".to_owned(),
                    ..New::default()
                };
                queues.send(&queue, vec![tick])?;
            }
            Ok(())
        });
        if let Err(cause) = sent {
            tracing::error!(fault = "Store", cause = %cause, schedule = schedule.name, "a tick is left out");
        }
    }
}
