//! The queue `compute-requests`, and what a compute driver reports to the queue `reports`.

use crate::{Failure, Millis, Settings, Slot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A request to a compute driver. Each may come twice, late or out of order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum ComputeRequest {
    /// A compute resource of this slot's user and size, under this id. Answered by `compute-up`
    /// (also if it is up already), or by `compute-gone` with the reason why there is none.
    CreateCompute {
        compute: String,
        slot: Slot,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<Room>,
        /// Left out by versions before it.
        #[serde(default, skip_serializing_if = "Tags::is_empty")]
        tags: Tags,
    },
    /// Delete it, and what is on it. Answered by `compute-gone` (also if it never was).
    ReleaseCompute { compute: String },
    /// Start the container of this generation on this compute resource, unless it is later than
    /// `until`, or this generation or a later one was removed. Answered by `session-up` (also if it
    /// is up already), or by `session-gone` with a failure.
    LaunchSession {
        flow: String,
        owner: String,
        workspace: String,
        generation: u32,
        compute: String,
        settings: Settings,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<Room>,
        until: Millis,
    },
    /// Check whether this base image can be had, for the generation that comes after this one: have
    /// it. Answered by `image-checked`.
    CheckImage {
        flow: String,
        generation: u32,
        operation: String,
        image: String,
    },
    /// See that there is no container of this generation or an older one, and never will be.
    /// Answered by `session-gone`.
    RemoveSession {
        flow: String,
        generation: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<String>,
    },
}

impl ComputeRequest {
    /// The request for a compute resource.
    pub fn create(compute: String, slot: Slot) -> Self {
        Self::CreateCompute {
            compute,
            room: Room::of(&slot.size),
            tags: Tags::of(&slot),
            slot,
        }
    }
}

/// Tags of what a cloud bills, by which a bill can be split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tags {
    pub workspace: String,
    pub user: String,
}

impl Tags {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Tags that name workspace and user. A character that no tag may have is `_` in them.
    ///
    /// # Source
    ///
    /// Amazon EC2, *Tag restrictions*: letters, numbers, spaces, and `+ - = . _ : / @`.
    pub fn of(slot: &Slot) -> Self {
        let is_good = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
        let tag = |text: &str| text.chars().map(|c| if is_good(c) { c } else { '_' }).collect();
        Self {
            workspace: tag(&slot.workspace),
            user: tag(&slot.owner),
        }
    }
}

/// The room of a VM size, for drivers that do not know its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Room {
    /// Whole processors.
    pub cpus: u32,
    /// Mebibytes.
    pub memory_mib: u64,
    /// GPUs; 0 for most sizes.
    #[serde(default, skip_serializing_if = "is_none")]
    pub gpus: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

impl Room {
    /// The room of the VM size of this name; `None` if that is up to the driver, or if there is no
    /// such size.
    pub fn of(size: &str) -> Option<Self> {
        let size = lifecycle::size::size(size)?;
        let limits = size.limits?;
        Some(Self {
            gpus: size.gpu.map_or(0, |gpu| gpu.count),
            cpus: limits.cpus,
            memory_mib: limits.memory >> 20,
        })
    }
}

/// A report of a compute driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum DriverReport {
    ComputeUp {
        compute: String,
    },
    ComputeGone {
        compute: String,
        why: String,
    },
    /// `key`: the public half of the agent's key, Ed25519, base64.
    SessionUp {
        flow: String,
        generation: u32,
        key: String,
    },
    /// The base image that comes after this generation was checked. `failure`: why it cannot be
    /// had.
    ImageChecked {
        flow: String,
        generation: u32,
        operation: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// No container of this generation is there, and none will be. `failure`: why, if nobody asked
    /// for it.
    SessionGone {
        flow: String,
        generation: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_the_name_with_what_no_tag_may_have_replaced() {
        let slot = Slot {
            workspace: "team \"a\" (été)".into(),
            owner: "ann+x@example.org".into(),
            size: "local".into(),
            identity: None,
            instance: None,
        };
        let tags = Tags::of(&slot);
        assert_eq!((&*tags.workspace, &*tags.user), ("team _a_ _été_", "ann+x@example.org"));
    }
}
