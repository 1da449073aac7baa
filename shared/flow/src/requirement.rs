//! One requirement as PEP 508 has it, read within a budget.
//!
//! `pep508_rs` reads names, extras, versions and URLs. It never sees a character outside ASCII, a
//! name that ends in a hyphen or a marker. On the first two it panics. Of each marker it builds a
//! decision diagram that grows exponentially, stays in memory, and is built by recursion. 0.9.2 is
//! its newest release. `uv-pep508` has the same diagrams, and brings uv's own crates with it.

use pep508_rs::{Requirement, VerbatimUrl};
use std::str::FromStr;

/// The most bytes of a requirement, without its hashes.
const MOST_BYTES: usize = 4_000;

/// Reads a requirement. Its marker is checked, and left out of the value.
///
/// # Errors
///
/// The fault, as the end of a sentence that begins with the requirement.
pub(crate) fn parse(text: &str) -> Result<Requirement<VerbatimUrl>, String> {
    if text.len() > MOST_BYTES {
        return Err(format!("it has {} bytes, and may have {MOST_BYTES}", text.len()));
    }
    if let Some(bad) = text
        .chars()
        .find(|c| !(c.is_ascii_graphic() || matches!(c, ' ' | '\t')))
    {
        return Err(format!(
            "the character {bad:?} cannot be in one; a URL has it percent-encoded"
        ));
    }
    let (requirement, marker) = split_marker(text);
    check_names(requirement)?;
    // A fault before the marker is told first. Without a marker the parser has no state that a
    // panic could leave broken.
    let parsed = std::panic::catch_unwind(|| Requirement::from_str(requirement))
        .map_err(|_| "pfsession fails to read it")?
        .map_err(|error| error.message.to_string())?;
    marker.map_or(Ok(()), check_marker)?;
    Ok(parsed)
}

