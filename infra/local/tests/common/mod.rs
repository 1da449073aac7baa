//! A host as a child process, with the functions that stand in for the real ones.

#![allow(dead_code, reason = "each test file uses a part of it")]

use aws_credential_types::Credentials;
use aws_sdk_sqs::config::{BehaviorVersion, Region, SharedCredentialsProvider, retry::RetryConfig};
use local::HostFile;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};
use tempfile::TempDir;

/// The program that stands in: an example, which `cargo test` builds.
pub(crate) fn stand_in() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let program = profile.join("examples/stand_in");
    assert!(
        program.is_file(),
        "{} is missing: cargo build -p local --example stand_in",
        program.display()
    );
    program
}

/// A host that runs until it is dropped.
pub(crate) struct Host {
    child: Child,
    pub(crate) file: HostFile,
    pub(crate) folder: PathBuf,
}

impl Host {
    pub(crate) fn start(folder: &TempDir) -> Self {
        Self::start_with(folder, &[])
            .unwrap_or_else(|status| panic!("the host has ended: {status}\n{}", log(folder.path())))
    }

    /// Starts a host with these environment variables.
    pub(crate) fn start_with(folder: &TempDir, environment: &[(&str, &str)]) -> Result<Self, ExitStatus> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.path().join("host.err"))
            .expect("a log");
        let mut child = Command::new(stand_in())
            .arg("host")
            .arg(folder.path().join("state"))
            // Ticks are not what these tests are about.
            .env("PFSESSION_SWEEP_MS", "3600000")
            .env_remove("PFSESSION_FAULTS")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a host");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("a line");
        if line.is_empty() {
            return Err(child.wait().expect("its end"));
        }
        let file = std::fs::read(folder.path().join("state/host.json")).expect("host.json");
        let file: HostFile = serde_json::from_slice(&file).expect("host.json is JSON");
        assert_eq!(file.endpoint, line.trim());
        Ok(Self {
            child,
            file,
            folder: folder.path().to_owned(),
        })
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        assert_eq!(self.child.wait().expect("its end").signal(), Some(9));
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }

    pub(crate) fn log(&self) -> String {
        log(&self.folder)
    }

    pub(crate) fn key(&self) -> (String, String) {
        (self.file.access_key_id.clone(), self.file.secret_access_key.clone())
    }

    pub(crate) fn sqs(&self) -> aws_sdk_sqs::Client {
        self.sqs_as(self.key())
    }

    pub(crate) fn sqs_as(&self, key: (String, String)) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.file.region.clone()))
            .endpoint_url(&self.file.endpoint)
            .credentials_provider(credentials(key))
            .retry_config(RetryConfig::standard())
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    pub(crate) fn sfn_as(&self, key: (String, String)) -> aws_sdk_sfn::Client {
        let config = aws_sdk_sfn::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.file.region.clone()))
            .endpoint_url(&self.file.endpoint)
            .credentials_provider(credentials(key))
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        aws_sdk_sfn::Client::from_conf(config.build())
    }

    pub(crate) fn dynamo_as(&self, key: (String, String)) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.file.region.clone()))
            .endpoint_url(&self.file.endpoint)
            .credentials_provider(credentials(key))
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    pub(crate) fn queue_url(&self, name: &str) -> String {
        self.file.commands_queue_url.replace("commands.fifo", name)
    }

    /// Asks over HTTP: the status, and the body.
    pub(crate) fn http(&self, request: &str) -> (u16, String) {
        self.http_at(self.file.endpoint.trim_start_matches("http://"), request)
    }

    /// The same at another of its ports.
    pub(crate) fn http_at(&self, place: &str, request: &str) -> (u16, String) {
        let mut connection = TcpStream::connect(place).expect("a connection");
        let request = format!("{}\r\nHost: localhost\r\nConnection: close\r\n\r\n", request.trim());
        connection.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        (
            status,
            answer
                .split_once("\r\n\r\n")
                .map(|(_, body)| body.to_owned())
                .unwrap_or_default(),
        )
    }
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("host.err")).unwrap_or_default()
}

fn credentials((id, secret): (String, String)) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new(id, secret, None, None, "test"))
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}
