//! The ports of the shell: the table, the queues and the state machine.

use crate::Fault;
use contract::{
    Failure, Millis,
    http::RunChange,
    instance::InstanceRow,
    network::NetworkRow,
    notice::Notice,
    packages::{InstallRow, PackagesRow, Setup},
    people::RoleRow,
    row::{LogRow, OperationEnd, OperationRow, RunEnd, RunRow, SessionRow, UsedRow},
    webhook::WebhooksRow,
    workspace::WorkspaceRow,
};
use lifecycle::{
    compute::{Compute, Slot},
    quota::Usage,
    session::{Message, Session},
    size::Offer,
};
use std::future::Future;

/// The table, the queues and the state machine. `shared/aws` has the adapter, and the tests have
/// one in memory; both pass the same suite.
///
/// # Errors
///
/// Each call gives [`Fault::Outside`] when the outside fails, which is worth a retry; `save` gives
/// [`Fault::Conflict`] besides.
pub trait Ports: Send + Sync {
    /// The control plane's clock, in milliseconds since the Unix epoch.
    fn now(&self) -> Millis;
    /// An unused id.
    fn new_id(&self) -> String;
    /// The most sessions that one user has at once, if the workspace does not say.
    fn sessions_per_user(&self) -> usize;
    /// The VM sizes that a session may be given for which nobody names one.
    fn offer(&self) -> Offer;

    /// Reads a flow's session as it is now (not as it was a moment ago).
    fn load_session(&self, flow: &str) -> impl Future<Output = Result<Option<SessionRow>, Fault>> + Send;
    fn load_operation(&self, id: &str) -> impl Future<Output = Result<Option<OperationRow>, Fault>> + Send;
    fn load_run(&self, id: &str) -> impl Future<Output = Result<Option<RunRow>, Fault>> + Send;
    /// Reads what a flow's session has installed, as last recorded.
    fn load_packages(&self, flow: &str) -> impl Future<Output = Result<Option<PackagesRow>, Fault>> + Send;
    /// Reads a flow's history of installs, oldest first.
    fn installs(&self, flow: &str) -> impl Future<Output = Result<Vec<InstallRow>, Fault>> + Send;
    fn load_compute(&self, id: &str) -> impl Future<Output = Result<Option<Compute>, Fault>> + Send;
    /// Reads the compute resource that a slot has now.
    fn load_slot(&self, slot: &Slot) -> impl Future<Output = Result<Option<Compute>, Fault>> + Send;

