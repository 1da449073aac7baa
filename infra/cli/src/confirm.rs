//! Asks before work that is under way is ended.

use crate::{
    terminal::note,
    trouble::{FAILED, Trouble},
};
use contract::Code;
use std::io::{BufRead, IsTerminal};

/// The behavior of a command without a terminal to ask at, and without `--yes`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unasked {
    /// It goes on: scripts use these commands, and know no question.
    GoOn,
    /// It does nothing.
    Refuse,
}

#[derive(Debug, PartialEq)]
enum Next {
    GoOn,
    Ask,
    Refuse,
}

fn next(is_yes: bool, is_terminal: bool, unasked: Unasked) -> Next {
    match (is_yes, is_terminal, unasked) {
        (true, _, _) | (false, false, Unasked::GoOn) => Next::GoOn,
        (false, true, _) => Next::Ask,
        (false, false, Unasked::Refuse) => Next::Refuse,
    }
}

/// Says what ends, and asks whether to go on.
///
/// # Errors
///
/// `Command.NotConfirmed`, final, if the answer is no, or there is nobody to ask.
pub(crate) fn ask(what: &str, is_yes: bool, unasked: Unasked) -> Result<(), Box<Trouble>> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    note!("{what}");
    match next(is_yes, is_terminal, unasked) {
        Next::GoOn => Ok(()),
        Next::Refuse => Err(nobody_to_ask()),
        Next::Ask => {
            note!("Go on? Type yes:");
            let mut answer = String::new();
            let _ = std::io::stdin().lock().read_line(&mut answer);
            match answer.trim().to_ascii_lowercase().as_str() {
                "y" | "yes" => Ok(()),
                _ => Err(not_yes()),
            }
        }
    }
}

fn nobody_to_ask() -> Box<Trouble> {
    let message = "Nothing was done: there is no terminal to ask at";
    Trouble::new(FAILED, Code::CommandNotConfirmed, message).next("confirm it with the command: --yes")
}

fn not_yes() -> Box<Trouble> {
    Trouble::new(
        FAILED,
        Code::CommandNotConfirmed,
        "Nothing was done: the answer was not yes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_asked_and_a_script_goes_on_or_is_refused() {
        for unasked in [Unasked::GoOn, Unasked::Refuse] {
            assert_eq!(next(true, false, unasked), Next::GoOn);
            assert_eq!(next(true, true, unasked), Next::GoOn);
            assert_eq!(next(false, true, unasked), Next::Ask);
        }
        assert_eq!(next(false, false, Unasked::GoOn), Next::GoOn);
        assert_eq!(next(false, false, Unasked::Refuse), Next::Refuse);
    }

    #[test]
    fn what_is_not_confirmed_says_how_to() {
        let texts = [nobody_to_ask(), not_yes()].map(|trouble| trouble.failure.to_string());
        expect_test::expect![[r#"
            Command.NotConfirmed: Nothing was done: there is no terminal to ask at
            Command.NotConfirmed: Nothing was done: the answer was not yes"#]]
        .assert_eq(&texts.join("\n"));
    }
}
