//! The settings that a command asks for.

use contract::command::{RunWish, Wanted, Wish};
use lifecycle::session::Settings;

/// The settings that a command asks for, with the default for each that it leaves out, and where
/// each comes from.
///
/// The command itself counts first, then the run's own file, then the flow's (which names a base
/// image alone, and is read by who claims a compute resource), then the workspace
/// ([`crate::workspace::fill`]), then the default.
///
/// # Source
///
/// "The idle shutdown is one hour if you are using CLI/SDK to submit a flow run" (the
/// specification); "It runs on the virtual machine (VM) size of serverless compute" (the
/// specification, *Start a compute session on a flow page*): `local` is the size of one machine.
pub fn defaults(wanted: &Wanted, lineage: &str) -> Settings {
    wanted.over(Settings::new(lineage))
}

/// The settings that a wish asks for, and what a run of it runs over.
pub(crate) fn settings_of_wish<'a>(wish: &'a Wish, lineage: &str) -> (Settings, Option<&'a RunWish>) {
    match wish {
        Wish::Start { settings } | Wish::Update { settings } => (defaults(settings, lineage), None),
        Wish::Run { settings, run } => (defaults(settings, lineage), Some(run)),
        Wish::Install { settings, .. } | Wish::Reset { settings, .. } => {
            (defaults(&settings.clone().unwrap_or_default(), lineage), None)
        }
        Wish::Stop
        | Wish::Cancel { .. }
        | Wish::ChangeRun { .. }
        | Wish::DeleteRun { .. }
        | Wish::DeleteCompute { .. }
        | Wish::CreateInstance { .. }
        | Wish::UpdateInstance { .. }
        | Wish::StartInstance { .. }
        | Wish::StopInstance { .. }
        | Wish::DeleteInstance { .. }
        | Wish::StopOnCompute { .. }
        | Wish::StopIfIdle { .. }
        | Wish::WarnIfIdle { .. }
        | Wish::WarnOfDailyTime { .. }
        | Wish::StopForTheDay { .. }
        | Wish::Check => (defaults(&Wanted::default(), lineage), None),
    }
}
