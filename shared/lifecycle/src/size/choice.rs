//! The choice of a VM size for a session for which nobody names one: the cheapest that holds what
//! the flow's past runs used.
//!
//! # Source
//!
//! "If [it] isn't specified, Azure Machine Learning chooses an instance type (VM size) based on
//! factors like quota, cost, performance, and disk size" (the specification, *Use a compute session
//! to submit a flow run in CLI/SDK*).

use super::{Limits, Size, WHOLE_MACHINE, catalogue::EC2, sizes_of_series};
use crate::Millis;

/// The use of one run.
///
/// * `processor`: time on all processors together.
/// * `took`: time by the clock.
/// * `memory`: bytes, at most: those of its largest process, for each process that it begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Used {
    pub processor: Millis,
    pub took: Millis,
    pub memory: u64,
}

/// The sizes that a platform has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offer {
    #[default]
    /// One machine: a session may use all of it, and a smaller size would save nothing.
    WholeMachine,
    /// EC2's: the series that `compute-ecs.asl.json` orders. Their disk is one setting of the
    /// deployment, the same for each size.
    Ec2,
}

/// A size that was chosen.
///
/// * `why`: for people, a part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub size: String,
    pub why: String,
}

/// The series that `compute-ecs.asl.json` tries first.
const ORDERED: [&str; 3] = ["c6i", "m6i", "r6i"];
/// The size for a flow of which no run was measured.
const UNKNOWN: Limits = Limits {
    cpus: 4,
    memory: 16 << 30,
};
/// The memory that a session has beside its runs: its runner, which has the flow runtime loaded,
/// and the agent.
const BESIDE: u64 = 512 << 20;
const MIB: u64 = 1 << 20;

/// Chooses the cheapest size that has room for what the runs in `past` used, a quarter more, and
/// that is within the quota; of two at one price, the one with more processors. If none that is
/// large enough is within the quota, the cheapest large enough one, which the quota then refuses by
/// name; if none is large enough at all, the largest.
///
/// * `is_free`: whether the quota has room for a size.
pub fn choose(past: &[Used], offer: Offer, is_free: impl Fn(&Size) -> bool) -> Choice {
    let needs = needs(past);
    let basis = basis(past);
    if offer == Offer::WholeMachine {
        return Choice {
            size: WHOLE_MACHINE.to_owned(),
            why: format!("one machine has no cheaper size than all of it; {basis}"),
        };
    }
    let mut sizes: Vec<(Size, Limits, u32)> = EC2
        .iter()
        .filter(|series| ORDERED.contains(&series.name))
        .flat_map(sizes_of_series)
        .filter_map(|size| Some((size.limits?, size.price?, size)))
        .map(|(limits, price, size)| (size, limits, price))
        .filter(|(_, limits, _)| limits.cpus <= MOST_CPUS)
        .collect();
    sizes.sort_by_key(|(_, limits, price)| (*price, u32::MAX - limits.cpus));
    let is_enough = |limits: &Limits| limits.cpus >= needs.cpus && limits.memory >= needs.memory;
    let enough = || sizes.iter().filter(|(_, limits, _)| is_enough(limits));
    let (chosen, how) = match (
        enough().find(|(size, _, _)| is_free(size)),
        enough().next(),
        sizes.last(),
    ) {
        (Some(free), Some(first), _) if free.0 == first.0 => (Some(free), "the cheapest that is large enough"),
        (Some(free), _, _) => (Some(free), "the cheapest large enough one that the quota has room for"),
        (None, Some(first), _) => (
            Some(first),
            "the cheapest that is large enough, though the quota has no room for it",
        ),
        (None, None, last) => (last, "the largest, though it is too small"),
    };
    let Some((size, _, price)) = chosen else {
        return choose(past, Offer::WholeMachine, is_free);
    };
    Choice {
        size: size.name.clone(),
        why: format!("{how}, at {} an hour; {basis}", dollars(u64::from(*price))),
    }
}

/// The most processors of one instance that is ordered.
const MOST_CPUS: u32 = 96;

fn needs(past: &[Used]) -> Limits {
    if past.is_empty() {
        return UNKNOWN;
    }
    let (processors, memory) = most(past);
    Limits {
        // In thousandths, with a quarter more, rounded up.
        cpus: u32::try_from((processors + processors / 4).div_ceil(1000))
            .unwrap_or(u32::MAX)
            .max(1),
        memory: memory.saturating_add(memory / 4).saturating_add(BESIDE),
    }
}

