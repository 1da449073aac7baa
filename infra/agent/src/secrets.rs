//! The secrets of a run, taken out of what is written and told of it.

use std::collections::BTreeMap;

/// A secret of fewer characters is not taken out: that would take out parts of words.
const SHORTEST: usize = 8;
/// The text in place of a secret.
const HIDDEN: &str = "***";

/// The texts that nothing that is written may have: each secret, and how it looks by lines and in
/// JSON.
#[derive(Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    pub(crate) fn new(values: &[String]) -> Self {
        let mut all = Vec::new();
        for value in values {
            all.push(value.clone());
            // A log has them line by line.
            all.extend(value.lines().map(str::to_owned));
            let json = serde_json::Value::from(value.as_str()).to_string();
            let json = json[1..json.len() - 1].to_owned();
            all.push(in_ascii(&json));
            all.push(json);
        }
        all.retain(|secret| secret.chars().count() >= SHORTEST);
        // Where one is a part of another, the longer one goes first.
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Self(all)
    }

    /// A whole text without them.
    pub(crate) fn hide(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret, HIDDEN);
        self.0.iter().fold(text.to_owned(), hide)
    }

    /// The start of the end of a text that may be the beginning of a secret.
    fn find_begin(&self, text: &str) -> usize {
        let begins = |at: &usize| self.0.iter().any(|secret| secret.starts_with(&text[*at..]));
        let longest = self.0.first().map_or(0, String::len);
        let starts = text.char_indices().map(|(at, _)| at);
        starts
            .skip_while(|at| text.len() - at >= longest)
            .find(begins)
            .unwrap_or(text.len())
    }
}

/// JSON as Python writes it: `\u00e9` for what is not ASCII.
fn in_ascii(json: &str) -> String {
    let mut text = String::new();
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            text += &format!("\\u{unit:04x}");
        }
    }
    text
}

/// Texts that come in parts, each of which may end within a secret. The end of a part that may be
/// the beginning of one waits for the next part.
#[derive(Default)]
pub(crate) struct Parts<K>(BTreeMap<K, String>);

impl<K: Ord> Parts<K> {
    /// The text that can be passed on after a part.
    pub(crate) fn take(&mut self, secrets: &Secrets, of: K, part: &str) -> String {
        let waiting = self.0.remove(&of).unwrap_or_default();
        let mut text = secrets.hide(&(waiting + part));
        let end = text.split_off(secrets.find_begin(&text));
        if !end.is_empty() {
            self.0.insert(of, end);
        }
        text
    }

    /// The rest of a text that has ended.
    pub(crate) fn end(&mut self, of: &K) -> String {
        self.0.remove(of).unwrap_or_default()
    }

    /// The rest of all texts.
    pub(crate) fn end_all(&mut self) -> BTreeMap<K, String> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        Secrets::new(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_secret_is_hidden_whole_by_its_lines_and_as_json_has_it() {
        let secrets = secrets(&[
            "short",
            "-----BEGIN-----\nabcdefghij\nend",
            "clé \"secrète\" 🗝",
            "abcdefghijkl",
        ]);
        let cases = [
            ("a short one", "a short one"),
            ("abcdefghijkl abcdefghij", "*** ***"),
            ("x\n-----BEGIN-----\nabcdefghij\nend\ny", "x\n***\ny"),
            (r#"{"a": "-----BEGIN-----\nabcdefghij\nend"}"#, r#"{"a": "***"}"#),
            (r#"["clé \"secrète\" 🗝"]"#, r#"["***"]"#),
            (r#"["cl\u00e9 \"secr\u00e8te\" \ud83d\udddd"]"#, r#"["***"]"#),
        ];
        for (text, wanted) in cases {
            assert_eq!(secrets.hide(text), wanted);
        }
    }

    #[test]
    fn a_secret_is_hidden_wherever_a_text_is_cut() {
        let secrets = secrets(&["hidden-word", "hidden-clé", "word-two"]);
        let text = "say hidden-word and hidden-clé, hidden-wor, hidden-word-two hid";
        let wanted = secrets.hide(text);
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for first in &cuts {
            for second in cuts.iter().filter(|second| *second >= first) {
                let mut parts = Parts::default();
                let mut told = String::new();
                for part in [&text[..*first], &text[*first..*second], &text[*second..]] {
                    told += &parts.take(&secrets, "of", part);
                }
                told += &parts.end(&"of");
                assert_eq!(told, wanted, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn nothing_waits_that_cannot_become_a_secret() {
        let secrets = secrets(&["hidden-word"]);
        let mut parts = Parts::default();
        assert_eq!(parts.take(&secrets, 1, "a b hidden"), "a b ");
        assert_eq!(parts.take(&secrets, 2, "oth"), "ot");
        assert_eq!(parts.take(&secrets, 1, "-place"), "hidden-place");
        assert_eq!(parts.end_all(), [(2, "h".to_owned())].into());
    }
}
