//! The answer of a served flow in pieces: server-sent events, as `pf flow serve` of promptflow
//! 1.18.5 gives them.
//!
//! * A reader that is slow does not hold up the run, which goes on in its session. At most
//!   [`MOST_WAITING`] pieces and events wait for the reader here.
//! * Of a run that fails in the middle the answer ends in the middle, as promptflow's does; the
//!   terminal says why.
//!
//! # Source
//!
//! `ResponseCreator` in `promptflow/core/_serving/response_creator.py`.

use super::answers;
use crate::{pieces::Heard, terminal::note};
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::{Code, Failure, agent::Chunk};
use http_body::Frame;
use serde_json::{Map, Value, json};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// The most pieces of a run that wait for their reader, and the most events.
const MOST_WAITING: usize = 32;

/// Which kinds of answer a request takes.
pub(crate) struct Accepted {
    named: Vec<String>,
}

impl Accepted {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let values = headers
            .get_all(header::ACCEPT)
            .into_iter()
            .filter_map(|value| value.to_str().ok());
        let kinds = values.flat_map(|value| value.split(','));
        let named = kinds.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        Self {
            named: named.filter(|kind| !kind.is_empty()).collect(),
        }
    }

    /// Whether it names them: `*/*` does not mean them.
    pub(crate) fn has_events(&self) -> bool {
        self.named.iter().any(|kind| kind == "text/event-stream")
    }

    fn has_json(&self) -> bool {
        let is_json = |kind: &String| ["application/json", "application/*", "*/*"].contains(&kind.as_str());
        self.named.is_empty() || self.named.iter().any(is_json)
    }

    /// The answer as JSON, if the request takes that.
    pub(crate) fn json(&self, outputs: Map<String, Value>) -> Response {
        match self.has_json() {
            true => answers::json_of(StatusCode::OK, &Value::Object(outputs)),
            false => {
                let asked = self.named.join(",");
                let message = format!(
                    "Media type {asked} in Accept header is not acceptable. Supported media type(s) - application/json"
                );
                answers::error(StatusCode::NOT_ACCEPTABLE, "UserError", &message)
            }
        }
    }
}

/// The outputs of a run, and the pieces of them that were heard before its end.
pub(crate) type Asked = Result<(Map<String, Value>, Heard), Failure>;
/// Takes the pieces of a run.
pub(crate) type Hear = Box<dyn FnMut(Chunk) + Send>;

/// A piece of a run's outputs, or how the run ended.
enum Told {
    Chunk(Chunk),
    Ended(Box<Asked>),
}

/// Asks the flow once, and answers as it answers: in pieces from the first one on, or whole if it
/// has none.
///
/// * `ask`: asks it, and waits for its end.
/// * `hidden`: the outputs that no answer has.
pub(crate) async fn answer(
    ask: impl FnOnce(Hear) -> Asked + Send + 'static,
    hidden: Vec<String>,
    accepted: Accepted,
) -> Response {
    let (teller, mut told) = channel(MOST_WAITING);
    tokio::task::spawn_blocking(move || {
        let heard = teller.clone();
        let ended = ask(Box::new(move |chunk| drop(heard.blocking_send(Told::Chunk(chunk)))));
        let _ = teller.blocking_send(Told::Ended(Box::new(ended)));
    });
    let lost = || Failure::new(Code::ServeFailed, "The run's end was not seen. Ask again.");
    match told.recv().await {
        Some(Told::Chunk(Chunk::Begins { names, .. })) if names.len() > 1 => answers::error(
            StatusCode::BAD_REQUEST,
            "UserError",
            "Multiple stream output fields not supported.",
        ),
        Some(Told::Chunk(first)) => {
            let (events, body) = channel(MOST_WAITING);
            tokio::spawn(tell(first, told, events, hidden));
            let kind = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")];
            (StatusCode::OK, kind, Body::new(Events(body))).into_response()
        }
        Some(Told::Ended(ended)) => match *ended {
            Ok((mut outputs, _)) => {
                outputs.retain(|name, _| !hidden.contains(name));
                accepted.json(outputs)
            }
            Err(failure) => answers::failure_response(&failure),
        },
        None => answers::failure_response(&lost()),
    }
}

/// Writes the events of a run until its end.
async fn tell(first: Chunk, mut told: Receiver<Told>, events: Sender<io::Result<Bytes>>, hidden: Vec<String>) {
    let mut next = Some(Told::Chunk(first));
    while let Some(said) = next {
        let (values, failure) = match said {
            Told::Chunk(chunk) => (values_of(chunk, &hidden), None),
            Told::Ended(ended) => match *ended {
                Ok((outputs, heard)) => rest_of(outputs, &heard, &hidden),
                Err(failure) => (Vec::new(), Some(failure)),
            },
        };
        for value in values {
            // A reader that is gone does not end the run.
            let event = Bytes::from(format!("data: {}\n\n", as_python(&value)));
            let _ = events.send(Ok(event)).await;
        }
        if let Some(failure) = failure {
            note!("{failure}");
            let _ = events.send(Err(io::Error::other(failure.to_string()))).await;
        }
        next = told.recv().await;
    }
}

