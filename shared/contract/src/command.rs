//! `commands.fifo`: what anybody with the right to send there may want.
//!
//! Message group: the flow's key. Deduplication id: the command's own id.

use crate::{Code, Failure, FlowRef, IdleSeconds, Millis, Principal, bounds};
use lifecycle::{
    network::Network,
    session::{Named, Origin, Setting, Settings},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A command.
///
/// * `id`: chosen by the sender, 1 to 80 characters of `A-Z a-z 0-9 - _`. The same id is the same
///   wish. It is the operation's or the run's id.
/// * `flow`: the session's flow.
/// * `principal`: the user of the command. Only this system's own roles may name one; otherwise it
///   is the queue's sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Command {
    #[serde(deserialize_with = "bounds::id")]
    #[schemars(regex(pattern = bounds::ID))]
    pub id: String,
    #[serde(deserialize_with = "bounds::object")]
    pub flow: FlowRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    #[serde(flatten)]
    pub wish: Wish,
}

/// The content of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "one is read from a message and used; there are never many"
)]
pub enum Wish {
    /// A session that is Ready.
    Start {
        #[serde(deserialize_with = "bounds::object")]
        settings: Wanted,
    },
    /// The environment as the requirements say now.
    Install {
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "bounds::some_object"
        )]
        settings: Option<Wanted>,
        /// The environment of this lock instead, whatever the requirements say.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "bounds::some_key"
        )]
        #[schemars(regex(pattern = bounds::KEY))]
        lock: Option<String>,
    },
    /// The session deleted and made anew, with the packages that were recorded of it; on another
    /// base image, with what the requirements say.
    Reset {
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "bounds::some_object"
        )]
        settings: Option<Wanted>,
        /// With what the requirements say when every index is asked anew.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resolve: bool,
    },
    /// Other settings: what is named changes, the rest stays. Another VM size or identity makes the
    /// session anew; another base image counts from the next reset on, and another idle time or
    /// network at once. It counts as use, also when it names nothing.
    Update {
        #[serde(deserialize_with = "bounds::object")]
        settings: Wanted,
    },
    /// No session.
    Stop,
    /// A run, in the session that the flow has or gets.
    Run {
        #[serde(deserialize_with = "bounds::object")]
        settings: Wanted,
        #[serde(deserialize_with = "bounds::object")]
        run: RunWish,
    },
    /// The end of a run, and of nothing else: its processes end, and the session stays.
    Cancel {
        #[serde(deserialize_with = "bounds::id")]
        #[schemars(regex(pattern = bounds::ID))]
        run: String,
    },
    /// Another name for people of a run of this flow, or a run that lists leave out: what is named
    /// changes, the rest stays. The operation ends once it is decided, here and in `delete-run`.
    ChangeRun {
        #[serde(deserialize_with = "bounds::id")]
        #[schemars(regex(pattern = bounds::ID))]
        run: String,
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "bounds::some_line"
        )]
        #[schemars(length(max = 1000), regex(pattern = bounds::LINE))]
        display_name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archived: Option<bool>,
    },
    /// No run `run` of this flow, which has ended: its row, its output and its files are removed.
    DeleteRun {
        #[serde(deserialize_with = "bounds::id")]
        #[schemars(regex(pattern = bounds::ID))]
        run: String,
    },
    /// No compute resource `compute`, and so no session on it: `flow` names its workspace and
    /// owner. It takes no session from then on, each one on it is stopped, and their runs and
    /// operations end as canceled with that reason. Its operation succeeds once that is decided.
    DeleteCompute {
        #[serde(deserialize_with = "bounds::id")]
        #[schemars(regex(pattern = bounds::ID))]
        compute: String,
    },
    /// A compute instance of this name, started. Of these five commands, `flow` names the workspace
    /// and the owner alone, and the operation ends once it is decided.
    CreateInstance {
        #[serde(deserialize_with = "bounds::id")]
        #[schemars(regex(pattern = bounds::ID))]
        instance: String,
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "bounds::setting"
        )]
        #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
        size: Option<String>,
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "bounds::setting"
        )]
        #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
        identity: Option<String>,
        /// The seconds without use after which it is shut down, with all sessions on it.
        /// From 60 to 86400; left out: never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idle_shutdown_seconds: Option<IdleSeconds>,
    },
    /// Other settings of a compute instance: what is named changes, the rest stays. The idle
    /// shutdown counts at once, VM size and identity from its next start on.
    UpdateInstance {
        #[serde(deserialize_with = "bounds::id")]
        #[schemars(regex(pattern = bounds::ID))]
        instance: String,
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "bounds::setting"
        )]
        #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
        size: Option<String>,
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "bounds::setting"
        )]
        #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
        identity: Option<String>,
        /// As that of `create-instance`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idle_shutdown_seconds: Option<IdleSeconds>,
        /// It is never shut down for idleness, in place of `idle_shutdown_seconds`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_idle_shutdown: bool,
    },
    StartInstance {
        #[serde(deserialize_with = "bounds::id")]
        #[schemars(regex(pattern = bounds::ID))]
        instance: String,
    },
    /// All sessions on it are stopped first, and each run is told.
    StopInstance {
        #[serde(deserialize_with = "bounds::id")]
        #[schemars(regex(pattern = bounds::ID))]
        instance: String,
    },
    /// Likewise, and there is no instance of that name any more.
    DeleteInstance {
        #[serde(deserialize_with = "bounds::id")]
        #[schemars(regex(pattern = bounds::ID))]
        instance: String,
    },
    /// From the sweep alone: a stop, if the session is on this compute resource, which is to be
    /// deleted, and why.
    StopOnCompute { compute: String, why: Failure },
    /// From the sweep alone: a stop, if the session is still as the sweep saw it.
    ///
    /// * `why`: of a session whose compute instance was unused for too long.
    StopIfIdle {
        generation: u32,
        activity: Millis,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Failure>,
    },
    /// From the sweep alone: a warning of the deletion at `due`, if it is still to come then.
    WarnIfIdle { generation: u32, due: Millis },
    /// From the sweep alone: a warning that the user's time of the day is used up at `due`.
    WarnOfDailyTime { generation: u32, due: Millis },
    /// From the sweep alone: a stop, as the user's time of the day is used up. It stops nothing
    /// from `until` on, when the time begins anew.
    StopForTheDay {
        generation: u32,
        until: Millis,
        why: Failure,
    },
    /// From the sweep alone: look at what is due.
    Check,
}

