//! The files of a run, wherever the service is, and what they say of its lines.

use crate::{
    client::Client,
    request::LONGEST_WAIT,
    trouble::{FAILED, NONE, Trouble},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use contract::{
    Code, Failure,
    http::{FilePart, RunFiles},
    route::Route,
    row::RunRow,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, BufReader, Read};

/// The file of a run's outputs, a line each; beside it the number of each line, and why it failed.
pub(crate) const OUTPUTS: &str = "output/outputs.jsonl";
pub(crate) const LINES: &str = "output/lines.jsonl";
/// The file and the folder of promptflow's records of lines and of nodes.
pub(crate) const FLOW_RECORDS: &str = "flow_artifacts/000000000.jsonl";
pub(crate) const NODE_RECORDS: &str = "node_artifacts/";

/// The files of a run; `None` where the service does not see them, and the store has none.
pub(crate) fn list(client: &Client, run: &str) -> Result<Option<RunFiles>, Box<Trouble>> {
    client.find(Route::RunFiles(run))
}

/// A file of a run, read as it is asked for. One that grows is read on until the run has ended, if
/// it is followed.
pub(crate) struct Remote<'a> {
    client: &'a Client,
    run: String,
    path: String,
    follow: bool,
    /// The bytes that were read: the next part begins there.
    at: u64,
    next: u64,
    part: Box<dyn Read>,
    ended: bool,
    /// Of one that comes from the store: the digest that it is to have, and that of what was read.
    digest: Option<String>,
    read: Sha256,
    broken: u32,
}

/// The most retries of a part that breaks off.
const MOST_BROKEN: u32 = 3;

impl<'a> Remote<'a> {
    /// Opens a file; `None` if there is none, or the service does not see it.
    pub(crate) fn open(client: &'a Client, run: &str, path: &str, follow: bool) -> Result<Option<Self>, Box<Trouble>> {
        let mut remote = Self {
            client,
            run: run.to_owned(),
            path: path.to_owned(),
            follow,
            at: 0,
            next: 0,
            part: Box::new(io::empty()),
            ended: false,
            digest: None,
            read: Sha256::new(),
            broken: 0,
        };
        match remote.fetch() {
            Ok(()) => Ok(Some(remote)),
            Err(trouble) if trouble.exit == NONE => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    pub(crate) fn lines(self) -> io::Lines<BufReader<Self>> {
        BufReader::with_capacity(1 << 16, self).lines()
    }

    fn fetch(&mut self) -> Result<(), Box<Trouble>> {
        let wait = if self.follow { LONGEST_WAIT.as_millis() } else { 0 };
        let files = Route::RunFiles(&self.run).with("path", &self.path);
        let part: FilePart = self.client.get(files.with("offset", self.at).with("wait", wait))?;
        let content = BASE64.decode(&part.content).map_err(|_| {
            Trouble::new(
                FAILED,
                Code::ServiceOtherVersion,
                "The service's answer holds no part of a file",
            )
        })?;
        self.next = part.next;
        self.ended = part.ended || !self.follow && part.next == self.at;
        self.part = match part.download {
            Some(from) => {
                let part = self.client.download(&from)?;
                self.digest = Some(from.digest);
                Box::new(part.take(self.next - self.at))
            }
            None => Box::new(io::Cursor::new(content)),
        };
        Ok(())
    }

    /// Whether the file is what the run's end said of it.
    fn checked(&self) -> io::Result<()> {
        let read = || hex::encode(self.read.clone().finalize());
        match &self.digest {
            Some(digest) if *digest != read() => Err(io::Error::other(
                "it is not what the run wrote: it was changed in the store",
            )),
            _ => Ok(()),
        }
    }
}

impl Read for Remote<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.part.read(buffer);
            let is_short = || self.at < self.next;
            match read {
                Ok(0) if !is_short() && self.ended => return self.checked().map(|()| 0),
                Ok(0) if !is_short() => {}
                Ok(read) if read > 0 => {
                    self.at += read as u64;
                    if self.digest.is_some() {
                        self.read.update(&buffer[..read]);
                    }
                    return Ok(read);
                }
                broken if self.broken == MOST_BROKEN => {
                    return broken.and(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                _ => self.broken += 1,
            }
            self.fetch()
                .map_err(|trouble| io::Error::other(trouble.failure.message))?;
        }
    }
}

/// A failure to read a file of a run.
pub(crate) fn unread(error: &io::Error) -> Box<Trouble> {
    Trouble::new(
        FAILED,
        Code::RunUnread,
        format!("A file of the run was not read to its end: {error}"),
    )
    .next("try again")
}

/// A line of a run.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(crate) struct Line {
    pub(crate) line_number: i64,
    pub(crate) status: &'static str,
    /// As the flow has them; none where the run has no record of the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inputs: Option<Value>,
    pub(crate) output: Option<Value>,
    /// The output as the flow wrote it.
    #[serde(skip)]
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Failure>,
    /// In seconds, and what its models' calls took together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<u64>,
}

