//! The environment of a runtime, in the parts that a flow folder has a place for.

use crate::requirements::Line;

/// A runtime's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) image: Option<String>,
    pub(super) lines: Vec<Line>,
    /// Parts that were left out: a sentence each.
    pub(super) notes: Vec<String>,
}
