//! The difference between the saved requirements and the installed ones.

use super::recorded_packages;
use crate::{client::Client, wish::Flow};
use contract::route::Route;
use contract::{Phase, http::SessionView};
use schemars::JsonSchema;
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// The difference of the saved requirements and the installed ones.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Drift {
    /// Lines that are saved and not installed.
    pub(crate) saved: Vec<String>,
    /// Lines that are installed and not saved any more.
    pub(crate) installed: Vec<String>,
}

impl Drift {
    /// The difference in one sentence, and what to do.
    pub(crate) fn describe(&self, flow: &Flow) -> String {
        let list = |what: &str, lines: &[String]| match lines {
            [] => None,
            all if all.len() <= 3 => Some(format!("{what}: {}", all.join(", "))),
            all => Some(format!("{what}: {} and {} more", all[..2].join(", "), all.len() - 2)),
        };
        let saved = list("saved, not installed", &self.saved);
        let installed = list("installed, not saved", &self.installed);
        let what: Vec<String> = saved.into_iter().chain(installed).collect();
        format!(
            "The requirements have changed since the install ({}), and this run has what is installed. Install first: pfsession run {} --install",
            what.join("; "),
            flow.typed
        )
    }

    pub(crate) fn between(saved: &[String], installed: &[String]) -> Self {
        let count = |lines: &[String]| {
            lines.iter().fold(BTreeMap::<String, usize>::new(), |mut counts, line| {
                *counts.entry(line.clone()).or_default() += 1;
                counts
            })
        };
        let more = |these: &[String], those: &[String]| {
            let known = count(those);
            count(these)
                .into_iter()
                .filter(|(line, many)| known.get(line).is_none_or(|known| known < many))
                .map(|(line, _)| line)
                .collect()
        };
        Self {
            saved: more(saved, installed),
            installed: more(installed, saved),
        }
    }
}

/// The difference of the requirements in a flow folder and the packages of its session. `None` if
/// they do not, if there is no session that runs are taken by, or if that cannot be said now.
pub(crate) fn drift(client: &Client, flow: &Flow) -> Option<Drift> {
    let session: SessionView = client.find(Route::Session(&flow.key())).ok()??;
    if session.phase != Phase::Ready || session.current.is_some() {
        return None;
    }
    let row = recorded_packages(client, flow).ok()??;
    let drift = Drift::between(&lines_in_folder(&flow.folder(&client.user))?, &row.requirements);
    (row.generation == session.generation && drift != Drift::default()).then_some(drift)
}

/// The lines of the requirements in a flow folder. `None` if it cannot be read.
pub(crate) fn lines_in_folder(folder: &Path) -> Option<Vec<String>> {
    let environment = flow::environment(folder, &flow::include_root(folder)).ok()?;
    let lines = environment.requirements.map(|requirements| requirements.lines);
    Some(lines.unwrap_or_default().iter().map(flow::Line::to_shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_drift_says_what_differs_and_what_to_do() {
        let flow = Flow {
            reference: contract::FlowRef {
                workspace: "local".into(),
                owner: "ann".into(),
                lineage: "/flows/cow".into(),
            },
            typed: "./cow".into(),
            named: None,
        };
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let drift = Drift::between(&lines("a b c d e"), &lines("e f"));
        expect!["The requirements have changed since the install (saved, not installed: a, b and 2 more; installed, not saved: f), and this run has what is installed. Install first: pfsession run ./cow --install"].assert_eq(&drift.describe(&flow));
    }

    #[test]
    fn a_difference_is_of_lines_and_of_how_often_each_is_there() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            Drift::between(&lines("a b b c"), &lines("c b a d")),
            Drift {
                saved: lines("b"),
                installed: lines("d")
            }
        );
        assert_eq!(Drift::between(&lines("b a"), &lines("a b")), Drift::default());
    }
}
