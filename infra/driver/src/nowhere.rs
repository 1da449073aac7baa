//! A platform that refuses everything.

use crate::compute::{Answer, ComputeDriver, Launch};
use contract::{Code, Failure, Slot, driver::Room};
use std::{future::ready, sync::Arc};

pub(crate) struct Nothing;

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
    fn check_image(self: Arc<Self>, _: String) -> Answer<'static, Result<(), Failure>> {
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

