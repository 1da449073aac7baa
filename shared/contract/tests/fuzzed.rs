//! Any bytes as a message are read or refused; what was read is the same when it is written and
//! read again.

use contract::{
    agent::{AgentCommand, Greeting, Report, SignedBody},
    command::Command,
    driver::ComputeRequest,
    http::Request,
    notice::Notice,
    packages::{InstallRow, PackagesRow},
    row::{LogRow, OperationRow, RunRow, SessionRow},
    snapshot::Address,
    step::{ExecutionInput, StepMessage},
    tick::Tick,
    webhook::{DeliveryRow, WebhooksRow},
};
use fuzz::fuzz;
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, path::Path};

/// All samples, valid and invalid.
fn samples() -> Vec<Vec<u8>> {
    let (mut found, mut folders) = (
        Vec::new(),
        vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events")],
    );
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") && !path.ends_with("schema.json") {
                found.push(fs::read(path).unwrap());
            }
        }
    }
    assert!(found.len() > 50, "{}", found.len());
    found
}

fn twice<T: DeserializeOwned + Serialize>(text: &str) {
    if let Ok(value) = serde_json::from_str::<T>(text) {
        let written = serde_json::to_string(&value).expect("a message is always JSON");
        let read: T = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
    }
}

#[test]
fn any_bytes_as_a_message_are_read_or_refused_and_read_the_same_again() {
    let words = [
        "\"",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"command\":",
        "\"flow\":",
        "\"report\":",
        "null",
        "-0",
        "1e400",
        "\\u0000",
        "4294967296",
    ];
    fuzz("a message", &samples(), &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = Command::read(&text);
        let _ = StepMessage::read(&text);
        let _ = Address::read(&text).map(|address| address.to_string());
        let _ = lifecycle::size::size(&text);
        for read in [
            twice::<Command>,
            twice::<StepMessage>,
            twice::<ExecutionInput>,
            twice::<Tick>,
            twice::<Report>,
            twice::<SignedBody>,
            twice::<AgentCommand>,
            twice::<Greeting>,
            twice::<ComputeRequest>,
            twice::<Request>,
            twice::<Notice>,
            twice::<SessionRow>,
            twice::<OperationRow>,
            twice::<RunRow>,
            twice::<LogRow>,
            twice::<WebhooksRow>,
            twice::<DeliveryRow>,
            twice::<PackagesRow>,
            twice::<InstallRow>,
        ] {
            read(&text);
        }
    });
}
