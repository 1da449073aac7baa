//! Requests and answers of `functions/api`. All bodies are JSON; `Authorization: Bearer <JWT>` on
//! all but `/v1/health`.
//!
//! | route | body or query | answer |
//! | --- | --- | --- |
//! | `GET /v1/health` | | 200 [`Health`] |
//! | `POST /v1/commands` | a [`Command`](crate::command::Command) without principal | 202 [`Accepted`]; 400, 401, 403 [`Problem`] |
//! | `POST /v1/checks` | a start's [`Command`](crate::command::Command) without principal, which is not carried out | 200 [`Checks`]; 400, 401 |
//! | `POST /v1/snapshots` | an [`Offer`](crate::snapshot::Offer) | 200 [`Place`](crate::snapshot::Place); 404 where the functions see the folders themselves |
//! | `GET /v1/operations/{id}` | `wait=milliseconds` (at most 20000) waits for its end | 200 [`OperationRow`](crate::row::OperationRow); 404 until it is accepted |
//! | `GET /v1/runs` | `flow`, `status`, `tag`, `name`, `archived=1`, `limit`, `after=next` of the page before | 200 [`Runs`], the caller's own, newest first |
//! | `GET /v1/runs/{id}` | `wait` likewise; `wish=digest` of the command that is to have made it | 200 [`RunRow`](crate::row::RunRow); 409 `Run.NameTaken` |
//! | `PUT /v1/runs/{id}` | a [`RunChange`] | 200 [`RunRow`](crate::row::RunRow) |
//! | `DELETE /v1/runs/{id}` | | 200 [`RunRow`](crate::row::RunRow) as it was; 409 if it has not ended |
//! | `GET /v1/runs/{id}/files` | `path` and `offset`; `wait` for more of it | 200 [`FilePart`]; without `path` [`RunFiles`]; 404 where the functions do not see them and they are not in the store (yet) |
//! | `GET /v1/output/{operation or run}` | `after=seq`, `wait` for a line after it | 200 [`Output`] |
//! | `GET /v1/sessions` | `users=all` for those of the whole workspace, `key` for those whose key begins so, `limit`, `after=next` of the page before | 200 [`Sessions`]; 403 |
//! | `GET /v1/sessions/{flow key}` | | 200 [`SessionView`] |
//! | `GET /v1/sessions/{flow key}/why` | | 200 [`Why`] |
//! | `GET /v1/sessions/{flow key}/packages` | | 200 [`PackagesRow`](crate::packages::PackagesRow); 404 if nothing was ever installed |
//! | `GET /v1/sessions/{flow key}/installs` | | 200 [`Installs`] |
//! | `GET /v1/sessions/{flow key}/events` | `after=revision` | 200 [`Events`] |
//! | `GET /v1/computes` | as `/v1/sessions`: `users=all`, `key`, `limit`, `after=next` | 200 [`Computes`]: those that have sessions; 403 |
//! | `GET /v1/computes/{id}` | `wait=milliseconds` (at most 20000) waits until no session is on it, with `until=gone` until it is gone | 200 [`ComputeView`] |
//! | `DELETE /v1/computes/{id}` | | 202 [`ComputeView`]: what ends with it; 403 |
//! | `GET /v1/instances` | for an owner `user`, or `users=all` with `after=next` of the page before | 200 [`Instances`](crate::instance::Instances): the caller's own, that user's, or a page of everybody's; 403 |
//! | `GET /v1/instances/{name}` | `user` likewise, `wait=milliseconds` (at most 20000) waits until it is neither starting nor stopping | 200 [`InstanceView`](crate::instance::InstanceView) |
//! | `GET /v1/workspaces/{workspace}/roles` | `after=next` of the page before | 200 [`Roles`](crate::people::Roles); 403 |
//! | `GET /v1/workspaces/{workspace}/roles` | `user` | 200 [`RoleRow`](crate::people::RoleRow), of revision 0 where none is stored; 403 |
//! | `PUT /v1/workspaces/{workspace}/roles` | [`RoleRow`](crate::people::RoleRow), with the revision that was read | 200 the same; 403; 409 if somebody else was faster |
//! | `GET /v1/workspaces/{workspace}/connections` | | 200 [`ConnectionRows`](crate::connections::ConnectionRows): the caller's own and the workspace's, without secrets; 403; 404 where the service keeps none |
//! | `PUT /v1/workspaces/{workspace}/connections` | [`ConnectionWish`](crate::connections::ConnectionWish) | 200 [`ConnectionRow`](crate::connections::ConnectionRow); 400; 403 |
//! | `DELETE /v1/workspaces/{workspace}/connections` | `name`, `for_workspace=1` | 200 [`ConnectionRow`](crate::connections::ConnectionRow), as it was; 403; 404 |
//! | `POST /v1/sessions/{flow key}/connections` | [`ConnectionsWanted`](crate::connections::ConnectionsWanted), signed by the session; no token | 200 [`GivenConnections`](crate::connections::GivenConnections); 403 |
//! | `POST /v1/sessions/{flow key}/earlier` | [`EarlierWanted`](crate::stored::EarlierWanted), signed by the session; no token | 200 [`GivenEarlier`](crate::stored::GivenEarlier); 403; 404 where the store has no files of that run |
//! | `GET /v1/workspaces/{workspace}/settings` | | 200 [`WorkspaceRow`](crate::workspace::WorkspaceRow), of revision 0 where none is stored; 403 |
//! | `PUT /v1/workspaces/{workspace}/settings` | [`WorkspaceRow`](crate::workspace::WorkspaceRow), with the revision that was read | 200 the same; 400, 403; 409 if somebody else was faster |
//! | `GET /v1/workspaces/{workspace}/webhooks` | | 200 [`Webhooks`](crate::webhook::Webhooks) |
//! | `PUT /v1/workspaces/{workspace}/webhooks` | [`Webhooks`](crate::webhook::Webhooks), with the revision that was read | 200 the same; 403; 409 if somebody else was faster |
//!
//! A parameter that the route does not have, or a value that it does not take, is answered by 400
//! `Http.BadQuery`.
//!
//! A read by `wait` ends early when the thing is there, and answers what there is when the time has
//! passed.

