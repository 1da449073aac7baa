//! The permission that each command needs.

use contract::command::Wish;
use lifecycle::access::Action;

/// The permission that a wish needs.
pub fn action_of(wish: &Wish) -> Action {
    match wish {
        Wish::Start { .. } | Wish::Install { .. } | Wish::Update { .. } | Wish::Reset { .. } | Wish::Run { .. } => {
            Action::Use
        }
        Wish::CreateInstance { .. }
        | Wish::UpdateInstance { .. }
        | Wish::StartInstance { .. }
        | Wish::ChangeRun { .. }
        | Wish::DeleteRun { .. } => Action::Use,
        Wish::Stop
        | Wish::Cancel { .. }
        | Wish::DeleteCompute { .. }
        | Wish::StopInstance { .. }
        | Wish::DeleteInstance { .. } => Action::Stop,
        Wish::StopOnCompute { .. }
        | Wish::StopIfIdle { .. }
        | Wish::WarnIfIdle { .. }
        | Wish::WarnOfDailyTime { .. }
        | Wish::StopForTheDay { .. }
        | Wish::Check => Action::Sweep,
    }
}