/// The settings that a session is wanted with. What is left out has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The flow folder: an absolute path on one machine, the address of a snapshot on AWS. Left
    /// out, it is that of the flow's session, or else the flow's lineage.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::some_line"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::LINE))]
    pub folder: Option<String>,
    /// The VM size.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub size: Option<String>,
    /// The user-assigned identity.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub identity: Option<String>,
    /// The base image, before the flow's own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub image: Option<String>,
    /// The longest time that it may be idle, in seconds: from 60 to 86400.
    #[serde(default, rename = "idle_seconds", skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleSeconds>,
    /// Which network it has: the internet (without the machine's own addresses and private ones),
    /// the machine's own, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The hosts that it may reach whatever the network is: a name or an address, with a port or
    /// without. An empty list takes back an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "bounds::hosts")]
    #[schemars(length(max = bounds::MOST_HOSTS), extend("items" = { "type": "string", "maxLength": bounds::LONGEST_HOST, "pattern": bounds::HOST }))]
    pub allow_hosts: Option<Vec<String>>,
    /// The compute instance that it is on, whose VM size and identity it has; `serverless` is none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::some_id"
    )]
    #[schemars(regex(pattern = bounds::ID))]
    pub compute: Option<String>,
    /// Which of these the run's own file names, and not the command itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from_run_file: Vec<Setting>,
}

/// The compute type that is no instance: no instance has this name.
pub const SERVERLESS: &str = "serverless";

macro_rules! settings_of_a_command {
    ($($(#[$doc:meta])* $setting:ident, $name:ident: $type:ty, $since:tt, $default:expr, $what:literal, $counts:ident;)*) => {
        impl Wanted {
            /// These settings, and those of a run's own file where these name none.
            pub fn over_run_file(self, file: Self) -> Self {
                let mut from_run_file = self.from_run_file;
                $(if self.$name.is_none() && file.$name.is_some() {
                    from_run_file.push(Setting::$setting);
                })*
                Self {
                    folder: self.folder.or(file.folder),
                    $($name: self.$name.or(file.$name),)*
                    from_run_file,
                }
            }

            /// These settings, and those of `below` where these name none.
            pub fn over(&self, mut below: Settings) -> Settings {
                if let Some(folder) = self.folder.clone() {
                    below.folder = Named::new(folder, Origin::Command);
                }
                $(if let Some(value) = self.$name.clone() {
                    let is_of_file = self.from_run_file.contains(&Setting::$setting);
                    let origin = if is_of_file { Origin::RunFile } else { Origin::Command };
                    below.$name = Named::new(value.into(), origin);
                })*
                below.compute.value = below.compute.value.filter(|name| name != SERVERLESS);
                below
            }
        }
    };
}

lifecycle::with_settings!(settings_of_a_command);

impl Wish {
    /// The settings that it names.
    pub fn settings(&self) -> Option<&Wanted> {
        match self {
            Self::Start { settings } | Self::Update { settings } | Self::Run { settings, .. } => Some(settings),
            Self::Install { settings, .. } | Self::Reset { settings, .. } => settings.as_ref(),
            _ => None,
        }
    }

    /// The name, as on the wire.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Install { .. } => "install",
            Self::Reset { .. } => "reset",
            Self::Update { .. } => "update",
            Self::Stop => "stop",
            Self::Run { .. } => "run",
            Self::Cancel { .. } => "cancel",
            Self::ChangeRun { .. } => "change-run",
            Self::DeleteRun { .. } => "delete-run",
            Self::DeleteCompute { .. } => "delete-compute",
            Self::CreateInstance { .. } => "create-instance",
            Self::UpdateInstance { .. } => "update-instance",
            Self::StartInstance { .. } => "start-instance",
            Self::StopInstance { .. } => "stop-instance",
            Self::DeleteInstance { .. } => "delete-instance",
            Self::StopOnCompute { .. } => "stop-on-compute",
            Self::StopIfIdle { .. } => "stop-if-idle",
            Self::WarnIfIdle { .. } => "warn-if-idle",
            Self::WarnOfDailyTime { .. } => "warn-of-daily-time",
            Self::StopForTheDay { .. } => "stop-for-the-day",
            Self::Check => "check",
        }
    }

    /// The run that has its row changed or removed.
    pub fn run_to_change(&self) -> Option<&str> {
        match self {
            Self::ChangeRun { run, .. } | Self::DeleteRun { run } => Some(run),
            _ => None,
        }
    }

    /// The compute instance that it is about.
    pub fn instance(&self) -> Option<&str> {
        match self {
            Self::CreateInstance { instance, .. }
            | Self::UpdateInstance { instance, .. }
            | Self::StartInstance { instance }
            | Self::StopInstance { instance }
            | Self::DeleteInstance { instance } => Some(instance),
            _ => None,
        }
    }
}