use crate::{
    FlowRef, Kind, Millis, Named, Phase, Settings,
    agent::OutputLine,
    bounds,
    network::Refused,
    packages::InstallRow,
    row::{LogRow, RunStatus},
    stored::Download,
};
use lifecycle::{Code, Failure, compute::ComputePhase, session::Event};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A request, as a function URL or an HTTP API hands it on (payload version 2.0): the parts that
/// are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub raw_path: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query_string_parameters: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    pub request_context: RequestContext,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_base64_encoded: bool,
}

/// The HTTP front's own data of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestContext {
    pub http: RequestLine,
}

/// The line of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestLine {
    pub method: String,
}

/// The service is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    pub version: String,
}

/// A command is in the queue. Whether it is admitted, its operation or run says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    pub id: String,
    /// The flow's key.
    pub flow: String,
    /// Whether it is a run that is there already: the same command came before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// The prerequisites of a start, all of them at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checks {
    pub checks: Vec<Check>,
}

/// One prerequisite.
///
/// * `check`: its stable name: `role`, `vm-size`, `idle-time`, `identity`, `data-store`,
///   `working-directory`, `quota`; the command line adds `requirements`, `base-image` and
///   `network`.
/// * `what`: what was found; of one that is lacking, what is wrong and what to do.
/// * `error`: the code of the error that a start would end with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    pub check: String,
    pub result: CheckResult,
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Code>,
}

impl Check {
    /// A check that is met; `what` was found.
    pub fn held(check: &str, what: String) -> Self {
        Self {
            check: check.to_owned(),
            result: CheckResult::Held,
            what,
            error: None,
        }
    }

    /// One of which who was asked cannot know; `what` says why.
    pub fn not_checkable(check: &str, what: String) -> Self {
        Self {
            result: CheckResult::NotCheckable,
            ..Self::held(check, what)
        }
    }