/// The values of the events of a piece.
fn values_of(chunk: Chunk, hidden: &[String]) -> Vec<Value> {
    match chunk {
        Chunk::Begins { outputs, .. } => whole(outputs.unwrap_or_default(), hidden),
        Chunk::GoesOn { name, .. } if hidden.contains(&name) => Vec::new(),
        Chunk::GoesOn { name, texts } => texts.into_iter().map(|text| json!({ name.as_str(): text })).collect(),
    }
}

/// The values of the events that a run's end adds to its pieces, and why they are not all.
fn rest_of(outputs: Map<String, Value>, heard: &Heard, hidden: &[String]) -> (Vec<Value>, Option<Failure>) {
    let (streamed, rest) = split_outputs(outputs, heard.names.as_deref().unwrap_or_default());
    let mut values = match heard.outputs {
        Some(_) => Vec::new(),
        None => whole(rest, hidden),
    };
    for (name, text) in streamed.into_iter().filter(|(name, _)| !hidden.contains(name)) {
        match heard.rest(&name, &text) {
            Some("") => {}
            Some(rest) => values.push(json!({ name: rest })),
            None => return (values, Some(pieces_differ(&name))),
        }
    }
    (values, None)
}

/// The value of the one event of outputs that come whole, if there are any.
fn whole(mut outputs: Map<String, Value>, hidden: &[String]) -> Vec<Value> {
    outputs.retain(|name, _| !hidden.contains(name));
    match outputs.is_empty() {
        true => Vec::new(),
        false => vec![Value::Object(outputs)],
    }
}

/// The texts that came in pieces, and the outputs beside them.
fn split_outputs(outputs: Map<String, Value>, names: &[String]) -> (Vec<(String, String)>, Map<String, Value>) {
    let (mut streamed, mut rest) = (Vec::new(), Map::new());
    for (name, value) in outputs {
        match value {
            Value::String(text) if names.contains(&name) => streamed.push((name, text)),
            value => drop(rest.insert(name, value)),
        }
    }
    (streamed, rest)
}

fn pieces_differ(name: &str) -> Failure {
    let message = format!(
        "The output {name} differs from its pieces: a secret was hidden in them, or they are no text. Ask for it without Accept: \
         text/event-stream"
    );
    Failure::new(Code::ServePiecesDiffer, message)
}

/// The events as the body of an answer.
struct Events(Receiver<io::Result<Bytes>>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut()
            .0
            .poll_recv(context)
            .map(|event| event.map(|event| event.map(Frame::data)))
    }
}

/// A value as Python's `json.dumps` writes it: with spaces, and in ASCII.
fn as_python(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Python);
    serde::Serialize::serialize(value, &mut serializer).expect("a value is always JSON");
    String::from_utf8(bytes).expect("it is ASCII")
}

struct Python;

impl serde_json::ser::Formatter for Python {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        for c in text.chars() {
            match c {
                ' '..='~' => write!(writer, "{c}")?,
                c => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(writer, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_value_is_written_as_python_writes_it() {
        let value = json!({ "a": ["ü\n\"", 1.5, null], "b": { "c": "👩", "d": "" } });
        expect![[r#"{"a": ["\u00fc\n\"", 1.5, null], "b": {"c": "\ud83d\udc69", "d": ""}}"#]]
            .assert_eq(&as_python(&value));
    }

    #[test]
    fn what_waits_for_a_reader_that_does_not_read_is_bounded() {
        const PIECES: usize = 1000;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (teller, said) = std::sync::mpsc::channel();
        let ask = move |mut hear: Hear| {
            let names = vec!["text".to_owned()];
            hear(Chunk::Begins {
                outputs: Some(Map::new()),
                names: names.clone(),
            });
            for n in 0..PIECES {
                hear(Chunk::GoesOn {
                    name: "text".into(),
                    texts: vec![n.to_string()],
                });
                let _ = teller.send(n);
            }
            let mut heard = Heard::default();
            (heard.outputs, heard.names) = (Some(Map::new()), Some(names));
            Ok((Map::new(), heard))
        };
        let accepted = Accepted {
            named: vec!["text/event-stream".into()],
        };
        let response = runtime.block_on(answer(ask, Vec::new(), accepted));
        // All that is taken without a reader is taken when nothing more comes for a while.
        let mut taken = 0;
        while said.recv_timeout(std::time::Duration::from_millis(300)).is_ok() {
            taken += 1;
        }
        assert!(taken <= 2 * MOST_WAITING + 2, "{taken} pieces wait");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX);
        let text = runtime.block_on(body).unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert_eq!(text.matches("data: ").count(), PIECES);
        assert!(text.ends_with("data: {\"text\": \"999\"}\n\n"), "{text}");
    }

    #[test]
    fn an_output_that_differs_from_its_pieces_says_what_to_do() {
        expect![[r#"Serve.PiecesDiffer: The output answer differs from its pieces: a secret was hidden in them, or they are no text. Ask for it without Accept: text/event-stream"#]]
            .assert_eq(&pieces_differ("answer").to_string());
    }
}