/// A JSON text as a value. What Python writes and JSON has not (`NaN`, `Infinity`) is a text then,
/// and so is what is no JSON at all.
pub(crate) fn value(text: &str) -> Value {
    if let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    let (mut strict, mut rest, mut quoted) = (String::new(), text, false);
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"]
            .into_iter()
            .find(|word| !quoted && rest.starts_with(word));
        let taken = match (word, c) {
            (Some(word), _) => {
                strict.push_str(&format!("\"{word}\""));
                word.len()
            }
            (None, '\\') if quoted => {
                let pair: usize = rest.chars().take(2).map(char::len_utf8).sum();
                strict.push_str(&rest[..pair]);
                pair
            }
            (None, c) => {
                quoted ^= c == '"';
                strict.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    serde_json::from_str(&strict).unwrap_or_else(|_| text.into())
}

/// The record of a line beside its output.
#[derive(Deserialize)]
struct About {
    line_number: i64,
    #[serde(default)]
    error: Option<Failure>,
}

/// A record of promptflow's own, of a line or a node, as far as it is read here.
#[derive(Deserialize)]
pub(crate) struct Record {
    #[serde(default)]
    pub(crate) line_number: Option<i64>,
    pub(crate) run_info: Info,
    #[serde(default)]
    pub(crate) status: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Info {
    #[serde(default)]
    pub(crate) inputs: Option<Value>,
    #[serde(default)]
    pub(crate) output: Option<Value>,
    #[serde(default)]
    pub(crate) error: Option<Value>,
    #[serde(default)]
    pub(crate) logs: Option<Value>,
    #[serde(default)]
    pub(crate) system_metrics: Option<Value>,
}

impl Info {
    pub(crate) fn duration(&self) -> Option<f64> {
        self.system_metrics.as_ref()?.get("duration")?.as_f64()
    }

    pub(crate) fn tokens(&self) -> Option<u64> {
        self.system_metrics.as_ref()?.get("total_tokens")?.as_u64()
    }
}

/// The lines of a run in order, as they are read.
pub(crate) struct Lines<'a> {
    outputs: Box<dyn Iterator<Item = io::Result<String>> + 'a>,
    about: Box<dyn Iterator<Item = io::Result<String>> + 'a>,
    records: std::iter::Peekable<Box<dyn Iterator<Item = Record> + 'a>>,
    next: i64,
}

/// The lines of a run. Where its files are not seen, those that its row has.
///
/// # Errors
///
/// `Run.OutputsElsewhere`, final, if its outputs are larger than a row holds and lie where the
/// service does not see them.
pub(crate) fn lines<'a>(client: &'a Client, row: &RunRow) -> Result<Lines<'a>, Box<Trouble>> {
    let open = |path: &str| -> Result<Box<dyn Iterator<Item = io::Result<String>> + 'a>, Box<Trouble>> {
        Ok(match Remote::open(client, &row.id, path, false)? {
            Some(file) => Box::new(file.lines()),
            None => Box::new(std::iter::empty()),
        })
    };
    let records: Box<dyn Iterator<Item = Record> + 'a> = Box::new(
        open(FLOW_RECORDS)?
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_value(value(&line)).ok()),
    );
    let outputs = match Remote::open(client, &row.id, OUTPUTS, false)? {
        Some(file) => Box::new(file.lines()) as Box<dyn Iterator<Item = io::Result<String>> + 'a>,
        None => {
            let result = row.result.clone().unwrap_or_default();
            if result.outputs.is_empty() && result.lines > 0 {
                return Err(elsewhere(row));
            }
            Box::new(result.outputs.into_iter().map(|output| Ok(output.to_string())))
        }
    };
    Ok(Lines {
        outputs,
        about: open(LINES)?,
        records: records.peekable(),
        next: 0,
    })
}

/// The failure of outputs that are where nobody here sees them.
pub(crate) fn not_seen(row: &RunRow) -> Failure {
    let place = row
        .result
        .as_ref()
        .map(|result| result.folder.as_str())
        .unwrap_or_default();
    let message = format!(
        "The outputs of {} are larger than an answer carries, and this service does not see {place}",
        row.id
    );
    Failure::new(Code::RunOutputsElsewhere, message)
}

/// The same, with what to do next.
pub(crate) fn elsewhere(row: &RunRow) -> Box<Trouble> {
    Trouble::of(NONE, not_seen(row)).next("read them there, or have the flow write less")
}

impl Iterator for Lines<'_> {
    type Item = Result<Line, Box<Trouble>>;

    fn next(&mut self) -> Option<Self::Item> {
        let output = match self.outputs.next()? {
            Ok(output) => output,
            Err(error) => return Some(Err(unread(&error))),
        };
        let about: Option<About> = match self.about.next() {
            Some(Err(error)) => return Some(Err(unread(&error))),
            about => about.and_then(|line| serde_json::from_str(&line.ok()?).ok()),
        };
        let line_number = about.as_ref().map_or(self.next, |about| about.line_number);
        let error = about.and_then(|about| about.error);
        self.next = line_number + 1;
        let record = self.records.next_if(|record| record.line_number == Some(line_number));
        let (duration, tokens) = record
            .as_ref()
            .map(|record| (record.run_info.duration(), record.run_info.tokens()))
            .unwrap_or_default();
        let text = output;
        let output = Some(value(&text)).filter(|output| !output.is_null());
        Some(Ok(Line {
            line_number,
            status: if error.is_some() || output.is_none() {
                "Failed"
            } else {
                "Completed"
            },
            inputs: record.and_then(|record| record.run_info.inputs),
            output,
            text,
            error,
            duration,
            tokens,
        }))
    }
}

/// An object's members as one text, for a table.
pub(crate) fn members(value: &Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members.clone(),
        other => Map::from_iter([("output".to_owned(), other.clone())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_python_writes_and_json_has_not_is_a_text() {
        assert_eq!(
            value(r#"{"a": NaN, "b": [-Infinity, 1], "c": "NaN \" NaN"}"#),
            json!({ "a": "NaN", "b": ["-Infinity", 1], "c": "NaN \" NaN" })
        );
        assert_eq!(value("{"), json!("{"));
    }
}