/// The most that a run used: thousandths of a processor, and bytes.
fn most(past: &[Used]) -> (u64, u64) {
    let processors = |used: &Used| used.processor.saturating_mul(1000) / used.took.max(1);
    (
        past.iter().map(processors).max().unwrap_or_default(),
        past.iter().map(|used| used.memory).max().unwrap_or_default(),
    )
}

fn basis(past: &[Used]) -> String {
    let (processors, memory) = most(past);
    let (whole, tenth) = (processors / 1000, processors % 1000 / 100);
    let used = format!(
        "used {whole}.{tenth} processors and {} MiB at most",
        memory.div_ceil(MIB)
    );
    match past.len() {
        0 => format!(
            "no run of the flow was measured yet, which counts as {} processors and {} GiB",
            UNKNOWN.cpus,
            UNKNOWN.memory >> 30
        ),
        1 => format!("the flow's last run {used}"),
        runs => format!("the flow's last {runs} runs {used}"),
    }
}

/// Writes millionths of a US dollar as a price, with three digits after the point, rounded up.
pub fn dollars(millionths: u64) -> String {
    let thousandths = millionths.div_ceil(1000);
    format!("${}.{:03}", thousandths / 1000, thousandths % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that used so many thousandths of a processor for ten seconds, and so many MiB.
    fn run(processors: u64, mib: u64) -> Used {
        Used {
            processor: processors * 10,
            took: 10_000,
            memory: mib * MIB,
        }
    }

    fn chosen(past: &[Used], is_free: impl Fn(&Size) -> bool) -> String {
        let Choice { size, why } = choose(past, Offer::Ec2, is_free);
        format!("{size}: {why}")
    }

    #[test]
    fn the_cheapest_size_that_holds_what_past_runs_used_is_chosen() {
        let said = [
            chosen(&[], |_| true),
            chosen(&[run(300, 400)], |_| true),
            chosen(&[run(300, 400), run(1700, 500), run(10, 20)], |_| true),
            chosen(&[run(900, 5_000)], |_| true),
            chosen(&[run(900, 9_000)], |_| true),
            chosen(&[run(3100, 40_000)], |_| true),
            chosen(&[run(500_000, 10)], |_| true),
        ];
        expect_test::expect![[r#"
            m6i.xlarge: the cheapest that is large enough, at $0.192 an hour; no run of the flow was measured yet, which counts as 4 processors and 16 GiB
            c6i.large: the cheapest that is large enough, at $0.085 an hour; the flow's last run used 0.3 processors and 400 MiB at most
            c6i.xlarge: the cheapest that is large enough, at $0.170 an hour; the flow's last 3 runs used 1.7 processors and 500 MiB at most
            m6i.large: the cheapest that is large enough, at $0.096 an hour; the flow's last run used 0.9 processors and 5000 MiB at most
            r6i.large: the cheapest that is large enough, at $0.126 an hour; the flow's last run used 0.9 processors and 9000 MiB at most
            r6i.2xlarge: the cheapest that is large enough, at $0.504 an hour; the flow's last run used 3.1 processors and 40000 MiB at most
            r6i.24xlarge: the largest, though it is too small, at $6.048 an hour; the flow's last run used 500.0 processors and 10 MiB at most"#]].assert_eq(&said.join("\n"));
    }

    #[test]
    fn a_size_without_quota_is_passed_over_and_the_quota_speaks_if_none_is_left() {
        let past = [run(900, 1_000)];
        let said = [chosen(&past, |size| size.family != "c"), chosen(&past, |_| false)];
        expect_test::expect![[r#"
            m6i.large: the cheapest large enough one that the quota has room for, at $0.096 an hour; the flow's last run used 0.9 processors and 1000 MiB at most
            c6i.large: the cheapest that is large enough, though the quota has no room for it, at $0.085 an hour; the flow's last run used 0.9 processors and 1000 MiB at most"#]].assert_eq(&said.join("\n"));
    }

    #[test]
    fn one_machine_has_one_size_and_says_what_runs_used() {
        let machine = |past: &[Used]| choose(past, Offer::WholeMachine, |_| true);
        assert_eq!(machine(&[]).size, WHOLE_MACHINE);
        expect_test::expect![[r#"
            one machine has no cheaper size than all of it; no run of the flow was measured yet, which counts as 4 processors and 16 GiB
            one machine has no cheaper size than all of it; the flow's last run used 1.2 processors and 300 MiB at most"#]].assert_eq(&[machine(&[]).why, machine(&[run(1234, 300)]).why].join("\n"));
    }

    #[test]
    fn a_price_has_three_digits_and_is_rounded_up() {
        let prices = [0, 1, 1_000, 96_000, 1_500_000].map(dollars);
        assert_eq!(prices, ["$0.000", "$0.001", "$0.001", "$0.096", "$1.500"]);
    }
}
