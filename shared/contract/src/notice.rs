//! `notices`: messages to users that they did not ask for. A consumer of the queue delivers them.

use crate::{FlowRef, Millis, command::Command};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that a user may want to do something about. It may come twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "notice", rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "one is made and sent; there are never many")]
pub enum Notice {
    /// The session is deleted for idleness at `due`, in milliseconds since the Unix epoch, if
    /// nobody uses it before.
    DeletedSoon {
        flow: FlowRef,
        /// The flow's key.
        key: String,
        generation: u32,
        due: Millis,
        /// The longest time that it may be idle, in milliseconds.
        idle: Millis,
        /// Sent as it is, it counts as use: the idle time begins anew.
        extend: Command,
    },
    /// The compute instance is shut down for idleness at `due`, with all sessions on it, if nobody
    /// uses one of them before.
    ShutDownSoon {
        workspace: String,
        owner: String,
        instance: String,
        due: Millis,
        /// The longest time that it may be unused, in milliseconds.
        after: Millis,
    },
    /// The session is stopped at `due`, in milliseconds since the Unix epoch, in use or not: its
    /// user's sessions will have lived for as long then as they may on one day. A session less puts
    /// it off.
    StoppedForTheDaySoon {
        flow: FlowRef,
        /// The flow's key.
        key: String,
        generation: u32,
        due: Millis,
    },
}
