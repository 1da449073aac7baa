//! The figures of a benchmark.

use schemars::JsonSchema;
use serde::Serialize;

/// Measured times, in milliseconds.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Times {
    /// The act that was measured.
    pub(super) what: String,
    pub(super) median_ms: f64,
    /// The ninetieth percentile.
    pub(super) p90_ms: f64,
    pub(super) rounds: usize,
}

/// One line of the table.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Figure {
    pub(super) ours: Times,
    /// The physical floor.
    pub(super) floor: Option<Times>,
    /// The plain alternative.
    pub(super) plain: Option<Times>,
}

/// The output of a benchmark.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Report {
    /// The session's isolation, as its agent said.
    pub(super) isolation: String,
    pub(super) figures: Vec<Figure>,
}

/// Times of the same acts without pfsession, where they could be measured.
///
/// * `two`, `all`: two packages, and a whole environment, by uv and by pip.
#[derive(Default)]
pub(super) struct Plain {
    pub(super) spaces: Option<Times>,
    pub(super) exec: Option<Times>,
    pub(super) python: Option<Times>,
    pub(super) pf_test: Option<Times>,
    pub(super) two: (Option<Times>, Option<Times>),
    pub(super) all: (Option<Times>, Option<Times>),
}

pub(super) fn figures(ours: [Vec<f64>; 8], new: Vec<f64>, request: Times, plain: Plain) -> Vec<Figure> {
    let [start, first, second, replaced, install, listed, reset, stop] = ours;
    let figure = |what: &str, ours: &[f64], floor: Option<Times>, plain: Option<Times>| Figure {
        ours: times(what.into(), ours),
        floor,
        plain,
    };
    let (python, spaces) = (plain.python, plain.spaces);
    let mut all = vec![
        figure(
            "start a session whose environment is in the store, to Ready",
            &start,
            spaces.clone(),
            None,
        ),
        figure(
            "the first run of a one-node flow in a Ready session, to its output",
            &first,
            python.clone(),
            plain.pf_test.clone(),
        ),
        figure("the second run", &second, python, plain.pf_test),
        figure(
            "install two packages that the store has, one in place of the base image's own",
            &replaced,
            None,
            None,
        ),
        figure(
            "install two packages that the store has",
            &install,
            plain.two.0,
            plain.two.1,
        ),
        figure("view the installed packages", &listed, Some(request), None),
        figure("reset, with these two packages, to Ready again", &reset, spaces, None),
        figure("stop, to observed Stopped", &stop, plain.exec, None),
    ];
    if !new.is_empty() {
        let what = "the first start of an environment that is new: two packages beside promptflow";
        all.push(figure(what, &new, plain.all.0, plain.all.1));
    }
    all
}

pub(super) fn times(what: String, all: &[f64]) -> Times {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quantile = |part: f64| {
        let nth = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
        sorted.get(nth).copied().unwrap_or_default()
    };
    Times {
        what,
        median_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        rounds: all.len(),
    }
}

pub(super) fn ms(millis: f64) -> String {
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_and_nine_of_ten_took_at_most_the_other() {
        let all: Vec<f64> = (0..=10).rev().map(f64::from).collect();
        let times = times("it".into(), &all);
        assert_eq!((times.median_ms, times.p90_ms, times.rounds), (5.0, 9.0, 11));
        assert_eq!((ms(9.96), ms(41.4)), ("10.0 ms".into(), "41 ms".into()));
    }
}
