//! A flow that is asked again and again: each time is a run of its own, in the session that the flow has.

use crate::{
    args,
    client::Client,
    commands::{self, Service},
    pieces::Heard,
    snapshot,
    terminal::{fit, note},
    text::{out, out_piece},
    trouble::{FAILED, Trouble, USAGE},
    watch,
    wish::{self, Flow, RunOrder},
};
use contract::{
    Failure,
    agent::{Chunk, OutputLine},
    command::{Command, RunWish, Wanted, Wish},
    http::SessionView,
    row::{OperationStatus, RunRow, RunStatus},
};
use flow::Signature;
use serde_json::{Map, Value};
use std::{fs, path::Path, sync::Arc, thread, time::Duration};

/// The shortest time between two extensions of a session.
const SHORTEST: Duration = Duration::from_secs(5);

/// A flow, and what each of its runs has in common.
pub(crate) struct Turns {
    client: Arc<Client>,
    flow: Flow,
    wish: RunWish,
    wanted: Wanted,
    pub(crate) signature: Signature,
}

impl Turns {
    /// Starts the flow's session, and has it live while this program does.
    ///
    /// # Errors
    ///
    /// The fault of the flow, and why there is no session.
    pub(crate) fn begin(service: &Service<'_>, asked: &args::Asked) -> Result<Self, Box<Trouble>> {
        let signature = flow::signature(&asked.flow).map_err(|failure| Trouble::of(USAGE, failure))?;
        let client = service.client()?;
        let RunOrder {
            flow,
            mut wanted,
            mut wish,
            ..
        } = wish::run_order(&asked.as_run(), &client.user)?;
        snapshot::seen(&client, &flow, &mut wanted, Some(&mut wish))?;
        let id = flow.new_id(Some("start"));
        let accepted = client.send(&Command {
            id: id.clone(),
            flow: flow.reference.clone(),
            principal: None,
            wish: Wish::Start {
                settings: wanted.clone(),
            },
        })?;
        // Not `operate`, by which Ctrl-C would mean something else from here on.
        let row = watch::operation(&client, &accepted.flow, &id)?;
        if row.status != OperationStatus::Succeeded {
            let failure = row.failure.unwrap_or_else(|| {
                Failure::new(
                    "Session.Canceled",
                    "Something else was wanted of the session meanwhile.",
                )
            });
            return Err(Trouble::of(FAILED, failure)
                .what(format!("the session of {} did not start", flow.typed))
                .output(format!("pfsession logs {id}")));
        }
        let turns = Self {
            client,
            flow,
            wish,
            wanted,
            signature,
        };
        turns.keep_alive();
        Ok(turns)
    }

    /// Extends the session at every third of its idle time, from a thread of its own.
    fn keep_alive(&self) {
        let (client, flow) = (Arc::clone(&self.client), self.flow.clone());
        thread::spawn(move || {
            loop {
                let view: Option<SessionView> = client.find(&format!("/v1/sessions/{}", flow.key())).ok().flatten();
                let idle = view.as_ref().map_or(60_000, |view| view.settings.idle.value);
                thread::sleep(Duration::from_millis(idle / 3).max(SHORTEST));
                // One that somebody has stopped is started by the next run.
                if view.is_some() {
                    let settings = Wanted::default();
                    let _ = client.send(&Command {
                        id: flow.new_id(Some("serve")),
                        flow: flow.reference.clone(),
                        principal: None,
                        wish: Wish::Update { settings },
                    });
                }
            }
        });
    }

    /// Asks the flow once.
    ///
    /// # Errors
    ///
    /// Why the run failed.
    pub(crate) fn ask(&self, inputs: Map<String, Value>) -> Result<Map<String, Value>, Failure> {
        let id = self.send(inputs, false)?;
        outputs_of(watch::until_end(&self.client, &id).map_err(|trouble| trouble.failure)?)
    }

    /// Asks the flow once, and hears the pieces of its outputs as they come.
    ///
    /// # Errors
    ///
    /// Why the run failed, also after pieces.
    pub(crate) fn ask_streamed(
        &self,
        inputs: Map<String, Value>,
        mut hear: impl FnMut(Chunk),
    ) -> Result<(Map<String, Value>, Heard), Failure> {
        let id = self.send(inputs, true)?;
        let mut heard = Heard::default();
        let take = |line: &OutputLine| heard.take(line).into_iter().for_each(&mut hear);
        let row = watch::listen(&self.client, &id, take).map_err(|trouble| trouble.failure)?;
        outputs_of(row).map(|outputs| (outputs, heard))
    }

