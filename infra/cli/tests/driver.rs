//! `pfsession driver`, where it cannot serve: it says why, and what to do. What it does where it
//! can is in `tests/on-aws`.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Output, Stdio},
    thread,
};

/// Starts the driver with nothing but these variables, and waits for its end.
fn driver(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let Output { status, stderr, .. } = Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_pfsession"), "driver"])
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("PFSESSION_STATE", folder.path())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Answers every request as SQS refuses one.
fn refusing(status: u16, code: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 8192]);
            let body = format!(r#"{{"__type":"com.amazonaws.sqs#{code}","message":"no"}}"#);
            let head = "content-type: application/x-amz-json-1.0\r\nconnection: close";
            let _ = write!(
                stream,
                "HTTP/1.1 {status} No\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    endpoint
}

/// The variables, the failure's stable name, and a word of what is said.
type Case<'a> = (Vec<(&'a str, &'a str)>, &'a str, &'a str);

#[test]
fn a_driver_that_cannot_serve_says_why_and_what_to_do() {
    let key = [
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIATEST"),
        ("AWS_SECRET_ACCESS_KEY", "very-secret"),
    ];
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}");
    let refused = refusing(403, "InvalidClientTokenId");
    let empty = refusing(400, "QueueDoesNotExist");
    let other = refusing(404, "WhatIsThis");
    let at = |endpoint| [key.as_slice(), &[("AWS_ENDPOINT_URL", endpoint)]].concat();
    let cases: &[Case] = &[
        (vec![], "Driver.NoRegion", "AWS_REGION"),
        (
            vec![("AWS_REGION", "eu-west-1")],
            "Driver.NoCredentials",
            "aws configure",
        ),
        (at(&closed), "Driver.Unreachable", "AWS_ENDPOINT_URL"),
        (at(&refused), "Driver.Refused", "InvalidClientTokenId"),
        (at(&empty), "Driver.NoQueue", "mine-compute-requests"),
        (at(&other), "Driver.Failed", "404"),
    ];
    for (variables, code, word) in cases {
        let (exit, said) = driver(variables, &["--queue-prefix", "mine-"]);
        assert_eq!(exit, Some(3), "{code}: {said}");
        assert!(said.contains(code) && said.contains(word), "{code}: {said}");
        assert!(
            !said.contains("very-secret") && !said.contains("panicked"),
            "{code}: {said}"
        );
    }
}
