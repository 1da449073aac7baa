//! One flow's compute session.
//!
//! In the order of reading: the state, the operations, the events, the effects, and [`decide`],
//! which takes the first three to the last.

mod decide;
mod effect;
mod event;
mod kept;
mod operation;
mod refusal;
mod settings;
mod state;

pub use decide::{canceled, decide};
pub use effect::{Effect, Message, Row};
pub use event::{Claimed, Event, Outcome};
pub use operation::{Kind, Meeting, Operation, Packages, Step, meeting};
pub use refusal::Refusal;
pub use settings::{Counts, Named, Origin, Setting, Settings};
pub use state::{EDGES, Lease, MOST_RUNS, Phase, Resolved, Session};