    /// A check that is not met, with the failure that a start would end with.
    pub fn lacking(check: &str, failure: Failure) -> Self {
        Self {
            check: check.to_owned(),
            result: CheckResult::Lacking,
            what: failure.message,
            error: Some(failure.error),
        }
    }
}

/// Whether a prerequisite is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckResult {
    Held,
    Lacking,
    /// The service that was asked cannot know it.
    NotCheckable,
}

/// A page of runs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Runs {
    pub runs: Vec<RunSummary>,
    /// The value of `after` for the next page; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A run in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunSummary {
    pub id: String,
    pub flow: FlowRef,
    pub status: RunStatus,
    pub accepted: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_lines: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
}

/// A change of a run: the fields that are named, and no others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunChange {
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::some_line"
    )]
    #[schemars(length(max = 1000), regex(pattern = bounds::LINE))]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

/// The files of a run's folder, by path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunFiles {
    pub files: Vec<RunFile>,
}

/// A file of a run's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunFile {
    pub path: String,
    pub bytes: u64,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilePart {
    /// Base64.
    pub content: String,
    /// The address of the part, instead of `content`, if it is in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<Download>,
    /// The start of the next part.
    pub next: u64,
    /// Whether this is the end of the file, and the run has ended: there will be no more.
    pub ended: bool,
}

/// The failure of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    pub error: Failure,
}

/// Lines of output of an operation or a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Output {
    pub lines: Vec<OutputLine>,
    /// Whether there will be no more.
    pub ended: bool,
}

/// A page of sessions, by user and key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sessions {
    pub sessions: Vec<SessionView>,
    /// The value of `after` for the next page; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A session, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// The flow's key.
    pub key: String,
    pub flow: FlowRef,
    pub phase: Phase,
    /// The time at which it entered this phase.
    pub since: Millis,
    pub generation: u32,
    /// Raised by each change.
    pub revision: u64,
    /// Its settings, and where each comes from.
    pub settings: Settings,
    /// The base image that its container is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Named<String>>,
    /// The digest of that image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The digest that its name was seen to stand for since, if that is another one: a reset takes
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_digest: Option<String>,
    /// The base image that a reset would take, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_image: Option<Named<String>>,
    pub compute: Option<String>,
    pub current: Option<OperationView>,
    pub next: Option<OperationView>,
    /// The runs waiting or in progress.
    pub runs: Vec<String>,
    pub last_activity: Millis,
    /// The time of its deletion if nothing happens before.
    pub idle_due: Option<Millis>,
    /// The time at which its compute instance is shut down, and this session with it, if nothing
    /// uses the instance before; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_due: Option<Millis>,
    /// The time of its stop, as its user's sessions have then used up the time of a day; not in
    /// lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_due: Option<Millis>,
    /// Whether its user was warned of its own deletion.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warned: bool,
    /// The reason for its stop, if no user of the flow asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_for: Option<Failure>,
    pub failure: Option<Failure>,
    /// Its refused connections; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// By the control plane's clock, when this was read.
    pub now: Millis,
}

/// A page of compute resources. One that has sessions on two pages is on both, each time whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Computes {
    pub computes: Vec<ComputeView>,
    /// The value of `after` for the next page; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A compute resource, with the flows and runs that are active on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ComputeView {
    pub id: String,
    pub workspace: String,
    /// Its one user.
    pub owner: String,
    pub phase: ComputePhase,
    /// The time of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
    /// The VM size.
    pub size: String,
    /// The list price of an hour of that size, in millionths of a US dollar; none where it is not
    /// known, or there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<u32>,
    /// The user-assigned identity; none is the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The compute instance that it is; none is serverless compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The time at which that is shut down if nothing uses it before; none while something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_due: Option<Millis>,
    /// Whether its user was warned of that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shutdown_warned: bool,
    pub sessions: Vec<SessionOnCompute>,
    /// By the control plane's clock, when this was read.
    pub now: Millis,
}

