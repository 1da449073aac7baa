//! Texts and values of a run in a page, in which nothing of them is acted on.

use crate::terminal;
use serde_json::Value;

/// The most characters of a value that the page shows.
const MOST: usize = 100_000;

/// A text in which HTML sees no markup, and a reader no other order of characters.
pub(crate) fn escaped(text: &str) -> String {
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
pub(crate) fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => serde_json::to_string_pretty(value).unwrap_or_default(),
    };
    let text = match text.char_indices().nth(MOST) {
        Some((at, _)) => format!(
            "{}… (cut here, {} bytes more; the whole is in the run's folder: pfsession runs download)",
            &text[..at],
            text.len() - at
        ),
        None => text,
    };
    format!("<pre>{}</pre>", escaped(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_run_is_markup_in_the_page() {
        let text = "</pre><script>alert('1')</script>\" onload=x & \u{202e}\u{1b}";
        let html = shown(Some(&text.into()));
        let inner = html.strip_prefix("<pre>").unwrap().strip_suffix("</pre>").unwrap();
        assert!(!inner.contains(['<', '>', '"', '\'', '\u{202e}', '\u{1b}']), "{inner}");
    }
}
