//! Texts and values of a run in a page, in which nothing of them is acted on.

use crate::terminal;
use serde_json::Value;

/// The most characters of a value that the page shows.
const MOST: usize = 100_000;

/// A text in which HTML sees no markup, and a reader no other order of characters.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in terminal::fit(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A value as the page shows it.
pub(crate) fn value_text(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => serde_json::to_string_pretty(value).unwrap_or_default(),
    };
    let text = without_base64(&text);
    let text = match text.char_indices().nth(MOST) {
        Some((at, _)) => format!(
            "{}… (cut here, {} bytes more; the whole is in the run's folder: pfsession runs download)",
            &text[..at],
            text.len() - at
        ),
        None => text,
    };
    format!("<pre>{}</pre>", escape(&text))
}

/// A text in which long base64, such as that of an image in a span, is a word on how long it is.
fn without_base64(text: &str) -> String {
    /// The longest that stays.
    const LONGEST: usize = 200;
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("base64") {
        let after = &rest[at + "base64".len()..];
        let begins = after
            .find(|c| !matches!(c, '"' | '\\' | ':' | ',' | ' '))
            .unwrap_or(after.len());
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        let ends = after[begins..]
            .find(|c| !is_part(c))
            .map_or(after.len(), |length| begins + length);
        let (before, data) = (&rest[..rest.len() - after.len() + begins], &after[begins..ends]);
        out += before;
        match data.len() {
            0..=LONGEST => out += data,
            length => out += &format!("… ({length} characters of base64)"),
        }
        rest = &after[ends..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_base64_is_a_word_on_its_length() {
        let long = "iVBOR/+=".repeat(100);
        let cases = [
            (
                format!("a data:image/png;base64,{long} b"),
                "a data:image/png;base64,… (800 characters of base64) b",
            ),
            (
                format!(r#"{{"x": "{{\"data:image/png;base64\": \"{long}\"}}"}}"#),
                r#"{"x": "{\"data:image/png;base64\": \"… (800 characters of base64)\"}"}"#,
            ),
            (
                "base64, base64: aGk= é base64".to_owned(),
                "base64, base64: aGk= é base64",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(without_base64(&text), wanted);
        }
    }

    #[test]
    fn no_text_of_a_run_is_markup_in_the_page() {
        let text = "</pre><script>alert('1')</script>\" onload=x & \u{202e}\u{1b}";
        let html = value_text(Some(&text.into()));
        let inner = html.strip_prefix("<pre>").unwrap().strip_suffix("</pre>").unwrap();
        assert!(!inner.contains(['<', '>', '"', '\'', '\u{202e}', '\u{1b}']), "{inner}");
    }
}
