//! Messages of a runner, and who hears them.

use sandbox::Isolation;
use serde::Deserialize;
use serde_json::Value;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    path::PathBuf,
    rc::Rc,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Chain},
    net::unix::OwnedReadHalf,
    sync::mpsc::UnboundedSender,
};

/// The receiver of each run's reports.
pub(super) type Runs = Rc<RefCell<HashMap<String, UnboundedSender<What>>>>;

/// A message of a runner.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Said {
    Process {
        pid: i32,
        start: u64,
    },
    Cannot {
        cannot: String,
    },
    /// It comes with the sockets of its network.
    Network {
        #[allow(dead_code, reason = "the sockets are what counts")]
        network: bool,
    },
    NoNetwork {
        no_network: String,
    },
    Groups {
        groups: Vec<PathBuf>,
    },
    Isolated {
        isolated: Isolation,
    },
    Ready {
        #[allow(dead_code, reason = "the word is what counts")]
        ready: Value,
    },
    Failed {
        failed: String,
    },
    Cold {
        cold: String,
    },
    Warm {
        warm: bool,
    },
    Of(About),
}

/// A message of a runner about a run.
#[derive(Debug, Deserialize)]
pub(crate) struct About {
    of: String,
    #[serde(flatten)]
    pub(crate) what: What,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum What {
    /// Lines of standard output; the last goes on in the next such word if `goes_on`.
    Out {
        out: Vec<String>,
        #[serde(default)]
        goes_on: bool,
    },
    Err {
        err: Vec<String>,
        #[serde(default)]
        goes_on: bool,
    },
    /// The output of a line of data as JSON text, which may hold what [`Value`] cannot.
    Line {
        line: u64,
        number: i64,
        text: Option<String>,
        wrong: Option<contract::Failure>,
        /// Promptflow's records of it, and of its nodes by name, as JSON texts.
        #[serde(default)]
        record: Option<String>,
        #[serde(default)]
        nodes: Vec<(String, String)>,
    },
    /// Spans that have ended, as JSON texts.
    Spans {
        spans: Vec<String>,
    },
    /// A piece of an output that is streamed.
    Chunk {
        chunk: Piece,
    },
    /// The records of the aggregation's nodes.
    Nodes {
        nodes: Vec<(String, String)>,
    },
    Metrics {
        metrics: String,
    },
    Done {
        done: Value,
        crashed: Option<i32>,
    },
}

/// A piece of an output before the run's end; its bounds are in `stream.py`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Piece {
    /// The outputs that come whole, as a JSON text, and the names of those that come in pieces.
    Begins {
        outputs: Option<String>,
        names: Vec<String>,
    },
    GoesOn {
        name: String,
        text: String,
    },
}

async fn next(reader: &mut Reader) -> Result<Option<Said>, String> {
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line).await {
        Ok(0) => Ok(None),
        Ok(_) => read(&line).map(Some),
        Err(_) => Ok(None),
    }
}

pub(super) fn read(line: &[u8]) -> Result<Said, String> {
    serde_json::from_slice(line).map_err(|error| format!("it says what is not known here: {error}"))
}

/// The stream of a runner's messages: first what was read beyond its first ones.
pub(super) type Reader = BufReader<Chain<io::Cursor<Vec<u8>>, OwnedReadHalf>>;

#[expect(clippy::cognitive_complexity, reason = "it counts what the macros of the log become")]
pub(super) async fn listen(mut reader: Reader, runs: Runs, dead: Rc<Cell<bool>>) {
    // However this ends, each waiter for a run is told.
    let _end = Ending(Rc::clone(&runs), dead);
    loop {
        match next(&mut reader).await {
            Ok(Some(Said::Of(About { of, what }))) => {
                let ends = matches!(what, What::Done { .. });
                let mut runs = runs.borrow_mut();
                if let Some(run) = runs.get(&of) {
                    // The run's own task may have ended; then nobody wants it.
                    let _ = run.send(what);
                }
                if ends {
                    runs.remove(&of);
                }
            }
            Ok(Some(Said::Cold { cold })) => tracing::warn!(
                why = cold,
                "the flow runtime does not load: each run is a process of its own"
            ),
            Ok(Some(Said::Warm { warm })) => tracing::debug!(warm, "the runner has loaded the flow runtime"),
            Ok(Some(Said::Failed { failed })) => tracing::error!(failed, "the runner has failed"),
            Ok(Some(_)) => {}
            Ok(None) => break,
            // The run of that word would never end, so all runs there end now.
            Err(error) => {
                tracing::error!(error, "the runner sent an unknown word, and is ended");
                break;
            }
        }
    }
}

/// Ends the runs of a runner that nobody hears any more.
struct Ending(Runs, Rc<Cell<bool>>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.1.set(true);
        self.0.borrow_mut().clear();
    }
}

#[cfg(test)]
mod fuzzed {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn any_bytes_of_a_runner_are_words_or_errors_and_end_with_its_socket() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let seeds = [
            r#"{"pid":7,"start":12} {"groups":["/a"]} {"isolated":{"tier":"A","not_held":[]}} {"ready":{}}"#,
            r#"{"of":"r","out":["a","b"]} {"of":"r","err":[""]} {"of":"x","out":[]}"#,
            r#"{"of":"r","line":0,"output":{"a":1.5},"wrong":{"error":"A.B","message":"c"}}"#,
            r#"{"of":"r","spans":["{}"]} {"of":"r","spans":[]}"#,
            r#"{"of":"r","chunk":{"begins":{"outputs":"{}","names":["a"]}}} {"of":"r","chunk":{"goes_on":{"name":"a","text":"b"}}}"#,
            r#"{"of":"r","done":{"lines":1,"failed":0,"exit_code":0},"crashed":-9} {"cannot":"c"} {"failed":"f"} {"cold":"c"} {"warm":true}"#,
        ]
        .map(|text| (text.replace("} {", "}\n{") + "\n").into_bytes());
        let words = [
            r#""of":"r""#,
            r#""line":"#,
            r#""done":"#,
            r#""out":"#,
            "\n",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "18446744073709551615",
        ];
        fuzz::fuzz("the runner's socket", &seeds, &words, |bytes| {
            runtime.block_on(async {
                let (mut inside, outside) = tokio::net::UnixStream::pair().unwrap();
                let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
                let runs = Rc::new(RefCell::new(HashMap::from([("r".to_owned(), sender)])));
                let dead = Rc::new(Cell::new(false));
                let (reader, _writer) = outside.into_split();
                let first = io::Cursor::new(Vec::new());
                let listening = listen(BufReader::new(first.chain(reader)), Rc::clone(&runs), Rc::clone(&dead));
                // A listener that has heard enough leaves.
                let speaking = async move { drop(inside.write_all(bytes).await) };
                tokio::join!(listening, speaking);
                assert!(dead.get() && runs.borrow().is_empty());
                // The run hears an end, whatever was said.
                while heard.recv().await.is_some() {}
            });
        });
    }
}
