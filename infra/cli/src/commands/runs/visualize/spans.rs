//! The spans of a run in a table, as its tracing made them.

use super::markup::{escape, value_text};
use crate::{runfiles::unread, trouble::Trouble};
use lifecycle::count_with;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
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

/// The last row of a file of spans that is not whole.
#[derive(Deserialize)]
struct Last {
    left_out: LeftOut,
}

/// The numbers of a run's spans that are not kept, and of its lines without any.
#[derive(Default, Deserialize)]
struct LeftOut {
    spans: u64,
    lines: u64,
}

impl Span {
    /// The number of the line of data; none of a span of the aggregation.
    fn line(&self) -> Option<i64> {
        self.attributes.get("line_number")?.as_i64()
    }

    fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.get(name)
    }

    fn began(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(&self.start_time).ok()
    }

    fn took(&self) -> Option<Duration> {
        let ended = humantime::parse_rfc3339(&self.end_time).ok()?;
        ended.duration_since(self.began()?).ok()
    }
}

/// A section with the spans, those of each line together, each below the one that it is part of.
///
/// # Errors
///
/// When they cannot be read.
pub(crate) fn table(lines: impl Iterator<Item = io::Result<String>>) -> Result<String, Box<Trouble>> {
    let (mut spans, mut more, mut left_out): (Vec<Span>, usize, LeftOut) = (Vec::new(), 0, LeftOut::default());
    for line in lines {
        let line = line.map_err(|error| unread(&error))?;
        if let Ok(last) = serde_json::from_str::<Last>(&line) {
            left_out = last.left_out;
            continue;
        }
        match serde_json::from_str(&line) {
            Ok(span) if spans.len() < MOST => spans.push(span),
            _ => more += 1,
        }
    }
    Ok(rows(&mut spans) + &missing(more, &left_out) + "\n")
}

fn rows(spans: &mut [Span]) -> String {
    spans.sort_by_key(Span::began);
    let known: HashSet<String> = spans.iter().map(|span| span.context.span_id.clone()).collect();
    let mut below: HashMap<Option<&str>, Vec<&Span>> = HashMap::new();
    for span in &*spans {
        let parent = span.parent_id.as_deref().filter(|parent| known.contains(*parent));
        below.entry(parent).or_default().push(span);
    }
    let mut html =
        "<h2>Spans</h2><table><tr><th>span</th><th>kind</th><th>began</th><th>seconds</th><th>inputs</th><th>output</th><th>attributes</th></tr>\n"
            .to_owned();
    let mut roots = below.remove(&None).unwrap_or_default();
    // Those of the aggregation come last.
    roots.sort_by_key(|root| root.line().map_or((true, 0), |line| (false, line)));
    let mut head = None;
    for root in roots {
        if head != Some(root.line()) {
            head = Some(root.line());
            let title = root.line().map_or("no line".to_owned(), |line| format!("line {line}"));
            html.push_str(&format!("<tr><th colspan=\"7\">{title}</th></tr>\n"));
        }
        let mut open = vec![(0, root)];
        // Each is taken out once, also if a run has told that they are in a circle.
        while let Some((depth, span)) = open.pop() {
            html.push_str(&row(span, depth));
            let inner = below.remove(&Some(span.context.span_id.as_str())).unwrap_or_default();
            open.extend(inner.into_iter().rev().map(|span| (depth + 1, span)));
        }
    }
    html + "</table>"
}

/// A sentence on what the table lacks.
fn missing(more: usize, left_out: &LeftOut) -> String {
    let mut html = String::new();
    if more > 0 {
        html.push_str(&format!(
            "<p>{} in spans.jsonl: pfsession runs download</p>",
            count_with(more, "more span", ["is", "are"])
        ));
    }
    if left_out.spans > 0 {
        html.push_str(&format!(
            "<p>{} not kept</p>",
            count_with(left_out.spans, "span", ["was", "were"])
        ));
    }
    if left_out.lines > 0 {
        html.push_str(&format!(
            "<p>{} no spans, as those of the lines before are as many as are kept</p>",
            count_with(left_out.lines, "line", ["has", "have"])
        ));
    }
    html
}

fn row(span: &Span, depth: usize) -> String {
    let kind = span.attribute("span_type").and_then(Value::as_str).unwrap_or_default();
    let took = span.took().map(|took| format!("{:.3}", took.as_secs_f64()));
    let attributes = Value::Object(span.attributes.clone());
    format!(
        "<tr><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><details><summary>{}</summary>{}</details></td></tr>\n",
        "\u{2003}".repeat(depth.min(20)),
        escape(&span.name),
        escape(kind),
        escape(&span.start_time),
        took.unwrap_or_default(),
        value_text(span.attribute("inputs")),
        value_text(span.attribute("output")),
        span.attributes.len(),
        value_text(Some(&attributes)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn span_of(line: Option<i64>, name: &str, id: &str, parent: Option<&str>, second: u64) -> io::Result<String> {
        let time = |second: u64| format!("2026-11-28T10:00:{second:02}.500000Z");
        let span = json!({ "name": name, "context": { "span_id": id }, "parent_id": parent, "start_time": time(second), "end_time": time(second + 2),
            "attributes": { "span_type": "Function", "output": "</pre><script>", "line_number": line } });
        Ok(span.to_string())
    }

    fn span(name: &str, id: &str, parent: Option<&str>, second: u64) -> io::Result<String> {
        span_of(Some(0), name, id, parent, second)
    }

    #[test]
    fn spans_of_a_line_stand_together_and_what_is_left_out_is_said() {
        let lines = [
            span_of(None, "aggregate", "9", None, 1),
            span_of(Some(1), "second", "2", None, 2),
            span_of(Some(0), "first", "1", None, 5),
            span_of(Some(0), "again", "3", None, 6),
            Ok(r#"{"left_out": {"spans": 7, "lines": 12}}"#.to_owned()),
        ];
        let html = table(lines.into_iter()).unwrap();
        let titles = ["line 0", "first", "again", "line 1", "second", "no line", "aggregate"];
        let at: Vec<usize> = titles
            .iter()
            .map(|title| html.find(&format!(">{title}<")).unwrap())
            .collect();
        assert!(at.is_sorted(), "{html}");
        assert_eq!(html.matches("line 0").count(), 1);
        assert!(
            html.contains("7 spans were not kept") && html.contains("12 lines have no spans"),
            "{html}"
        );
        assert!(!html.contains("more are in"), "{html}");
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
            html.contains("<td>2.000</td>")
                && html.contains("1 more span is in spans.jsonl")
                && !html.contains("<script>"),
            "{html}"
        );
    }
}