/// The settings of a run: its data, inputs and mappings.
///
/// * `data`: a file of JSON lines, an absolute path on one machine, an address on AWS; `None` runs
///   the flow once over its own default inputs.
/// * `inputs`: values for the flow's inputs when there is no data.
/// * `column_mapping`: by input name `${data.x}`, `${run.outputs.x}`, `${run.inputs.x}` or the
///   value itself; an input without one takes its default, or else the column of its own name.
/// * `run`: an earlier run of the same user, whose outputs and data the mapping may name.
/// * `resume_from`: an earlier run of the same user over the same data: lines that it has completed
///   are taken over, and not run again.
/// * `file`: the flow's file in its folder, where that is not the folder's only one. `entry`:
///   `module:name` of a flow without a file.
/// * `variant`: `${node.variant}`.
/// * `environment_variables`: for this run alone. Never a secret: they are stored.
///   `${connection.key}` stands for a connection's value.
/// * `secret_variables`: the names of more; their values come to the run's agent by another way,
///   and are stored nowhere.
/// * `connections`: by node, what takes the place of its connection, `deployment_name` and `model`.
/// * `command`: a program and its arguments, which runs in the folder in place of its flow; nothing
///   else but the variables goes with it.
/// * `stream`: of the one line of a run without data, an output that the flow gives in pieces is
///   told as it comes, too.
/// * `display_name`, `description`, `tags`, `properties`: for people; kept with the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunWish {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub column_mapping: BTreeMap<String, serde_json::Value>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::some_id"
    )]
    #[schemars(regex(pattern = bounds::ID))]
    pub run: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::some_id"
    )]
    #[schemars(regex(pattern = bounds::ID))]
    pub resume_from: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub file: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::setting"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::NAME))]
    pub entry: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "bounds::variables"
    )]
    #[schemars(extend("propertyNames" = { "pattern": bounds::VARIABLE }))]
    pub environment_variables: BTreeMap<String, String>,
    #[serde(
        default,
        skip_serializing_if = "BTreeSet::is_empty",
        deserialize_with = "bounds::variable_names"
    )]
    #[schemars(extend("items" = { "type": "string", "pattern": bounds::VARIABLE }))]
    pub secret_variables: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connections: BTreeMap<String, BTreeMap<String, String>>,
    /// Arguments of a class-based flex flow's constructor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub init: BTreeMap<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounds::words")]
    #[schemars(extend("items" = { "type": "string", "pattern": bounds::WORD }))]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

impl Command {
    /// Reads a command from a message or a body.
    ///
    /// # Errors
    ///
    /// `Command.Malformed`, final, with what is wrong.
    pub fn read(text: &str) -> Result<Self, Failure> {
        let malformed = |why: String| Failure::new(Code::CommandMalformed, why);
        let command: Self = serde_json::from_str(text).map_err(|e| malformed(format!("This is no command: {e}.")))?;
        // The start that a run may need has the run's id in its own, and that is an id as well.
        if matches!(command.wish, Wish::Run { .. }) && command.id.len() > LONGEST_RUN_ID {
            return Err(malformed(format!(
                "A run's id has at most {LONGEST_RUN_ID} characters."
            )));
        }
        Ok(command)
    }
}

impl Command {
    /// The digest of its wish and flow, as 64 hex digits: two commands of one id are the same if
    /// these are.
    pub fn digest(&self) -> String {
        use sha2::{Digest, Sha256};
        let wanted = serde_json::to_vec(&(&self.flow, &self.wish)).expect("a command is always JSON");
        hex::encode(Sha256::digest(wanted))
    }
}

/// The most characters of a run's id.
pub const LONGEST_RUN_ID: usize = 70;

pub use crate::bounds::is_good_id;
