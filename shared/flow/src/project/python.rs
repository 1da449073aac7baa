//! The words of Python's code, as far as a list of texts needs them.

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Name(&'a str),
    /// A text that stands for itself: without escapes, and not put together from parts.
    Text(&'a str),
    /// A text of another kind.
    Other,
    Mark(char),
}

/// The words of some code, each with its offset. Comments are none.
pub(super) fn tokens(code: &str) -> Vec<(usize, Token<'_>)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(first) = code[at..].chars().next() {
        let rest = &code[at..];
        let length = if first == '#' {
            rest.find('\n').unwrap_or(rest.len())
        } else if matches!(first, '"' | '\'') {
            let (length, text) = text(rest, first);
            // A letter before a text says how to read it.
            let prefix = match out.last() {
                Some((from, Token::Name(name))) if from + name.len() == at => Some(*name),
                _ => None,
            };
            let begin = if prefix.is_some() {
                out.pop().map_or(at, |(from, _)| from)
            } else {
                at
            };
            let is_plain = matches!(prefix, None | Some("r" | "R" | "u" | "U")) && !text.contains(['\\', '\n']);
            out.push((begin, if is_plain { Token::Text(text) } else { Token::Other }));
            length
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            out.push((at, Token::Name(&rest[..length])));
            length
        } else {
            if !first.is_whitespace() {
                out.push((at, Token::Mark(first)));
            }
            first.len_utf8()
        };
        at += length;
    }
    out
}

/// The length of the text that code begins with, and what is within its quotes.
fn text(code: &str, quote: char) -> (usize, &str) {
    let is_long = code.starts_with(&quote.to_string().repeat(3));
    let width = if is_long { 3 } else { 1 };
    let (mut escaped, body) = (false, &code[width..]);
    for (at, c) in body.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if body[at..].starts_with(&code[..width]) {
            return (width + at + width, &body[..at]);
        }
    }
    (code.len(), "")
}

#[cfg(test)]
mod tests {
    use super::{Token::*, tokens};

    #[test]
    fn texts_are_told_from_names_comments_and_what_is_computed() {
        let found = |code| tokens(code).into_iter().map(|(_, token)| token).collect::<Vec<_>>();
        assert_eq!(
            found("a = ['x', r\"y#z\"] # \"no\"\nb"),
            [
                Name("a"),
                Mark('='),
                Mark('['),
                Text("x"),
                Mark(','),
                Text("y#z"),
                Mark(']'),
                Name("b")
            ]
        );
        assert_eq!(
            found("f'{x}' 'a\\n' \"\"\"long\nx\"\"\" ''"),
            [Other, Other, Other, Text("")]
        );
        assert_eq!(found("'never ends"), [Text("")]);
        assert_eq!(found("\"ä\"é"), [Text("ä"), Name("é")]);
    }
}
