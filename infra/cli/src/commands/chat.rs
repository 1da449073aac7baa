//! `pfsession chat`.

use super::turns::{Asked, Turns};
use crate::{
    command::Execute,
    global::{Done, Service},
    options::{Values, values},
    terminal::{fit, note},
    text::{out, out_json, out_piece},
    trouble::{FAILED, Trouble, USAGE},
};
use clap::Args;
use contract::{Code, Failure, agent::Chunk};
use serde_json::{Map, Value};
use std::io::{BufRead, IsTerminal, stdin};

/// Chat with a flow: each line that you type is a question, sent with the chat's history
#[derive(Args, Debug)]
#[command(after_help = "\
Each answer is a run in the flow's session. The flow's file marks question, history and answer (is_chat_input, is_chat_history, is_chat_output). An \
empty line or Ctrl-D ends the chat. A streamed answer is printed as it comes.

Examples:
  pfsession chat ./my-chat-flow
  pfsession chat ./my-chat-flow --inputs language=French
  echo 'how are you?' | pfsession chat ./my-flow --chat-input question")]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// The input that takes the question, if the flow's file marks none
    #[arg(long, value_name = "NAME")]
    pub(crate) chat_input: Option<String>,
    /// A value of another input: NAME=TEXT, NAME:=JSON, or a file of JSON with several
    #[arg(long, value_name = "NAME=VALUE", value_parser = values, num_args = 1..)]
    pub(crate) inputs: Vec<Values>,
}

/// Each line of standard input is an input; what was said before goes with it.
impl Execute for Chat {
    /// The outputs of one answer.
    type Json = Map<String, Value>;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let asked = &self.asked;
        let no_chat = |what: &str, next: &str| {
            let message = format!("{} has no {what}, so nobody can chat with it", asked.flow.display());
            Trouble::new(USAGE, Code::ChatNotAChat, message).next(next)
        };
        let signature = flow::signature(&asked.flow).map_err(|failure| Trouble::of(USAGE, failure))?;
        let said = self
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
            let line = line.map_err(|error| Trouble::new(FAILED, Code::ChatNotRead, error.to_string()))?;
            if line.trim().is_empty() {
                break;
            }
            let mut inputs: Map<String, Value> = Values::of_all(&self.inputs).into_iter().collect();
            inputs.insert(said.clone(), line.clone().into());
            if let Some(history) = &history {
                inputs.insert(history.clone(), before.clone().into());
            }
            let answered = match service.global.json {
                true => turns.ask(inputs).inspect(out_json),
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
