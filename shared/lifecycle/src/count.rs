//! Numbers of things in texts.

use std::fmt::Display;

/// A number with its noun: `1 session`, `0 sessions`, `2 sessions`.
///
/// * `noun`: in the singular; its plural ends in an `s`.
pub fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let ending = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// The verb behind a number of things: `1 layer is`, `2 layers are`.
pub fn count_with<N: Display + PartialEq + From<u8>>(number: N, noun: &str, [one, many]: [&str; 2]) -> String {
    let verb = if number == N::from(1) { one } else { many };
    format!("{} {verb}", count(number, noun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_any_other_number_plural() {
        let counted = [0u32, 1, 2].map(|number| count(number, "run"));
        assert_eq!(counted, ["0 runs", "1 run", "2 runs"]);
        assert_eq!(count(0.5, "processor"), "0.5 processors");
        let said = [1usize, 3].map(|number| count_with(number, "layer", ["is", "are"]));
        assert_eq!(said, ["1 layer is", "3 layers are"]);
    }
}