    /// Reads a compute instance of a user.
    fn load_instance(
        &self,
        workspace: &str,
        owner: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<InstanceRow>, Fault>> + Send;

    /// Reads what a workspace does when somebody outside says that something happened.
    fn load_webhooks(&self, workspace: &str) -> impl Future<Output = Result<Option<WebhooksRow>, Fault>> + Send;

    /// Reads the roles that a workspace has given a user.
    fn load_roles(&self, workspace: &str, user: &str) -> impl Future<Output = Result<Option<RoleRow>, Fault>> + Send;

    /// Reads the settings of a workspace.
    fn load_workspace(&self, workspace: &str) -> impl Future<Output = Result<Option<WorkspaceRow>, Fault>> + Send;

    /// Reads what a user has at once, as it is now.
    fn load_usage(&self, workspace: &str, user: &str) -> impl Future<Output = Result<Usage, Fault>> + Send;

    /// Writes all of it or nothing.
    fn save(&self, save: Save) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Takes messages out of the outbox of a session, and sets its due time if it still has this
    /// revision.
    fn clear(
        &self,
        flow: &str,
        sent: &[String],
        revision: u64,
        due: Option<Millis>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Sends one message. One that is too late for its receiver (an answered token, a queue that is
    /// gone, an execution that exists) counts as sent.
    fn send(&self, row: &SessionRow, message: &Message) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Sends a command of this system's own.
    fn send_command(&self, command: &contract::command::Command) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Sends a notice to the queue of notices.
    fn send_notice(&self, notice: &Notice) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Asks the driver for something that belongs to no session.
    fn ask_driver(&self, request: &contract::driver::ComputeRequest) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Reads the keys of what is due in a shard, oldest first, at most a page.
    fn due(&self, shard: u32, now: Millis) -> impl Future<Output = Result<Vec<Due>, Fault>> + Send;
    /// Marks a run as started, if it has not ended.
    fn run_started(&self, run: &str, at: Millis) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Changes what is named of a run that is there.
    fn change_run(&self, run: &str, change: &RunChange) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Removes the files of a run that has ended, where they are kept beside the table. Inside: the
    /// final failure of a folder that cannot be removed.
    fn remove_run_files(&self, row: &RunRow) -> impl Future<Output = Result<Result<(), Failure>, Fault>> + Send;
    /// Removes the output of a run that has ended, its place in the list, and of its row all but
    /// the name, which expires. What is gone already is no error.
    fn forget_run(&self, row: &RunRow) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Keeps how the install of an operation ended.
    fn keep_setup(&self, operation: &str, setup: &Setup) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Reads what a flow's session was refused of the network, as last recorded.
    fn load_refused(&self, flow: &str) -> impl Future<Output = Result<Option<NetworkRow>, Fault>> + Send;
    /// Keeps what a session was refused, if nothing later is recorded: of a later generation, or a
    /// larger count.
    fn keep_refused(&self, flow: &str, row: &NetworkRow) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Reads what the last runs of a flow used.
    fn load_used(&self, flow: &str) -> impl Future<Output = Result<Option<UsedRow>, Fault>> + Send;
    /// Keeps what the last runs of a flow used. Of two at once one is lost: it is a sample.
    fn keep_used(&self, flow: &str, row: &UsedRow) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Keeps lines of output; a line that comes twice is kept once.
    fn keep_output(
        &self,
        of: &str,
        lines: &[contract::agent::OutputLine],
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// A row whose due time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub what: DueRow,
    /// The time of its arrival.
    pub since: Millis,
}

/// Which row is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DueRow {
    /// A flow's session, by its key.
    Session(String),
    /// A compute resource, by its id.
    Compute(String),
    /// A user's quota.
    Usage { workspace: String, user: String },
}

/// One transaction.
#[derive(Clone, Debug, Default)]
pub struct Save {
    pub writes: Vec<Write>,
}

/// One row of a transaction.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a transaction has a few of them")]
pub enum Write {
    /// A session, if its stored revision is still `read`. Its due time is part of it: see
    /// [`due_of`].
    Session {
        row: Box<SessionRow>,
        read: u64,
        due: Option<Millis>,
    },
    /// One entry of the history.
    Log {
        flow: String,
        entry: LogRow,
    },
    /// An operation that is new; it may have ended already.
    NewOperation(OperationRow),
    /// The end of an operation that has a row.
    EndOperation {
        operation: String,
        end: OperationEnd,
    },
    NewRun(RunRow),
    EndRun {
        run: String,
        end: RunEnd,
    },
    /// A compute resource, if its stored revision is still `read` (`None`: if there is no such
    /// row).
    Compute {
        compute: Compute,
        read: Option<u64>,
    },
    /// The slot's compute resource is this one now; it was `was`.
    Slot {
        slot: Slot,
        compute: String,
        was: Option<String>,
    },
    /// A user's usage, if the stored revision is the one before.
    Usage {
        workspace: String,
        user: String,
        usage: Usage,
    },
    /// A compute instance, if the stored revision is the one before.
    Instance(InstanceRow),
    /// The deletion of a compute instance, if the stored revision is still this row's.
    ForgetInstance(InstanceRow),
    /// The installed packages, if the stored number is still `read` (`None`: if there is no such
    /// row).
    Packages {
        flow: String,
        row: Box<PackagesRow>,
        read: Option<u64>,
    },
    NewInstall {
        flow: String,
        entry: Box<InstallRow>,
    },
    /// One entry less of the history of installs. It may be gone already.
    ForgetInstall {
        flow: String,
        number: u64,
    },
}

/// The time of the next look at the session, its unsent messages included.
pub(crate) fn due_of(session: &Session, has_unsent: bool, now: Millis) -> Option<Millis> {
    let unsent = has_unsent.then_some(now + lifecycle::deadlines::OUTBOX);
    session.due().into_iter().chain(unsent).min()
}
