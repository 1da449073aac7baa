//! Compute drivers: they place sessions on a platform, delete them, and report what they saw.
//!
//! A platform is one module that implements [`ComputeDriver`], and one variant of [`Platform`]. See
//! `README.md`.

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

mod compute;
mod dispatch;
pub mod elsewhere;
mod machine;
mod platform;
pub mod requests;
mod trust;

pub use compute::{Answer, ComputeDriver, DriverConfig, HostPorts, Launch};
pub use dispatch::Driver;
pub use platform::Platform;
pub use trust::check_path;