/// A semicolon begins the marker; behind a URL, which may have semicolons, only after a space.
fn split_marker(text: &str) -> (&str, Option<&str>) {
    let first = text.find(';').unwrap_or(text.len());
    let at = if text[..first].contains('@') {
        text.find(" ;")
            .into_iter()
            .chain(text.find("\t;"))
            .min()
            .map(|at| at + 1)
    } else {
        Some(first).filter(|at| *at < text.len())
    };
    match at {
        Some(at) => (text[..at].trim_end(), Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Checks how the names of the package and its extras end.
fn check_names(requirement: &str) -> Result<(), String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let end = |text: &str| text.find(|c| !is_of_name(c)).unwrap_or(text.len());
    let (name, behind) = requirement.split_at(end(requirement));
    let extras = behind.trim_start().strip_prefix('[').unwrap_or_default();
    let extras = extras.split(']').next().unwrap_or_default().split(',');
    let extras = extras.map(str::trim_start).map(|extra| &extra[..end(extra)]);
    match std::iter::once(name)
        .chain(extras)
        .find(|name| name.ends_with(['-', '_', '.']))
    {
        Some(name) => Err(format!("{name} is no name, as a letter or a digit ends one")),
        None => Ok(()),
    }
}

/// The variables that a marker may name.
///
/// # Source
///
/// *Dependency specifiers*, "Environment Markers",
/// <https://packaging.python.org/en/latest/specifications/dependency-specifiers/>; those with a
/// dot, and `python_implementation`, are of PEP 345.
const VARIABLES: [&str; 19] = [
    "os_name",
    "sys_platform",
    "platform_machine",
    "platform_python_implementation",
    "platform_release",
    "platform_system",
    "platform_version",
    "python_version",
    "python_full_version",
    "implementation_name",
    "implementation_version",
    "extra",
    "extras",
    "dependency_groups",
    "os.name",
    "sys.platform",
    "platform.version",
    "platform.machine",
    "python_implementation",
];

/// A marker's words: parentheses, operators, quoted texts and names.
#[derive(Clone, Copy)]
enum Word<'a> {
    Sign(&'a str),
    Quoted(&'a str),
    Name(&'a str),
}

impl<'a> Word<'a> {
    /// The first word of `text`, which begins with no space, and the rest.
    fn first(text: &'a str) -> Result<(Self, &'a str), String> {
        let ends = |is_in: fn(char) -> bool| text.find(|c| !is_in(c)).unwrap_or(text.len());
        let (end, word): (usize, fn(&'a str) -> Self) = match text.as_bytes().first() {
            Some(b'(' | b')') => (1, Self::Sign),
            Some(quote @ (b'"' | b'\'')) => match text[1..].find(char::from(*quote)) {
                Some(length) => (length + 2, Self::Quoted),
                None => return Err(format!("the marker's text {text} has no closing quote")),
            },
            Some(b'<' | b'=' | b'>' | b'~' | b'!') => (ends(|c| "<=>~!".contains(c)), Self::Sign),
            _ => (ends(|c| c.is_ascii_alphanumeric() || "_.".contains(c)), Self::Name),
        };
        match end {
            0 => Err(format!("its marker has {} where a word should be", &text[..1])),
            end => Ok((word(&text[..end]), text[end..].trim_start())),
        }
    }

    fn text(self) -> &'a str {
        match self {
            Self::Sign(text) | Self::Quoted(text) | Self::Name(text) => text,
        }
    }
}

/// Checks a marker's grammar, with no recursion.
fn check_marker(marker: &str) -> Result<(), String> {
    let mut rest = marker.trim();
    if rest.is_empty() {
        return Err("there is no marker behind the semicolon".to_owned());
    }
    let mut next = || -> Result<Option<Word<'_>>, String> {
        if rest.is_empty() {
            return Ok(None);
        }
        let (word, behind) = Word::first(rest)?;
        rest = behind;
        Ok(Some(word))
    };
    let expected = |what: &str, found: Option<Word<'_>>| {
        let found = found.map_or("its end", Word::text);
        format!("its marker should have {what}, and has {found}")
    };
    let mut open = 0u32;
    loop {
        let mut left = next()?;
        while let Some(Word::Sign("(")) = left {
            open += 1;
            left = next()?;
        }
        let is_value = |word: Option<Word<'_>>| match word {
            Some(Word::Quoted(_)) => true,
            Some(Word::Name(name)) => VARIABLES.contains(&name),
            _ => false,
        };
        if !is_value(left) {
            return Err(expected("a quoted text or a marker's name", left));
        }
        match next()? {
            Some(Word::Sign("<" | "<=" | "==" | "===" | "!=" | ">" | ">=" | "~=") | Word::Name("in")) => {}
            Some(Word::Name("not")) => match next()? {
                Some(Word::Name("in")) => {}
                other => return Err(expected("`in` behind `not`", other)),
            },
            other => return Err(expected("an operator such as `>=` or `not in`", other)),
        }
        let right = next()?;
        if !is_value(right) {
            return Err(expected("a quoted text or a marker's name", right));
        }
        let mut behind = next()?;
        while let Some(Word::Sign(")")) = behind {
            open = open
                .checked_sub(1)
                .ok_or("its marker closes a parenthesis that it does not open")?;
            behind = next()?;
        }
        match behind {
            Some(Word::Name("and" | "or")) => {}
            None if open == 0 => return Ok(()),
            None => return Err("its marker does not close a parenthesis".to_owned()),
            other => return Err(expected("`and` or `or`", other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_of_any_kind_is_read_with_its_marker_left_out() {
        for (text, name) in [
            ("Numpy", "numpy"),
            ("a.b[x, y] >=1,<2 ; python_version<'3.9'", "a-b"),
            (
                "a(==1.0); (os_name == 'nt' or 'x' not in platform_machine) and extra=='y'",
                "a",
            ),
            ("a @ https://host/a;b.whl ; sys.platform != \"win32\"", "a"),
            ("a@https://host/a.whl", "a"),
        ] {
            let parsed = parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(parsed.name.to_string(), name, "{text}");
            assert!(parsed.marker.is_true(), "{text}");
        }
    }

    #[test]
    fn a_marker_that_is_wrong_is_said_so() {
        for (marker, why) in [
            ("", "there is no marker"),
            ("python_version", "an operator"),
            ("python_version >= ", "a quoted text"),
            ("python_versio >= '3'", "has python_versio"),
            ("python_version >= '3", "no closing quote"),
            ("python_version >> '3'", "an operator"),
            ("(python_version > '3'", "does not close"),
            ("python_version > '3')", "does not open"),
            ("python_version > '3' xor os_name == 'a'", "`and` or `or`"),
            ("python_version > '3' and", "a quoted text"),
            ("python_version not '3'", "`in` behind `not`"),
            ("python_version > %", "has % where"),
            ("()", "a quoted text"),
        ] {
            let said = parse(&format!("numpy ; {marker}")).unwrap_err();
            assert!(said.contains(why), "{marker}: {said}");
        }
    }

    #[test]
    fn a_name_that_no_letter_and_no_digit_ends_is_said_so() {
        for text in [
            "a- ==1",
            "a_[b]",
            "a.",
            "a[b-]>1",
            "a [b, c.d_ ]",
            "a[b. x]",
            "a-(1)",
            "1e9- -",
        ] {
            let said = parse(text).unwrap_err();
            assert!(
                said.ends_with("is no name, as a letter or a digit ends one"),
                "{text}: {said}"
            );
        }
    }

    #[test]
    fn a_requirement_on_which_the_parser_panics_or_grows_is_an_answer() {
        let started = std::time::Instant::now();
        let texts = [
            "numpy; é".to_owned(),
            "numpy; python_version > '3' é".to_owned(),
            "numpy\u{a0}é".to_owned(),
            "numpy @ https://host/é ; é".to_owned(),
            "a\0".to_owned(),
            format!("a ; {}os_name=='x'{}", "(".repeat(1_900), ")".repeat(1_900)),
            format!(
                "a ; {}os_name=='x'",
                (0..100)
                    .map(|i| format!("'{i}' in os_name and '{}' in os_name or ", i + 100))
                    .collect::<String>()
            ),
            format!("a @ {}x", " ".repeat(3_900)),
            format!("a[{}]", "x,".repeat(100_000)),
            "1".repeat(1 << 20),
        ];
        for text in &texts {
            let _ = parse(text);
        }
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }
}
