//! Pieces of an output as a run that streams gives them, and what its end adds to them.

use contract::agent::{Chunk, LineKind, OutputLine};
use serde_json::{Map, Value};

/// The pieces heard of the outputs of one run.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The outputs that come whole, once they are known, and the names of those in pieces, once
    /// they begin.
    pub(crate) outputs: Option<Map<String, Value>>,
    pub(crate) names: Option<Vec<String>>,
    texts: Vec<(String, String)>,
    /// The output that a piece was of last.
    last: String,
}

impl Heard {
    /// Takes a line of a run's output. Returns the pieces in it.
    pub(crate) fn take(&mut self, line: &OutputLine) -> Option<Chunk> {
        if line.kind != LineKind::Chunk {
            return None;
        }
        // One that was cut on its way is made good by the end.
        let chunk: Chunk = serde_json::from_str(&line.text).ok()?;
        match &chunk {
            Chunk::Begins { outputs, names } => {
                self.outputs = outputs.clone();
                self.names = Some(names.clone());
            }
            Chunk::GoesOn { name, texts } => {
                let at = self.texts.iter().position(|(known, _)| known == name);
                let at = at.unwrap_or_else(|| {
                    self.texts.push((name.clone(), String::new()));
                    self.texts.len() - 1
                });
                self.texts[at].1.extend(texts.iter().map(String::as_str));
            }
        }
        Some(chunk)
    }

    /// Whether the pieces are of another output from now on.
    pub(crate) fn turn_to(&mut self, name: &str) -> bool {
        let is_other = self.last != name;
        name.clone_into(&mut self.last);
        is_other
    }

    /// The text heard of an output; empty before its first piece.
    pub(crate) fn text(&self, name: &str) -> &str {
        let found = self.texts.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, text)| text)
    }

    /// The rest of an output behind the text that was heard; `None` if that is not its beginning,
    /// as a secret was hidden in it, or it was cut.
    pub(crate) fn rest<'a>(&self, name: &str, whole: &'a str) -> Option<&'a str> {
        whole.strip_prefix(self.text(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: LineKind, text: &str) -> OutputLine {
        OutputLine {
            seq: 0,
            at: 0,
            kind,
            text: text.into(),
        }
    }

    #[test]
    fn the_end_adds_what_was_not_heard_and_a_piece_that_was_cut_is_left_out() {
        let mut heard = Heard::default();
        for (kind, text) in [
            (LineKind::Stdout, r#"{"goes-on":{"name":"a","texts":["no"]}}"#),
            (LineKind::Chunk, r#"{"begins":{"outputs":{"b":1},"names":["a"]}}"#),
            (LineKind::Chunk, r#"{"goes-on":{"name":"a","texts":["o","n"]}}"#),
            (LineKind::Chunk, r#"{"goes-on":{"name":"a","texts":["#),
            (LineKind::Chunk, r#"{"goes-on":{"name":"a","texts":["e "]}}"#),
        ] {
            heard.take(&line(kind, text));
        }
        assert_eq!(heard.text("a"), "one ");
        assert_eq!(heard.rest("a", "one two"), Some("two"));
        assert_eq!(heard.rest("a", "One two"), None);
        assert_eq!(heard.rest("c", "all"), Some("all"));
        assert_eq!(
            (heard.names, heard.outputs.unwrap()["b"].as_i64()),
            (Some(vec!["a".to_owned()]), Some(1))
        );
    }
}
