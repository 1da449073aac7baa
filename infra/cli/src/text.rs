//! Small pieces of text for people.

use crate::{
    terminal::{fit, fit_json, note},
    trouble::{FAILED, Trouble},
};
use contract::{Code, Millis};
use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

/// The error of standard output.
static NOT_WRITTEN: OnceLock<io::Error> = OnceLock::new();
/// Whether the command does what it has to do before it ends for want of a reader.
static FINISHES: AtomicBool = AtomicBool::new(false);

/// From here on the command is done to its end, whether anybody reads what it prints or not.
pub(crate) fn finish_first() {
    FINISHES.store(true, Ordering::Relaxed);
}

/// Prints text for people on standard output.
pub(crate) fn out(text: &str) {
    write(&fit(text));
}

/// Prints a line that a session said, or that a program reads: as it is, but on a terminal.
pub(crate) fn out_as_said(line: &str) {
    if std::io::stdout().is_terminal() {
        write(&fit(line));
    } else {
        write(line);
    }
}

/// Prints a piece of what a session said, at once.
pub(crate) fn out_piece(text: &str) {
    let text = if std::io::stdout().is_terminal() {
        fit(text)
    } else {
        text.into()
    };
    let mut out = io::stdout().lock();
    end_if_unread(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Prints a value as one line of JSON.
pub(crate) fn out_json(value: &impl serde::Serialize) {
    let json = serde_json::to_string(value).expect("what is printed is always JSON");
    if std::io::stdout().is_terminal() {
        write(&fit_json(&json));
    } else {
        write(&json);
    }
}

/// Prints text on standard output as it is: this program's own, or what a session said where no
/// terminal is.
pub(crate) fn out_text(text: &[u8]) {
    end_if_unread(io::stdout().lock().write_all(text));
}

/// Writes a line to standard output.
fn write(line: &str) {
    end_if_unread(writeln!(io::stdout().lock(), "{line}"));
}

fn end_if_unread(done: io::Result<()>) {
    let Err(error) = done else { return };
    if error.kind() == ErrorKind::BrokenPipe && !FINISHES.load(Ordering::Relaxed) {
        end_unread();
    }
    // The first says why; those after it say the same.
    let _ = NOT_WRITTEN.set(error);
}

/// The exit code of a command that has done what it does: no success if what it printed was not
/// taken.
pub(crate) fn exit_code(exit: u8) -> u8 {
    end_if_unread(io::stdout().lock().flush());
    match NOT_WRITTEN.get() {
        None => exit,
        Some(error) if error.kind() == ErrorKind::BrokenPipe => end_unread(),
        Some(error) => {
            note!("{}", not_written(error));
            if exit == 0 { FAILED } else { exit }
        }
    }
}

fn not_written(error: &io::Error) -> Box<Trouble> {
    Trouble::new(
        FAILED,
        Code::CommandNotPrinted,
        format!("Standard output did not take everything: {error}"),
    )
    .next("send it where there is room")
}

/// Ends this process by SIGPIPE, as other commands end whose reader has gone.
fn end_unread() -> ! {
    use nix::sys::signal::{SigHandler, Signal, raise, signal};
    // SAFETY: the default disposition runs no code of this process.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let _ = raise(Signal::SIGPIPE);
    std::process::exit(128 + Signal::SIGPIPE as i32)
}

/// The beginning of a key or a digest.
pub(crate) fn short(key: &str, length: usize) -> &str {
    key.get(..length).unwrap_or(key)
}

/// A duration in words: `42 ms`, `3.1 s`, `12 min 5 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn took(millis: Millis) -> String {
    let (seconds, minutes, hours) = (millis / 1000, millis / 60_000, millis / 3_600_000);
    match () {
        () if millis < 1000 => format!("{millis} ms"),
        () if seconds < 60 => format!("{}.{} s", seconds, millis % 1000 / 100),
        () if minutes < 60 => with_rest(minutes, "min", seconds % 60, "s"),
        () if hours < 24 => with_rest(hours, "h", minutes % 60, "min"),
        () => with_rest(hours / 24, "d", hours % 24, "h"),
    }
}

fn with_rest(whole: u64, unit: &str, rest: u64, smaller: &str) -> String {
    if rest == 0 {
        format!("{whole} {unit}")
    } else {
        format!("{whole} {unit} {rest} {smaller}")
    }
}

/// The time since something, in words.
pub(crate) fn ago(now: Millis, then: Millis) -> String {
    format!("{} ago", took(rounded(now.saturating_sub(then))))
}

/// The time from now to then: `in 5 min`.
pub(crate) fn ahead(now: Millis, then: Millis) -> String {
    format!("in {}", took(rounded(then.saturating_sub(now))))
}

/// The time of something, for a person who may act on it.
pub(crate) fn at(now: Millis, then: Millis) -> String {
    format!("{} (at {})", ahead(now, then), clock(then))
}

/// To the second, from a second on: more than that says nothing in a table.
pub(crate) fn rounded(millis: Millis) -> Millis {
    if millis < 60_000 { millis } else { millis / 1000 * 1000 }
}

/// A time as a clock in UTC has it.
pub(crate) fn clock(at: Millis) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at)).to_string()
}

/// A folder as its user writes it: from the home folder on.
pub(crate) fn folder(folder: &str, home: Option<&str>) -> String {
    match home
        .filter(|home| home.len() > 1)
        .and_then(|home| folder.strip_prefix(home.trim_end_matches('/')))
    {
        Some("") => "~".into(),
        Some(rest) if rest.starts_with('/') => format!("~{rest}"),
        _ => folder.into(),
    }
}

/// The home folder, for [`folder`].
pub(crate) fn home() -> Option<String> {
    std::env::var("HOME").ok()
}

/// An argument as a shell needs it.
pub(crate) fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,~".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.into()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_printed_says_so() {
        let full = io::Error::from_raw_os_error(nix::errno::Errno::ENOSPC as i32);
        expect_test::expect![[r#"
            error: Standard output did not take everything: No space left on device (os error 28) [Command.NotPrinted]
              next: send it where there is room"#]]
        .assert_eq(&not_written(&full).to_string());
    }

    #[test]
    fn a_time_has_the_two_units_that_matter() {
        let all = [
            0,
            42,
            999,
            1000,
            3149,
            59_999,
            60_000,
            725_000,
            3_600_000,
            7_500_000,
            273_600_000,
        ]
        .map(took);
        let expected = [
            "0 ms",
            "42 ms",
            "999 ms",
            "1.0 s",
            "3.1 s",
            "59.9 s",
            "1 min",
            "12 min 5 s",
            "1 h",
            "2 h 5 min",
            "3 d 4 h",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_folder_below_the_home_folder_is_short() {
        assert_eq!(folder("/home/ann/flows/a", Some("/home/ann")), "~/flows/a");
        assert_eq!(folder("/home/anna/a", Some("/home/ann")), "/home/anna/a");
        assert_eq!(folder("/srv/a", Some("/")), "/srv/a");
        assert_eq!(folder("/srv/a", None), "/srv/a");
    }

    #[test]
    fn an_argument_can_be_pasted_into_a_shell() {
        assert_eq!(
            [quoted("./a-b"), quoted("my flow"), quoted("it's"), quoted("")],
            ["./a-b", "'my flow'", r"'it'\''s'", "''"]
        );
    }
}
