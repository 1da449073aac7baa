//! The platforms that there are. A new one is a module, a variant here, and its arm.

use crate::{
    compute::{ComputeDriver, DriverConfig},
    machine::Machine,
};
use std::sync::Arc;

/// A platform that sessions run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platform {
    /// This machine: a session is an agent process with its sandbox.
    #[default]
    Machine,
}

impl Platform {
    /// Opens the platform. It does nothing yet.
    ///
    /// # Errors
    ///
    /// When it cannot be used. Final until that is put right.
    pub(crate) fn open(self, config: DriverConfig) -> anyhow::Result<Arc<dyn ComputeDriver>> {
        Ok(match self {
            Self::Machine => Machine::open(config)?,
        })
    }
}
