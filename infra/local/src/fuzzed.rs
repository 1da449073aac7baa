//! Any bytes as a request to a protocol that this host speaks are answered, and the next request is
//! too.

use crate::{
    access::Caller,
    asl::Definition,
    faults::Faults,
    machine::Machine,
    queues::Queues,
    sqs::Sqs,
    store::{QUEUES, Store},
    table::Table,
};
use axum::body::Bytes;
use fuzz::fuzz;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A host's services, over a state folder of their own.
struct Bench {
    runtime: tokio::runtime::Runtime,
    sqs: Sqs,
    machine: Machine,
    table: Table,
    _folder: tempfile::TempDir,
    _open: tokio::sync::watch::Sender<bool>,
}

const PREFIX: &str = "http://localhost/000000000000/";

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (open, closing) = tokio::sync::watch::channel(false);
        let store = Arc::new(Store::open(&folder.path().join("queues.db"), QUEUES).expect("a store"));
        let faults = Arc::new(Faults::default());
        let queues = Arc::new(Queues::open(store.clone(), faults.clone(), closing).expect("queues"));
        let urls: BTreeMap<String, String> = ["StartSession", "InstallPackages", "StopSession"]
            .map(|name| (format!("{name}QueueUrl"), format!("{PREFIX}{name}")))
            .into();
        for name in ["StartSession", "InstallPackages", "StopSession", "q"] {
            queues
                .ensure(name, crate::queues::Settings::default())
                .expect("a queue");
        }
        let definition = Definition::read(include_str!("../../lifecycle.asl.json"), &urls).expect("the lifecycle");
        let keys = json!({
            "TableName": "table", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
            "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
        });
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            sqs: Sqs {
                queues: queues.clone(),
                prefix: PREFIX.to_owned(),
            },
            machine: Machine::new("lifecycle", definition, store, queues, faults),
            table: Table::open(&folder.path().join("table.db"), &[(keys, None)]).expect("a table"),
            _folder: folder,
            _open: open,
        }
    }
}

/// A request as a seed has it: the operation, and behind a line break its body.
fn seeds(requests: &[(&str, Value)]) -> Vec<Vec<u8>> {
    let seed = |(operation, body): &(&str, Value)| format!("{operation}\n{body}").into_bytes();
    requests.iter().map(seed).collect()
}

fn request(bytes: &[u8]) -> (String, Bytes) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let operation = String::from_utf8_lossy(&bytes[..at]).into_owned();
    (
        operation,
        Bytes::copy_from_slice(bytes.get(at + 1..).unwrap_or_default()),
    )
}

const WORDS: [&str; 12] = [
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "-1",
    "4611686018427387904",
    "1e400",
    "\\ud800",
];