impl ComputeView {
    /// Its cost so far by the list price, in millionths of a US dollar.
    pub fn cost(&self) -> Option<u64> {
        let hours = self.now.saturating_sub(self.since?);
        Some(u64::from(self.price?).saturating_mul(hours) / 3_600_000)
    }
}

/// A session on a compute resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionOnCompute {
    /// The flow's key.
    pub key: String,
    pub flow: FlowRef,
    pub phase: Phase,
    /// The time at which it entered this phase.
    pub since: Millis,
    pub current: Option<OperationView>,
    /// The runs waiting or in progress.
    pub runs: Vec<String>,
}

/// An operation, inside a session's view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationView {
    pub id: String,
    pub kind: Kind,
}

/// The reasons for a session's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    pub session: SessionView,
    #[serde(flatten)]
    pub reasons: Reasons,
}

/// The reasons for a session's state, from its row and its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reasons {
    /// The decision by which it entered its phase.
    pub because: Option<Decision>,
    /// The decision that set this in motion: that it is to be there, or that it is not.
    pub began: Option<Decision>,
    /// The last decision of all.
    pub last: Option<Decision>,
    /// Runs and operations that keep it from being idle.
    pub kept_by: Vec<Keeper>,
    /// Deadlines that end it or its phase if nothing happens before, soonest first.
    pub ends: Vec<End>,
    /// Signals of this generation.
    pub signals: Vec<Signal>,
}

/// A decision, and what it was made on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    pub revision: u64,
    pub at: Millis,
    /// The user or part that wanted or saw it.
    pub by: String,
    pub from: Phase,
    pub to: Phase,
    pub event: Event,
}

/// Something that keeps a session from being idle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Keeper {
    Operation {
        id: String,
        #[serde(rename = "operation")]
        kind: Kind,
    },
    /// An operation that waits for the one under way.
    Waiting {
        id: String,
        #[serde(rename = "operation")]
        kind: Kind,
    },
    /// `until`: when its lease ends; none while it waits for the session.
    Run { id: String, until: Option<Millis> },
}

/// Something that will end a session, or its phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum End {
    /// It is deleted for idleness. `warning`: when its user is warned of that, if they were not.
    Idle {
        at: Millis,
        warned: bool,
        warning: Option<Millis>,
    },
    /// Its compute instance is shut down for idleness, with all sessions on it.
    InstanceIdle { at: Millis },
    /// Its user's sessions have lived then for as long as they may on one day. `warned`: whether
    /// its user was warned of that.
    DailyTime { at: Millis, warned: bool },
    /// The phase has lasted too long.
    Deadline { at: Millis },
    /// Its agent is held for ended if it is not heard before.
    AgentSilent { at: Millis },
}

/// A signal of a session, how often it was seen and when last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signal {
    pub kind: SignalKind,
    pub times: u64,
    pub at: Millis,
}

/// The kind of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SignalKind {
    ComputeUp,
    ContainerUp,
    Installed,
    InstallFailed,
    RunWanted,
    RunDone,
    Used,
    Warned,
    AgentAlive,
    Gone,
}

/// A flow's history, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    pub events: Vec<LogRow>,
}

/// A flow's history of installs, oldest first; of more than
/// [`MOST_INSTALLS`](crate::packages::MOST_INSTALLS) the last ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Installs {
    pub installs: Vec<InstallRow>,
}

/// The claims of a bearer token.
///
/// * `sub`: the user's name; `ws`: the workspace; `roles`: what they may do there; `exp`: seconds
///   since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claims {
    #[serde(deserialize_with = "crate::bounds::name")]
    #[schemars(length(max = 100), regex(pattern = crate::bounds::NAME))]
    pub sub: String,
    #[serde(deserialize_with = "crate::bounds::name")]
    #[schemars(length(max = 100), regex(pattern = crate::bounds::NAME))]
    pub ws: String,
    pub roles: Vec<crate::Role>,
    pub exp: u64,
    pub aud: String,
}

/// The audience of a bearer token.
pub const AUDIENCE: &str = "pfsession";
