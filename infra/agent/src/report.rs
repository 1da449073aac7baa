//! Reports that their queue takes: each part has a bound, and what is beyond it is in a file of
//! this machine.

use contract::{
    Code, Failure, Outcome,
    agent::{AgentReport, MOST_REPORT, SignedBody, SignedReport},
    packages::{Installation, LeftOut, Setup},
};
use ed25519_dalek::SigningKey;
use serde::Serialize;

/// The most bytes, in JSON, of the lines of requirements, of the packages, and of what was done by
/// hand. A row of the table holds them all, with what of them has changed, and may have 400 kB.
const MOST: (usize, usize, usize) = (30_000, 80_000, 40_000);
/// The most characters of one line of requirements, of a failure, and of each of the last lines of
/// an install.
const LONGEST: (usize, usize, usize) = (1_000, 8_000, 400);

/// Cuts an installation down to its bound. Gives back how many lines and packages that leaves out.
pub(crate) fn cut_installation(installation: &mut Installation) -> Option<u64> {
    let mut left_out = keep(&mut installation.by_hand, MOST.2);
    if let Some(listed) = &mut installation.listed {
        for line in &mut listed.requirements {
            left_out += u64::from(cut(line, LONGEST.0));
        }
        left_out += keep(&mut listed.requirements, MOST.0) + keep(&mut listed.packages, MOST.1);
    }
    Some(left_out).filter(|left_out| *left_out > 0)
}

/// Keeps the first items of a list, as many as have room. Gives back how many have none.
fn keep<T: Serialize>(items: &mut Vec<T>, most: usize) -> u64 {
    let mut bytes = 0;
    let kept = items
        .iter()
        .take_while(|item| {
            bytes += serde_json::to_string(item).map_or(0, |json| json.len() + 1);
            bytes <= most
        })
        .count();
    let left_out = items.len() - kept;
    items.truncate(kept);
    left_out as u64
}

/// Cuts a text to so many characters. Whether there were more.
fn cut(text: &mut String, most: usize) -> bool {
    match text.char_indices().nth(most) {
        Some((at, _)) => {
            text.truncate(at);
            text.push('…');
            true
        }
        None => false,
    }
}

/// A failure as a report carries it. All of a longer one is in the log of its sender.
pub fn bound(mut failure: Failure) -> Failure {
    let mut code = failure.error.as_str().to_owned();
    if cut(&mut code, 100) {
        failure.error = Code::read(&code);
    }
    if cut(&mut failure.message, LONGEST.1) {
        failure
            .message
            .push_str(" All of it is in the log of the session's agent.");
    }
    failure
}

/// The end of an install's output, as a report carries it.
pub(crate) fn bound_setup(mut setup: Setup) -> Setup {
    for line in &mut setup.tail {
        cut(line, LONGEST.2);
    }
    setup
}

/// A signed report as its queue takes it: not too large, and without the two characters of the
/// basic plane that SQS refuses.
///
/// # Source
///
/// SQS, *SendMessage*: "A message can include only XML, JSON, and unformatted text", with the
/// characters "#x9 | #xA | #xD | #x20 to #xD7FF |
/// #xE000 to #xFFFD | #x10000 to #x10FFFF".
pub(crate) fn sign_bounded(key: &SigningKey, body: &mut SignedBody) -> String {
    let text = sign(key, body);
    if text.len() <= MOST_REPORT {
        return text;
    }
    tracing::error!(
        fault = Code::ReportTooLarge.as_str(),
        bytes = text.len(),
        "a report is sent without what makes it large"
    );
    strip(&mut body.report);
    sign(key, body)
}

fn sign(key: &SigningKey, body: &SignedBody) -> String {
    // An empty message would be a report that nobody can read.
    contract::message(&SignedReport::sign(key, body)).expect("a text and its signature are always JSON")
}