#[test]
fn any_bytes_as_a_request_to_sqs_are_answered() {
    let bench = Bench::new();
    let url = format!("{PREFIX}q");
    let attribute = json!({ "a": { "DataType": "String", "StringValue": "é" }, "b": { "DataType": "Binary", "BinaryValue": "AA==" } });
    let seeds = seeds(&[
        (
            "SendMessage",
            json!({ "QueueUrl": url, "MessageBody": "x", "DelaySeconds": 1, "MessageAttributes": attribute }),
        ),
        (
            "SendMessageBatch",
            json!({ "QueueUrl": url, "Entries": [{ "Id": "1", "MessageBody": "x" }] }),
        ),
        (
            "ReceiveMessage",
            json!({ "QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 0, "VisibilityTimeout": 5, "MessageAttributeNames": ["All"], "AttributeNames": ["All"] }),
        ),
        (
            "DeleteMessage",
            json!({ "QueueUrl": url, "ReceiptHandle": "00000000-0000-0000-0000-000000000000" }),
        ),
        (
            "DeleteMessageBatch",
            json!({ "QueueUrl": url, "Entries": [{ "Id": "1", "ReceiptHandle": "x" }] }),
        ),
        (
            "ChangeMessageVisibility",
            json!({ "QueueUrl": url, "ReceiptHandle": "x", "VisibilityTimeout": 43200 }),
        ),
        (
            "GetQueueAttributes",
            json!({ "QueueUrl": url, "AttributeNames": ["All"] }),
        ),
        (
            "SetQueueAttributes",
            json!({ "QueueUrl": url, "Attributes": { "VisibilityTimeout": "1", "RedrivePolicy": "{\"maxReceiveCount\":1}" } }),
        ),
        (
            "CreateQueue",
            json!({ "QueueName": "q2.fifo", "Attributes": { "FifoQueue": "true", "ContentBasedDeduplication": "true" } }),
        ),
        ("GetQueueUrl", json!({ "QueueName": "q" })),
        ("ListQueues", json!({ "QueueNamePrefix": "q", "MaxResults": 1 })),
    ]);
    fuzz("SQS", &seeds, &WORDS, |bytes| {
        let (operation, body) = request(bytes);
        for caller in [
            Caller::User("ann".into()),
            Caller::Agent {
                flow: "f".into(),
                generation: 1,
            },
        ] {
            // A receive may wait as long as it says.
            let answer = bench.sqs.answer(&caller, &operation, &body);
            let _ = bench
                .runtime
                .block_on(async { tokio::time::timeout(Duration::from_millis(20), answer).await });
        }
    });
    let nothing = Bytes::from_static(b"{}");
    let list = bench.sqs.answer(&Caller::Driver, "ListQueues", &nothing);
    assert!(bench.runtime.block_on(list).is_ok());
}

#[test]
fn any_bytes_as_a_request_to_step_functions_are_answered() {
    let bench = Bench::new();
    let arn = Machine::arn_of("lifecycle");
    let execution = arn.replace("stateMachine", "execution") + ":one";
    let seeds = seeds(&[
        (
            "StartExecution",
            json!({ "stateMachineArn": arn, "name": "one", "input": "{\"flow\":\"f\"}" }),
        ),
        ("SendTaskSuccess", json!({ "taskToken": "x", "output": "{}" })),
        (
            "SendTaskFailure",
            json!({ "taskToken": "x", "error": "A.B", "cause": "c" }),
        ),
        ("SendTaskHeartbeat", json!({ "taskToken": "x" })),
        ("DescribeExecution", json!({ "executionArn": execution })),
        (
            "GetExecutionHistory",
            json!({ "executionArn": execution, "maxResults": 10, "reverseOrder": true }),
        ),
        (
            "ListExecutions",
            json!({ "stateMachineArn": arn, "statusFilter": "RUNNING" }),
        ),
        (
            "StopExecution",
            json!({ "executionArn": execution, "error": "e", "cause": "c" }),
        ),
    ]);
    fuzz("Step Functions", &seeds, &WORDS, |bytes| {
        let (operation, body) = request(bytes);
        let _ = bench.machine.answer(&Caller::User("ann".into()), &operation, &body);
    });
    assert!(bench.machine.running().is_ok());
}

#[test]
fn any_bytes_as_a_request_to_dynamodb_are_answered() {
    let bench = Bench::new();
    let key = json!({ "pk": { "S": "k" } });
    let item = json!({ "pk": { "S": "k" }, "n": { "N": "1" }, "l": { "L": [{ "BOOL": true }, { "NULL": true }] }, "b": { "SS": ["x"] } });
    let seeds = seeds(&[
        (
            "PutItem",
            json!({ "TableName": "table", "Item": item, "ConditionExpression": "attribute_not_exists(pk) OR #n < :v", "ExpressionAttributeNames": { "#n": "n" }, "ExpressionAttributeValues": { ":v": { "N": "5" } } }),
        ),
        (
            "GetItem",
            json!({ "TableName": "table", "Key": key, "ConsistentRead": true, "ProjectionExpression": "n, l" }),
        ),
        (
            "UpdateItem",
            json!({ "TableName": "table", "Key": key, "UpdateExpression": "SET n = if_not_exists(n, :z) + :o REMOVE b ADD m :o", "ExpressionAttributeValues": { ":z": { "N": "0" }, ":o": { "N": "1" } } }),
        ),
        ("DeleteItem", json!({ "TableName": "table", "Key": key })),
        (
            "Query",
            json!({ "TableName": "table", "KeyConditionExpression": "pk = :k", "FilterExpression": "begins_with(b, :k) and size(l) between :o and :o", "ExpressionAttributeValues": { ":k": { "S": "k" }, ":o": { "N": "1" } }, "Limit": 1 }),
        ),
        (
            "Scan",
            json!({ "TableName": "table", "Limit": 1, "ExclusiveStartKey": key }),
        ),
        (
            "TransactWriteItems",
            json!({ "TransactItems": [{ "Put": { "TableName": "table", "Item": item } }, { "Delete": { "TableName": "table", "Key": { "pk": { "S": "j" } } } }] }),
        ),
        (
            "BatchWriteItem",
            json!({ "RequestItems": { "table": [{ "PutRequest": { "Item": item } }] } }),
        ),
        (
            "BatchGetItem",
            json!({ "RequestItems": { "table": { "Keys": [key] } } }),
        ),
    ]);
    let words = [
        "\"S\"",
        "\"N\"",
        "\"M\"",
        " AND ",
        " OR ",
        "NOT ",
        "SET ",
        "REMOVE ",
        "attribute_exists(",
        ")",
        "(",
        "#n",
        ":v",
        " = ",
        "99999999999999999999999999999999999999999",
    ];
    let words: Vec<&str> = WORDS.into_iter().chain(words).collect();
    fuzz("DynamoDB", &seeds, &words, |bytes| {
        let (operation, body) = request(bytes);
        let _ = bench.table.answer(&Caller::User("ann".into()), &operation, &body);
    });
    let list = bench
        .table
        .answer(&Caller::Driver, "ListTables", &Bytes::from_static(b"{}"));
    assert!(list.status().is_success());
}