    /// Sends a run with these inputs. Returns its id.
    fn send(&self, inputs: Map<String, Value>, stream: bool) -> Result<String, Failure> {
        let id = self.flow.new_id(None);
        let command = Command {
            id: id.clone(),
            flow: self.flow.reference.clone(),
            principal: None,
            wish: Wish::Run {
                settings: self.wanted.clone(),
                run: RunWish {
                    inputs: inputs.into_iter().collect(),
                    stream,
                    ..self.wish.clone()
                },
            },
        };
        self.client.send(&command).map_err(|trouble| trouble.failure)?;
        Ok(id)
    }
}

/// The outputs of a run over one line.
fn outputs_of(row: RunRow) -> Result<Map<String, Value>, Failure> {
    let result = row.result.unwrap_or_default();
    if row.status != RunStatus::Completed || result.failed_lines > 0 {
        let failure = row.failure.or(result.failure);
        return Err(failure.unwrap_or_else(|| Failure::new("Run.Canceled", "The run was canceled.")));
    }
    let there = || {
        let text = fs::read_to_string(Path::new(&result.folder).join("output/outputs.jsonl")).ok()?;
        serde_json::from_str(text.lines().next()?).ok()
    };
    match result.outputs.first().cloned().or_else(there) {
        Some(Value::Object(outputs)) => Ok(outputs),
        _ => Err(Failure::new(
            "Run.FilesElsewhere",
            format!("The output is in {}, which cannot be read here.", result.folder),
        )),
    }
}

/// Talks with a flow: each line of standard input is said to it, with what was said before.
pub(crate) fn chat(service: &Service<'_>, typed: &args::Chat) -> commands::Done {
    let asked = &typed.asked;
    use std::io::{BufRead, IsTerminal, stdin};
    let no_chat = |what: &str, next: &str| {
        let message = format!("{} has no {what}, so nobody can chat with it", asked.flow.display());
        Trouble::new(USAGE, "Chat.NotAChat", message).next(next)
    };
    let signature = flow::signature(&asked.flow).map_err(|failure| Trouble::of(USAGE, failure))?;
    let said = typed
        .chat_input
        .clone()
        .or(signature.chat_input().map(|field| field.name.clone()));
    let said = said.ok_or_else(|| {
        no_chat(
            "chat input",
            "mark one in the flow's file, is_chat_input: true, or name it: --chat-input NAME",
        )
    })?;
    let turns = Turns::begin(service, asked)?;
    let history = turns.signature.chat_history().map(|field| field.name.clone());
    let answer = turns.signature.chat_output().map(|field| field.name.clone());
    if stdin().is_terminal() {
        note!("Say something; an empty line or Ctrl-D ends the chat.");
    }
    let mut before = Vec::new();
    for line in stdin().lock().lines() {
        let line = line.map_err(|error| Trouble::new(FAILED, "Chat.NotRead", error.to_string()))?;
        if line.trim().is_empty() {
            break;
        }
        let mut inputs: Map<String, Value> = typed.inputs.iter().cloned().collect();
        inputs.insert(said.clone(), line.clone().into());
        if let Some(history) = &history {
            inputs.insert(history.clone(), before.clone().into());
        }
        let answered = match service.global.json {
            true => turns.ask(inputs).inspect(crate::text::out_json),
            false => answer_aloud(&turns, inputs, answer.as_deref()),
        };
        let outputs = match answered {
            Ok(outputs) => outputs,
            Err(failure) => {
                // It may be asked otherwise.
                note!("{failure}");
                continue;
            }
        };
        before.push(serde_json::json!({ "inputs": { said.as_str(): line }, "outputs": outputs }));
    }
    Ok(0)
}

/// Asks the flow, and prints its answer: what comes in pieces as it comes.
///
/// * `answer`: the output that is the answer; without one it is the first.
fn answer_aloud(
    turns: &Turns,
    inputs: Map<String, Value>,
    answer: Option<&str>,
) -> Result<Map<String, Value>, Failure> {
    let (mut spoken_of, mut is_open) = (answer.map(str::to_owned), false);
    let asked = turns.ask_streamed(inputs, |chunk| {
        if let Chunk::GoesOn { name, texts } = chunk
            && *spoken_of.get_or_insert_with(|| name.clone()) == name
        {
            is_open = true;
            out_piece(&texts.concat());
        }
    });
    let (outputs, heard) = asked.inspect_err(|_| {
        if is_open {
            out_piece("\n");
        }
    })?;
    let spoken = spoken_of
        .as_ref()
        .and_then(|name| outputs.get_key_value(name))
        .or(outputs.iter().next());
    match spoken {
        Some((name, Value::String(text))) => match heard.rest(name, text) {
            Some(rest) => {
                out_piece(&fit(rest));
                out_piece("\n");
            }
            None => out(&format!("\n{text}")),
        },
        Some((_, value)) => out(&value.to_string()),
        None => {}
    }
    Ok(outputs)
}