/// Takes out of a report what may be large. Its meaning stays: what has ended, and how.
pub(crate) fn strip(report: &mut AgentReport) {
    let strip_installation = |installation: &mut Installation| {
        let listed = installation.listed.take().unwrap_or_default();
        let count = installation.by_hand.len() + listed.requirements.len() + listed.packages.len();
        installation.listed = Some(Default::default());
        installation.by_hand.clear();
        installation.left_out.get_or_insert(LeftOut {
            count: count as u64,
            file: None,
        });
    };
    match report {
        AgentReport::Alive { .. }
        | AgentReport::RunStarted { .. }
        | AgentReport::Activity
        | AgentReport::Image { .. }
        | AgentReport::Refused { .. } => {}
        AgentReport::Installed {
            installation,
            setup,
            warning,
            ..
        } => {
            installation
                .iter_mut()
                .for_each(|installation| strip_installation(installation));
            *setup = None;
            if let Some(warning) = warning {
                cut(warning, 200);
            }
        }
        AgentReport::InstallFailed { failure, setup, .. } => {
            cut(&mut failure.message, 200);
            *setup = None;
        }
        AgentReport::Packages { installation, .. } => strip_installation(installation),
        AgentReport::RunDone { result, outcome, .. } => {
            result.outputs.clear();
            cut(&mut result.folder, 1_000);
            if let (Outcome::Failed, Some(failure)) = (outcome, &mut result.failure) {
                cut(&mut failure.message, 200);
            }
        }
        AgentReport::Output { lines, .. } => {
            for line in lines {
                cut(&mut line.text, 100);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{
        agent::{LineKind, OutputLine, RunResult, public_half},
        packages::{ByHand, Listed, Package, PackageOrigin},
    };

    fn installation(packages: usize, text: &str) -> Installation {
        Installation {
            count: 1,
            lock: "0".repeat(32),
            listed: Some(Listed {
                requirements: vec![text.repeat(20_000); 3],
                packages: (0..packages)
                    .map(|n| Package {
                        name: format!("p{n}"),
                        version: text.to_owned(),
                        origin: PackageOrigin::Dependency,
                        named: None,
                        asked_by: Vec::new(),
                    })
                    .collect(),
            }),
            by_hand: (0..packages)
                .map(|n| ByHand {
                    name: format!("{text}{n}"),
                    version: Some(text.to_owned()),
                })
                .collect(),
            isolation: None,
            left_out: None,
            described: None,
        }
    }

    fn signed_of(report: AgentReport) -> String {
        let key = SigningKey::from_bytes(&[1; 32]);
        let mut body = SignedBody {
            flow: "f".into(),
            generation: 1,
            report,
        };
        let text = sign_bounded(&key, &mut body);
        assert!(text.len() <= MOST_REPORT, "{} bytes", text.len());
        let read: SignedReport = serde_json::from_str(&text).unwrap();
        assert!(read.is_signed_by(&public_half(&key)));
        assert_eq!(serde_json::from_str::<SignedBody>(&read.body).unwrap(), body);
        text
    }

    #[test]
    fn forty_thousand_packages_by_hand_are_a_report_that_says_how_many_it_lacks() {
        let mut installed = installation(40_000, "1.0");
        let left_out = cut_installation(&mut installed).unwrap();
        let listed = installed.listed.as_ref().unwrap();
        let kept = installed.by_hand.len() + listed.packages.len();
        assert!(kept > 1_000, "{kept}");
        // Each line of requirements was cut, and all have room.
        assert_eq!(left_out, 80_000 - kept as u64 + 3);
        let text = signed_of(AgentReport::Packages {
            run: "r".into(),
            installation: Box::new(installed),
        });
        assert!(text.contains("p100"), "nothing was taken out of it that had room");
        let mut small = installation(3, "1");
        small.listed.as_mut().unwrap().requirements.clear();
        assert_eq!(cut_installation(&mut small), None);
    }

    #[test]
    fn every_report_has_room_in_its_queue_whatever_is_in_it() {
        // Not by `Failure::new`, which cuts a message itself.
        let failure = Failure {
            error: Code::RunFailed,
            message: "\u{1}\"\\".repeat(1 << 16),
        };
        let long = || "\u{1}\"".repeat(1 << 16);
        let line = |seq| OutputLine {
            seq,
            at: 0,
            kind: LineKind::Stdout,
            text: "\u{1}".repeat(2_000),
        };
        let setup = || Setup {
            command: "uv".into(),
            exit_code: 1,
            tail: vec![long(); 20],
        };
        for report in [
            AgentReport::Installed {
                operation: "o".into(),
                attempt: 1,
                warning: Some(long()),
                installation: Some(Box::new(installation(40_000, "\u{1}\u{ffff}"))),
                setup: Some(setup()),
            },
            AgentReport::InstallFailed {
                operation: "o".into(),
                attempt: 1,
                failure: failure.clone(),
                setup: Some(setup()),
            },
            AgentReport::Packages {
                run: "r".into(),
                installation: Box::new(installation(40_000, "\"")),
            },
            AgentReport::RunDone {
                run: "r".into(),
                outcome: Outcome::Failed,
                result: RunResult {
                    outputs: vec![long().into()],
                    folder: long(),
                    failure: Some(failure.clone()),
                    ..RunResult::default()
                },
            },
            AgentReport::Output {
                of: "r".into(),
                lines: (0..50).map(line).collect(),
            },
        ] {
            signed_of(report);
        }
        let bounded = bound(failure);
        assert!(
            bounded.message.chars().count() < 8_100 && bounded.message.ends_with("agent."),
            "{}",
            bounded.message.len()
        );
        assert!(bound_setup(setup()).tail.iter().all(|line| line.chars().count() == 401));
    }

    #[test]
    fn a_character_that_the_queue_refuses_comes_through_it() {
        let line = |text: &str| OutputLine {
            seq: 0,
            at: 0,
            kind: LineKind::Stdout,
            text: text.into(),
        };
        let text = signed_of(AgentReport::Output {
            of: "r".into(),
            lines: vec![line("a\u{fffe}\u{ffff}\0\u{1b}\u{fffd}\u{10ffff}")],
        });
        let is_taken = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
        assert!(text.chars().all(is_taken));
    }
}
