//! Hands compute requests to a platform, and reports what it observed.

use crate::{
    compute::{ComputeDriver, DriverConfig, HostPorts, Launch, report_gone},
    platform::Platform,
};
use agent::bound;
use contract::{
    Failure,
    command::is_good_id,
    driver::{ComputeRequest, DriverReport},
};
use std::sync::Arc;

/// The compute driver of a platform.
pub struct Driver {
    platform: Arc<dyn ComputeDriver>,
    ports: Arc<dyn HostPorts>,
}

impl Driver {
    /// Opens the driver over its part of the state folder. Nothing is looked at yet: see
    /// [`Driver::recover`].
    ///
    /// # Errors
    ///
    /// When the platform cannot be used. Final until that is put right.
    pub fn open(platform: Platform, config: DriverConfig) -> anyhow::Result<Arc<Self>> {
        let ports = Arc::clone(&config.ports);
        let platform = platform.open(config)?;
        Ok(Arc::new(Self { platform, ports }))
    }

    fn platform(&self) -> Arc<dyn ComputeDriver> {
        Arc::clone(&self.platform)
    }

    /// Does what is asked, and reports what it then observed. Idempotent.
    ///
    /// # Errors
    ///
    /// When it could not be done and nothing was reported. Worth a retry: hand the request in
    /// again.
    pub async fn handle(&self, request: ComputeRequest) -> anyhow::Result<()> {
        let report = self.answer(request).await?;
        self.ports.report(report).await
    }

    /// Does a request, and gives the observation to report.
    async fn answer(&self, request: ComputeRequest) -> anyhow::Result<DriverReport> {
        Ok(match request {
            ComputeRequest::CreateCompute {
                compute, slot, room, ..
            } => match self.platform().create_compute(good_id(&compute)?, slot, room).await? {
                Ok(()) => DriverReport::ComputeUp { compute },
                Err(why) => DriverReport::ComputeGone { compute, why },
            },
            ComputeRequest::ReleaseCompute { compute } => {
                self.platform().release_compute(good_id(&compute)?).await?;
                report_released(compute)
            }
            ComputeRequest::LaunchSession {
                flow,
                owner,
                workspace,
                generation,
                compute,
                settings,
                room,
                until,
            } => {
                let launch = Launch {
                    flow: good_id(&flow)?,
                    owner,
                    workspace,
                    generation,
                    compute: good_id(&compute)?,
                    settings,
                    room,
                    until,
                };
                match self.platform().launch_session(launch).await? {
                    Ok(key) => DriverReport::SessionUp { flow, generation, key },
                    Err(failure) => report_gone(flow, generation, failure),
                }
            }
            ComputeRequest::CheckImage {
                flow,
                generation,
                operation,
                image,
            } => {
                let checked = self.platform().check_image(flow.clone(), image).await?;
                report_checked_image(flow, generation, operation, checked)
            }
            ComputeRequest::RemoveSession {
                flow,
                generation,
                compute,
            } => {
                self.platform()
                    .remove_session(good_id(&flow)?, generation, compute)
                    .await?;
                report_gone(flow, generation, None)
            }
        })
    }

    /// Finds again what outlived the last driver. Call it before the first request.
    pub async fn recover(&self) {
        if let Err(error) = self.platform().recover().await {
            tracing::error!(error = format!("{error:#}"), "what was there before is not found again");
        }
    }

    /// Ends all sessions and compute resources of the platform, and reports that with `why`.
    ///
    /// # Errors
    ///
    /// When one could not be ended or reported: it is found again by the next start.
    pub async fn end_all(&self, why: &Failure) -> anyhow::Result<()> {
        self.platform().end_all(why.clone()).await
    }

    /// The number of sessions.
    pub fn count(&self) -> usize {
        self.platform.sessions().len()
    }

    /// Drops what only makes the next start quick. Sessions stay as they are.
    pub fn let_go(&self) {
        self.platform.let_go();
    }
}

fn report_released(compute: String) -> DriverReport {
    DriverReport::ComputeGone {
        compute,
        why: "it was released".into(),
    }
}

fn good_id(id: &str) -> anyhow::Result<String> {
    anyhow::ensure!(
        is_good_id(id),
        "{id:?} is no key of a flow and no id of a compute resource"
    );
    Ok(id.to_owned())
}

