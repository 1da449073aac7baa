//! The spans of a run in a table, as its tracing made them.

use super::markup::{escaped, value_text};
use crate::{runfiles::unread, trouble::Trouble};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::HashMap,
    io,
    time::{Duration, SystemTime},
};

/// The most spans that a page shows.
const MOST: usize = 2_000;

/// A span as OpenTelemetry's SDK writes it, as far as it is shown.
#[derive(Deserialize)]
struct Span {
    name: String,
    context: Context,
    #[serde(default)]
    parent_id: Option<String>,
    start_time: String,
    end_time: String,
    #[serde(default)]
    attributes: Map<String, Value>,
}

#[derive(Deserialize)]
struct Context {
    span_id: String,
}

impl Span {
    fn began(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(&self.start_time).ok()
    }

    fn took(&self) -> Option<Duration> {
        let ended = humantime::parse_rfc3339(&self.end_time).ok()?;
        ended.duration_since(self.began()?).ok()
    }
}

/// A section with the spans, each below the one that it is part of.
///
/// # Errors
///
/// When they cannot be read.
pub(crate) fn table(lines: impl Iterator<Item = io::Result<String>>) -> Result<String, Box<Trouble>> {
    let (mut spans, mut more): (Vec<Span>, usize) = (Vec::new(), 0);
    for line in lines {
        let line = line.map_err(|error| unread(&error))?;
        match serde_json::from_str(&line) {
            Ok(span) if spans.len() < MOST => spans.push(span),
            _ => more += 1,
        }
    }
    spans.sort_by_key(Span::began);
    let mut below: HashMap<Option<&str>, Vec<&Span>> = HashMap::new();
    let known: HashMap<&str, &Span> = spans.iter().map(|span| (span.context.span_id.as_str(), span)).collect();
    for span in &spans {
        let parent = span.parent_id.as_deref().filter(|parent| known.contains_key(parent));
        below.entry(parent).or_default().push(span);
    }
    let mut html =
        "<h2>Spans</h2><table><tr><th>span</th><th>kind</th><th>began</th><th>seconds</th><th>attributes</th></tr>"
            .to_owned();
    let mut open: Vec<(usize, &Span)> = below
        .remove(&None)
        .unwrap_or_default()
        .into_iter()
        .rev()
        .map(|span| (0, span))
        .collect();
    // Each is taken out once, also if a run has told that they are in a circle.
    while let Some((depth, span)) = open.pop() {
        html.push_str(&row(span, depth));
        let inner = below.remove(&Some(span.context.span_id.as_str())).unwrap_or_default();
        open.extend(inner.into_iter().rev().map(|span| (depth + 1, span)));
    }
    html.push_str("</table>");
    if more > 0 {
        html.push_str(&format!(
            "<p>{more} more are in spans.jsonl: pfsession runs download</p>"
        ));
    }
    Ok(html + "\n")
}

fn row(span: &Span, depth: usize) -> String {
    let kind = span
        .attributes
        .get("span_type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let took = span.took().map(|took| format!("{:.3}", took.as_secs_f64()));
    let attributes = Value::Object(span.attributes.clone());
    format!(
        "<tr><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td><details><summary>{}</summary>{}</details></td></tr>\n",
        "\u{2003}".repeat(depth.min(20)),
        escaped(&span.name),
        escaped(kind),
        escaped(&span.start_time),
        took.unwrap_or_default(),
        span.attributes.len(),
        value_text(Some(&attributes)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn span(name: &str, id: &str, parent: Option<&str>, second: u64) -> io::Result<String> {
        let time = |second: u64| format!("2026-11-28T10:00:{second:02}.500000Z");
        let span = json!({ "name": name, "context": { "span_id": id }, "parent_id": parent, "start_time": time(second), "end_time": time(second + 2),
            "attributes": { "span_type": "Function", "output": "</pre><script>" } });
        Ok(span.to_string())
    }

    #[test]
    fn spans_stand_below_the_one_that_they_are_part_of_and_none_is_markup() {
        let lines = [
            span("<b>", "2", Some("1"), 3),
            span("first", "1", None, 1),
            span("of no other here", "4", Some("9"), 2),
            span("inner", "3", Some("2"), 4),
            Ok("no span".to_owned()),
        ];
        let html = table(lines.into_iter()).unwrap();
        let rows = html.split("<tr><td>").skip(1);
        let rows: Vec<&str> = rows.map(|row| row.split("</td>").next().unwrap()).collect();
        assert_eq!(
            rows,
            [
                "first",
                "\u{2003}&lt;b&gt;",
                "\u{2003}\u{2003}inner",
                "of no other here"
            ]
        );
        assert!(
            html.contains("<td>2.000</td>") && html.contains("1 more are in spans.jsonl") && !html.contains("<script>"),
            "{html}"
        );
    }
}
