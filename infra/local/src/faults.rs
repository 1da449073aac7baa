//! Faults on purpose, from a printed seed: what queues, networks and processes may do, done often.
//!
//! Whether the n-th chance of a kind is taken depends on the seed, the kind and n alone, so that
//! one seed means one thing.
//!
//! A program has this only by the feature `faults`, which the tests of the whole system ask for. A
//! released one is built without: it refuses a plan, and the compiler takes the rest out.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Whether this program was built to inject faults.
const IS_BUILT_IN: bool = cfg!(any(test, feature = "faults"));

/// The points at which the host can be killed: `kill-host@POINT=N` ends it, without a word, the
/// N-th time that it comes there.
pub const POINTS: [&str; 8] = [
    "queue.sent",
    "queue.received",
    "machine.started",
    "machine.task-sent",
    "machine.answered",
    "function.invoked",
    "function.responded",
    "driver.handled",
];

/// Faults that can be injected by chance, as `kind=probability`.
pub const KINDS: [&str; 5] = ["duplicate", "reorder", "delay", "drop-reply", "kill-function"];

/// The names of the points.
pub fn points() -> &'static [&'static str] {
    &POINTS
}

/// The faults to inject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    seed: u64,
    chances: BTreeMap<&'static str, f64>,
    kills: BTreeMap<&'static str, u64>,
}

/// The fault of an invalid plan.
#[derive(Debug, thiserror::Error)]
pub enum BadPlan {
    #[error("{0:?} is no fault; write seed=NUMBER, KIND=PROBABILITY ({kinds}) or kill-host@POINT=COUNT ({points}), separated by commas", kinds = KINDS.join(", "), points = POINTS.join(", "))]
    UnknownFault(String),
    #[error("this program injects no faults: build it with the feature `faults` of the crate `local`")]
    NotBuiltIn,
}

impl FromStr for Plan {
    type Err = BadPlan;

    fn from_str(text: &str) -> Result<Self, BadPlan> {
        if !IS_BUILT_IN {
            return Err(BadPlan::NotBuiltIn);
        }
        let mut plan = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let unknown = || BadPlan::UnknownFault(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(unknown)?;
            if name == "seed" {
                plan.seed = value.parse().map_err(|_| unknown())?;
            } else if let Some(point) = name.strip_prefix("kill-host@") {
                let point = POINTS.iter().find(|known| **known == point).ok_or_else(unknown)?;
                plan.kills.insert(point, value.parse().map_err(|_| unknown())?);
            } else {
                let kind = KINDS.iter().find(|known| **known == name).ok_or_else(unknown)?;
                let chance: f64 = value.parse().map_err(|_| unknown())?;
                if !(0.0..=1.0).contains(&chance) {
                    return Err(unknown());
                }
                plan.chances.insert(kind, chance);
            }
        }
        Ok(plan)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={}", self.seed)?;
        self.chances
            .iter()
            .try_for_each(|(kind, chance)| write!(f, ",{kind}={chance}"))?;
        self.kills
            .iter()
            .try_for_each(|(point, count)| write!(f, ",kill-host@{point}={count}"))
    }
}

/// A plan at work.
#[derive(Default)]
pub(crate) struct Faults {
    plan: Plan,
    taken: [AtomicU64; KINDS.len()],
    passed: [AtomicU64; POINTS.len()],
}

impl Faults {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            ..Self::default()
        }
    }

    /// Whether this chance of a kind is one, and a number that says how.
    pub(crate) fn strikes(&self, kind: &'static str) -> Option<u64> {
        if !IS_BUILT_IN {
            return None;
        }
        let chance = *self.plan.chances.get(kind)?;
        let place = KINDS.iter().position(|known| *known == kind)?;
        let count = self.taken[place].fetch_add(1, Ordering::Relaxed);
        let dice = mix(self.plan.seed ^ mix((place as u64 + 1) << 32 ^ count));
        // 53 bits are what a double holds.
        let strikes = ((dice >> 11) as f64 / (1u64 << 53) as f64) < chance;
        if strikes {
            tracing::warn!(seed = self.plan.seed, kind, count, "fault injected");
        }
        strikes.then(|| mix(dice))
    }

    /// The delay of a message beyond the one asked for.
    pub(crate) fn delay(&self, in_order: bool) -> Duration {
        let late = self.strikes("delay").map_or(0, |dice| dice % 2000);
        // What has an order keeps it; the rest is overtaken by what comes within the next moments.
        let overtaken = if in_order {
            0
        } else {
            self.strikes("reorder").map_or(0, |dice| 1 + dice % 50)
        };
        Duration::from_millis(late + overtaken)
    }

    /// Ends the host here, if that is what the plan says.
    pub(crate) fn pass(&self, point: &'static str) {
        if !IS_BUILT_IN {
            return;
        }
        let Some(fatal) = self.plan.kills.get(point) else {
            return;
        };
        let Some(place) = POINTS.iter().position(|known| *known == point) else {
            return;
        };
        let passed = self.passed[place].fetch_add(1, Ordering::Relaxed) + 1;
        if passed == *fatal {
            tracing::error!(
                seed = self.plan.seed,
                point,
                passed,
                "fault injected: the host ends here"
            );
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

/// Spreads a number over all 64 bits (splitmix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_what_it_prints_and_names_what_it_does_not_know() {
        let text = "seed=42,drop-reply=0.02,duplicate=0.05,kill-host@machine.task-sent=3";
        assert_eq!(text.parse::<Plan>().expect("a plan").to_string(), text);
        for wrong in ["sead=1", "duplicate=2", "kill-host@nowhere=1", "delay"] {
            let error = wrong.parse::<Plan>().expect_err(wrong).to_string();
            assert!(error.contains(wrong) && error.contains("kill-host@POINT"), "{error}");
        }
    }

    #[test]
    fn one_seed_means_one_thing_and_strikes_as_often_as_it_says() {
        let strikes = |seed: u64| -> Vec<bool> {
            let faults = Faults::new(format!("seed={seed},delay=0.25").parse().expect("a plan"));
            (0..2000).map(|_| faults.strikes("delay").is_some()).collect()
        };
        assert_eq!(strikes(7), strikes(7));
        assert_ne!(strikes(7), strikes(8));
        let count = strikes(7).into_iter().filter(|strike| *strike).count();
        assert!((400..600).contains(&count), "{count}");
        assert!(Faults::default().strikes("delay").is_none());
    }
}