fn report_checked_image(
    flow: String,
    generation: u32,
    operation: String,
    checked: Result<(), Failure>,
) -> DriverReport {
    DriverReport::ImageChecked {
        flow,
        generation,
        operation,
        failure: checked.err().map(bound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Answer;
    use agent::AgentCredentials;
    use contract::{Code, Slot, driver::Room};
    use serde_json::{Value, json};
    use std::{
        future::ready,
        sync::{Mutex, PoisonError},
    };

    /// A platform that refuses everything.
    struct Nothing;

    impl ComputeDriver for Nothing {
        fn create_compute(self: Arc<Self>, _: String, _: Slot, _: Option<Room>) -> Answer<'static, Result<(), String>> {
            Box::pin(ready(Ok(Err("there is none".into()))))
        }
        fn release_compute(self: Arc<Self>, _: String) -> Answer<'static, ()> {
            Box::pin(ready(Ok(())))
        }
        fn launch_session(self: Arc<Self>, _: Launch) -> Answer<'static, Result<String, Option<Failure>>> {
            Box::pin(ready(Ok(Err(Some(Failure::new(
                Code::SessionNoCompute,
                "There is none.",
            ))))))
        }
        fn check_image(self: Arc<Self>, _: String, _: String) -> Answer<'static, Result<(), Failure>> {
            Box::pin(ready(Ok(Err(Failure::new(Code::InstallNoSuchImage, "There is none.")))))
        }
        fn remove_session(self: Arc<Self>, _: String, _: u32, _: Option<String>) -> Answer<'static, ()> {
            Box::pin(ready(Ok(())))
        }
        fn recover(self: Arc<Self>) -> Answer<'static, ()> {
            Box::pin(ready(Ok(())))
        }
        fn sessions(&self) -> Vec<(String, u32)> {
            Vec::new()
        }
        fn end_all(self: Arc<Self>, _: Failure) -> Answer<'static, ()> {
            Box::pin(ready(Ok(())))
        }
        fn let_go(&self) {}
    }

    #[derive(Default)]
    struct Reports(Mutex<Vec<DriverReport>>);

    impl HostPorts for Reports {
        fn report(&self, report: DriverReport) -> Answer<'_, ()> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            Box::pin(ready(Ok(())))
        }
        fn issue_agent_credentials(&self, _: &str, _: u32) -> Answer<'_, AgentCredentials> {
            Box::pin(ready(Err(anyhow::anyhow!("nobody asks"))))
        }
        fn revoke_agent_credentials(&self, _: &str, _: u32) {}
        fn create_queue(&self, _: &str) -> Answer<'_, ()> {
            Box::pin(ready(Ok(())))
        }
        fn delete_queue(&self, _: &str) -> Answer<'_, ()> {
            Box::pin(ready(Ok(())))
        }
    }

    fn answers(request: Value) -> Result<Value, String> {
        let reports = Arc::new(Reports::default());
        let driver = Driver {
            platform: Arc::new(Nothing),
            ports: Arc::clone(&reports) as Arc<dyn HostPorts>,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let request: ComputeRequest = serde_json::from_value(request).unwrap();
        runtime
            .block_on(driver.handle(request))
            .map_err(|error| error.to_string())?;
        let mut reports = reports.0.lock().unwrap();
        assert_eq!(reports.len(), 1, "{reports:?}");
        Ok(serde_json::to_value(reports.remove(0)).unwrap())
    }

    #[test]
    fn a_platform_that_refuses_everything_answers_every_request_once() {
        let slot = json!({ "workspace": "w", "owner": "ann", "size": "local" });
        let settings = json!({ "folder": "/f", "size": "local", "idle": 1 });
        let failure = |code: Code| json!({ "error": code, "message": "There is none." });
        for (request, report) in [
            (
                json!({ "request": "create-compute", "compute": "c", "slot": slot }),
                json!({ "report": "compute-gone", "compute": "c", "why": "there is none" }),
            ),
            (
                json!({ "request": "release-compute", "compute": "c" }),
                json!({ "report": "compute-gone", "compute": "c", "why": "it was released" }),
            ),
            (
                json!({ "request": "launch-session", "flow": "f", "owner": "ann", "workspace": "w", "generation": 1, "compute": "c",
                    "settings": settings, "until": 1 }),
                json!({ "report": "session-gone", "flow": "f", "generation": 1, "failure": failure(Code::SessionNoCompute) }),
            ),
            (
                json!({ "request": "check-image", "flow": "f", "generation": 1, "operation": "o", "image": "i" }),
                json!({ "report": "image-checked", "flow": "f", "generation": 1, "operation": "o",
                    "failure": failure(Code::InstallNoSuchImage) }),
            ),
            (
                json!({ "request": "remove-session", "flow": "f", "generation": 1 }),
                json!({ "report": "session-gone", "flow": "f", "generation": 1 }),
            ),
        ] {
            assert_eq!(answers(request.clone()), Ok(report), "{request}");
        }
        let outside = json!({ "request": "remove-session", "flow": "../f", "generation": 1 });
        assert!(answers(outside).unwrap_err().contains("\"../f\""));
    }
}
