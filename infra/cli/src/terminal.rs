//! Text that is fit for a terminal, and the ways to print it.
//!
//! A session, a flow's name, a path, an error or a server may say what a terminal acts on: escape
//! codes, text that runs backwards, what is not seen. All that is printed for people goes through
//! [`fit`]; a session's own lines and JSON do where they go to a terminal, and pass as they are
//! elsewhere. `all_that_is_printed_goes_through_one_module` holds it.

use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
};

/// Whether a terminal acts on a character, or shows nothing of it.
///
/// * `before`: the character that it stands behind.
fn is_unfit(c: char, before: Option<char>) -> bool {
    match c {
        '\n' | '\t' => false,
        // They join letters and emoji, and stand between ASCII characters only to make two texts
        // look the same.
        '\u{200c}' | '\u{200d}' => before.is_none_or(|before| before.is_ascii()),
        // Marks of direction, and line and paragraph separators.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' => true,
        // What has no width, or looks like nothing: soft hyphen, joiners, fillers, byte order mark,
        // interlinear marks, tags.
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' => true,
        '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        c => c.is_control(),
    }
}

fn escape<'a>(text: &'a str, write: impl Fn(char, &mut String)) -> Cow<'a, str> {
    let mut out = String::new();
    let (mut kept, mut before) = (0, None);
    for (at, c) in text.char_indices() {
        if is_unfit(c, before) {
            out.push_str(&text[kept..at]);
            write(c, &mut out);
            kept = at + c.len_utf8();
        }
        before = Some(c);
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[kept..]);
    Cow::Owned(out)
}

/// A text in which every character that a terminal acts on or hides is written out, as `\u{1b}`.
pub(crate) fn fit(text: &str) -> Cow<'_, str> {
    escape(text, |c, out| out.extend(c.escape_unicode()))
}

/// The same for JSON, which stays the same JSON.
pub(crate) fn fit_json(json: &str) -> Cow<'_, str> {
    escape(json, |c, out| {
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

/// A text that is fit for a terminal, some of it in colours if they are of use.
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn plain(text: &str) -> Self {
        Self(fit(text).into_owned())
    }

    /// * `colour`: of the terminal: `31` is red, `32` green, `2` faint.
    pub(crate) fn painted(text: &str, colour: &'static str) -> Self {
        let text = fit(text);
        Self(if colours() {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.into_owned()
        })
    }

    pub(crate) fn and(mut self, text: &str) -> Self {
        self.0.push_str(&fit(text));
        self
    }
}

/// Whether colours are of use on standard error.
pub(crate) fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Prints a line on standard error. Nobody is left to hear that it cannot be written.
pub(crate) fn print(text: &Text) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.0);
}

/// Prints a line on standard error, formatted as by `format!`.
macro_rules! note {
    ($($text:tt)*) => { $crate::terminal::print(&$crate::terminal::Text::plain(&format!($($text)*))) };
}
pub(crate) use note;

/// Prints a warning.
pub(crate) fn warn(text: &str) {
    print(&Text::painted("warning:", "33").and(" ").and(text));
}

/// Prints a line in the place of the one that moves, which ends with this.
pub(crate) fn print_over(text: &str) {
    print(&Text(format!("\r\x1b[K{}", fit(text))));
}

/// Prints a piece of what a session said on standard error.
pub(crate) fn print_piece(text: &str) {
    let text = if std::io::stderr().is_terminal() {
        fit(text)
    } else {
        text.into()
    };
    let _ = write!(std::io::stderr().lock(), "{text}");
}

/// A line that a session said, as it goes to standard error.
pub(crate) fn line_of_session(line: &str) -> Text {
    if std::io::stderr().is_terminal() {
        Text::plain(line)
    } else {
        Text(line.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn a_terminal_acts_on_no_character_of_a_fit_text() {
        for text in [
            "plain, with\ttab and\nline",
            "grün, 日本語, עברית, العربية, 👩\u{200d}💻, می\u{200c}خواهم",
        ] {
            assert_eq!(fit(text), text);
        }
        for (text, shown) in [
            ("a\x1b[31mred\x1b]0;title\x07", r"a\u{1b}[31mred\u{1b}]0;title\u{7}"),
            ("a\r\x08\x7f\u{9b}2J\u{85}", r"a\u{d}\u{8}\u{7f}\u{9b}2J\u{85}"),
            ("invoice\u{202e}fdp.exe\u{2069}", r"invoice\u{202e}fdp.exe\u{2069}"),
            (
                "pay\u{200d}pal \u{200b}x\u{feff}\u{2060}\u{ad}",
                r"pay\u{200d}pal \u{200b}x\u{feff}\u{2060}\u{ad}",
            ),
            (
                "two\u{2028}lines\u{2029}\u{200f}\u{61c}",
                r"two\u{2028}lines\u{2029}\u{200f}\u{61c}",
            ),
            ("tag\u{e0041}", r"tag\u{e0041}"),
        ] {
            assert_eq!(fit(text), shown);
            assert_eq!(Text::painted(text, "2").and(text).0, format!("{shown}{shown}"));
        }
    }

    #[test]
    fn json_that_is_fit_is_the_same_json() {
        let value = serde_json::json!({ "a\u{202e}": "\u{1b}\u{9b}\u{e0041}\u{7f}\u{2028}\n" });
        let json = value.to_string();
        let fit = fit_json(&json);
        assert!(fit.is_ascii(), "{fit}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&fit).unwrap(), value);
    }

    #[test]
    fn all_that_is_printed_goes_through_one_module() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut paths = Vec::new();
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let (below, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
            folders.extend(below);
            paths.extend(files);
        }
        let mut read = 0;
        for path in paths {
            let name = path.file_name().unwrap().to_str().unwrap();
            // The two modules that print, and one that has only its own words to print: help and
            // completions.
            if ["terminal.rs", "text.rs", "args.rs"].contains(&name) {
                continue;
            }
            read += 1;
            for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
                let code = line.split("//").next().unwrap();
                let prints = ["print!(", "println!(", "dbg!(", "stdout()", "stderr()", "\\x1b"]
                    .iter()
                    .any(|way| code.contains(way));
                let only_asks = code.contains("is_terminal()")
                    || code.contains("use_stderr()")
                    || code.contains("ProgressDrawTarget");
                assert!(!prints || only_asks, "{name}:{} prints by itself: {line}", number + 1);
            }
        }
        assert!(read > 10, "{read}");
    }
}
