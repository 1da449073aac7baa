//! The whole template in `ministack`, as `sam deploy` puts it there, and this machine as its
//! compute instance.

use crate::{ACCOUNT, Emulator, REGION};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::{Role, http::Claims, snapshot::Offer};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Cursor, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use whole_system::{Api, Machine, lambdas, root, wait_for};

/// Its user.
pub const USER: &str = "ann";
/// Prefix of the names of its queues, functions and state machine: the template's default.
const PREFIX: &str = "pfsession-";
/// The tools that a deployment needs.
pub const TOOLS: [&str; 3] = ["ministack", "sam", "aws"];

/// A deployment, and the machine on which its sessions run.
pub struct Deployment {
    driver: Mutex<Child>,
    /// The driver's machine. Its environments are those of all whole-system tests.
    pub machine: Machine,
    pub emulator: Emulator,
    /// The HTTP front.
    pub url: String,
    pub token: String,
}

impl Deployment {
    /// Deploys, and starts the driver.
    pub fn new(tools: &Path) -> Self {
        let emulator = Emulator::ministack(tools);
        let key = issuer_key();
        let url = deploy(&emulator, &key, "", &[]);
        let mut machine = Machine::new();
        machine.variables.extend(emulator.variables());
        machine.variables.push(("PFSESSION_SERVICE".to_owned(), url.clone()));
        let mut driver = start_driver(&machine, &[]);
        first_line(&mut driver);
        Self {
            driver: Mutex::new(driver),
            machine,
            emulator,
            url,
            token: token(&key),
        }
    }

    /// The HTTP front, as its user.
    pub fn api(&self) -> Api {
        Api::new(&self.url, &self.token, USER)
    }

    /// A folder for a flow that nobody else uses.
    pub fn flow(&self, name: &str) -> PathBuf {
        self.machine.state().join("flows").join(name)
    }

    /// Sends a flow's folder as it is now, as the command line does; gives back its address.
    pub fn sent(&self, folder: &Path) -> String {
        let view = flow::view::list(folder, &flow::include_root(folder)).expect("a flow");
        let packed = flow::snapshot::pack(&view, Cursor::new(Vec::new())).expect("it can be read");
        self.sent_bytes(folder, packed.get_ref())
    }

    /// Sends data of a flow's, likewise.
    pub fn sent_bytes(&self, folder: &Path, bytes: &[u8]) -> String {
        let api = self.api();
        let offer = Offer {
            flow: api.flow(folder),
            digest: snapshots::digest(bytes),
            bytes: bytes.len() as u64,
        };
        let place = api.offer(&offer).expect("a place");
        if let Some(upload) = &place.upload {
            assert_eq!(api.upload(upload, bytes), 200);
        }
        place.address
    }

    /// Starts a session of a flow that was sent.
    pub fn start(&self, id: &str, folder: &Path) {
        self.start_with(id, folder, json!({}));
    }

    /// The same with these settings.
    pub fn start_with(&self, id: &str, folder: &Path, mut settings: Value) {
        let api = self.api();
        settings["folder"] = self.sent(folder).into();
        let command = json!({ "id": id, "flow": api.flow(folder), "command": "start", "settings": settings });
        api.send(&command).expect("it is taken");
    }

    /// Runs `pfsession` as a user of it, to its end; gives back whether it succeeded, and what it
    /// printed and said.
    pub fn pfsession(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = self
            .machine
            .command(arguments)
            .env("PFSESSION_ENDPOINT", &self.url)
            .env("PFSESSION_TOKEN", &self.token)
            .output()
            .expect("pfsession runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    /// Sends commands with boto3, in this order, in one group: each a body, or what is none, and
    /// its deduplication id.
    ///
    /// `ministack` calls every sender by the account's number, which is therefore trusted to say
    /// for whom a command is; so it has to.
    pub fn send(&self, folder: &Path, commands: &[(&str, Value)]) {
        let flow = self.api().flow(folder);
        let for_whom = json!({ "user": { "name": USER, "workspace": flow.workspace, "roles": ["data-scientist"] } });
        let mut python = Command::new(self.emulator.tools.join("python3"))
            .arg(root().join("tests/on-aws/python/send.py"))
            .arg(format!("{PREFIX}commands.fifo"))
            .envs(self.emulator.variables())
            .stdin(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let mut input = python.stdin.take().expect("its input");
        for (id, command) in commands {
            let body = match command {
                Value::Object(command) => {
                    let mut command = command.clone();
                    command.insert("id".to_owned(), (*id).into());
                    command.insert("flow".to_owned(), json!(flow));
                    command.insert("principal".to_owned(), for_whom.clone());
                    Value::Object(command).to_string()
                }
                poison => poison.as_str().unwrap_or_default().to_owned(),
            };
            writeln!(input, "{}", json!([body, flow.key(), id])).expect("it reads");
        }
        drop(input);
        assert!(python.wait().expect("it ends").success());
    }

    /// The rest of sessions on the driver's machine: agents, sandboxes, folders.
    pub fn left(&self) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        for (pid, command) in self.machine.processes() {
            if ![" driver ", " warm "].iter().any(|word| command.contains(word)) {
                left.insert(format!("process {pid}: {command}"));
            }
        }
        let state = self.machine.state().join("driver");
        for flow in entries(&state.join("sessions")) {
            left.extend(
                entries(&flow)
                    .filter(|entry| !entry.ends_with("removed"))
                    .map(|entry| entry.display().to_string()),
            );
        }
        left.extend(entries(&state.join("computes")).map(|entry| entry.display().to_string()));
        left
    }

    /// The bodies of the messages in a queue; they stay there.
    pub fn bodies(&self, queue: &str) -> BTreeSet<String> {
        let bodies = self.emulator.python("bodies.py", &[&format!("{PREFIX}{queue}")]);
        serde_json::from_str(&bodies).expect("a list")
    }

    /// The names of the queues that begin so.
    pub fn queues(&self, prefix: &str) -> BTreeSet<String> {
        let names = self.emulator.python("queues.py", &[&format!("{PREFIX}{prefix}")]);
        names.lines().map(str::to_owned).collect()
    }

    /// The end of an operation's execution, as the state machine says: its status, and its error.
    pub fn execution(&self, operation: &str) -> (String, String) {
        let said = self
            .emulator
            .python("execution.py", &[&format!("{PREFIX}lifecycle"), operation]);
        let (status, error) = said.trim_end().split_once(' ').unwrap_or((said.trim_end(), ""));
        (status.to_owned(), error.to_owned())
    }

    /// Deploys again, with every function changed, and a parameter.
    ///
    /// # Panics
    ///
    /// When a function is what it was.
    pub fn upgrade(&self) {
        let code = || self.emulator.python("code.py", &[PREFIX]);
        let before = code();
        let url = deploy(
            &self.emulator,
            &issuer_key(),
            "another version",
            &["SessionsPerUser=21"],
        );
        assert_eq!(url, self.url, "who uses it need not be told");
        let after = code();
        let before: BTreeSet<&str> = before.lines().collect();
        let same: Vec<&str> = after.lines().filter(|line| before.contains(line)).collect();
        assert!(same.is_empty() && !before.is_empty(), "not replaced: {same:?}");
    }

    /// Deploys again, with compute on EC2 and ECS.
    pub fn have_compute(&self) {
        let network = self.emulator.python("network.py", &[]);
        let further: Vec<&str> = network.lines().collect();
        deploy(&self.emulator, &issuer_key(), "", &further);
    }

    /// Runs lines of the README as somebody types them, to their end, and gives back what they
    /// printed.
    pub fn as_typed(&self, lines: &str) -> String {
        // SAM would ask whether it may. Version 1 of the aws command line asks SQS of AWS itself
        // unless the endpoint is among its arguments.
        let shell = format!(
            "set -euo pipefail\nsam() {{ command sam \"$@\" --no-prompts >&2; }}\naws() {{ command aws --endpoint-url \"$AWS_ENDPOINT_URL\" \"$@\"; }}\n{lines}\n"
        );
        let folder = self.emulator.folder.path().join("deploy");
        let done = Command::new("bash")
            .args(["-c", &shell])
            .current_dir(&folder)
            .env("HOME", &folder)
            .env("SAM_CLI_TELEMETRY", "0")
            .env("PATH", path_with(&self.emulator.tools))
            .envs(self.emulator.variables())
            .output()
            .expect("bash runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{lines}\n{said}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Its resources in the account, one a line.
    pub fn account(&self) -> BTreeSet<String> {
        let left = self.emulator.python("left.py", &["pfsession"]);
        left.lines().map(str::to_owned).collect()
    }

    /// Ends the driver at once, as a power cut does, and starts another one.
    pub fn kill_driver_and_start_another(&self, arguments: &[&str]) -> Value {
        let mut driver = self.driver.lock().expect("no panic has it");
        driver.kill().expect("it is there");
        driver.wait().expect("it ends");
        let mut started = start_driver(&self.machine, arguments);
        let said = first_line(&mut started);
        *driver = started;
        said
    }

    /// Tells the driver to leave, and waits for its end.
    pub fn end_driver(&self) -> bool {
        let mut driver = self.driver.lock().expect("no panic has it");
        let told = Command::new("kill")
            .args(["-TERM", &driver.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(told.success());
        driver.wait().expect("it ends").success()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // What it leaves ends with its machine.
        if let Ok(driver) = self.driver.get_mut() {
            let _ = driver.kill();
            let _ = driver.wait();
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn start_driver(machine: &Machine, arguments: &[&str]) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(machine.state().join("driver.log"))
        .expect("a log");
    machine
        .command(&[&["driver", "--json"], arguments].concat())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("pfsession runs")
}

/// The driver's line once it serves.
fn first_line(driver: &mut Child) -> Value {
    let mut line = String::new();
    BufReader::new(driver.stdout.take().expect("its output"))
        .read_line(&mut line)
        .expect("a line");
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("the driver does not serve: {e}: {line:?}"))
}

/// Puts the template there, with zipped binaries, and gives back the address of the HTTP front.
///
/// The zips are those that `infra/package.sh` made, in the folder that `PFSESSION_LAMBDA` names;
/// else they are made of this profile's binaries.
///
/// * `mark`: written behind each binary, so that the same sources are another version.
fn deploy(emulator: &Emulator, key: &SigningKey, mark: &str, further: &[&str]) -> String {
    let folder = emulator.folder.path().join("deploy");
    fs::create_dir_all(folder.join("infra")).expect("a folder");
    for file in entries(&root().join("infra")).filter(|path| path.is_file()) {
        fs::copy(&file, folder.join("infra").join(file.file_name().expect("a name"))).expect("copied");
    }
    let zips = folder.join("target/lambda");
    fs::create_dir_all(&zips).expect("a folder");
    let built = std::env::var_os("PFSESSION_LAMBDA").map(PathBuf::from);
    for function in entries(&root().join("functions")) {
        let name = function.file_name().expect("a name").to_str().expect("text");
        let zip = zips.join(format!("{name}.zip"));
        let built = built.as_ref().map(|built| built.join(format!("{name}.zip")));
        match &built {
            Some(built) if mark.is_empty() => {
                fs::copy(built, &zip).unwrap_or_else(|e| panic!("{}: {e}", built.display()));
            }
            _ => {
                let binary = built.unwrap_or_else(|| lambdas().join(name));
                let [binary, zip] = [&binary, &zip].map(|path| path.to_str().expect("text"));
                emulator.python("zip.py", &[binary, zip, mark]);
            }
        }
    }
    let issuer = format!("IssuerKey=\"{}\"", public_pem(key));
    let senders = [
        format!("DriverSenders={ACCOUNT}"),
        format!("TrustedSenders={ACCOUNT}"),
        issuer,
    ];
    let deployed = Command::new(emulator.tools.join("sam"))
        .args([
            "deploy",
            "--stack-name",
            "pfsession",
            "--resolve-s3",
            "--no-confirm-changeset",
        ])
        .args([
            "--no-progressbar",
            "--region",
            REGION,
            "--template-file",
            "infra/template.yaml",
        ])
        .args([
            "--capabilities",
            "CAPABILITY_IAM",
            "CAPABILITY_NAMED_IAM",
            "CAPABILITY_AUTO_EXPAND",
        ])
        .arg("--parameter-overrides")
        .args(senders)
        .args(further)
        .current_dir(&folder)
        .env("HOME", &folder)
        .env("SAM_CLI_TELEMETRY", "0")
        .env("PATH", path_with(&emulator.tools))
        .envs(emulator.variables())
        .output()
        .expect("sam runs");
    let said = [&deployed.stdout[..], &deployed.stderr[..]].concat();
    assert!(deployed.status.success(), "{}", String::from_utf8_lossy(&said));
    let outputs = emulator.python("outputs.py", &["pfsession"]);
    let outputs: Value = serde_json::from_str(&outputs).expect("a stack has outputs");
    let url = outputs["Endpoint"].as_str().expect("an endpoint");
    // On AWS this is an address of its own. The emulator has the same function below its own
    // address.
    let id = url.trim_start_matches("https://").split('.').next().expect("a name");
    format!("{}/_aws/lambda-url/{id}", emulator.endpoint)
}

fn path_with(tools: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(tools.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).expect("folders")
}

/// The issuer's key.
pub fn issuer_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The public half, as PEM.
pub fn public_pem(key: &SigningKey) -> String {
    // The fixed beginning of a SubjectPublicKeyInfo with an Ed25519 key (RFC 8410).
    let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    der.extend(key.verifying_key().to_bytes());
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(der)
    )
}

/// A token of the issuer that is deployed, good for an hour.
pub fn token(key: &SigningKey) -> String {
    signed_token(key, USER, &[Role::Owner, Role::DataScientist])
}

/// The same for somebody else.
pub fn token_of(user: &str, roles: &[Role]) -> String {
    signed_token(&issuer_key(), user, roles)
}

fn signed_token(key: &SigningKey, user: &str, roles: &[Role]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let claims = Claims {
        sub: user.to_owned(),
        ws: "local".to_owned(),
        roles: roles.to_vec(),
        exp: now + 3600,
        aud: contract::http::AUDIENCE.to_owned(),
    };
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let claims = serde_json::to_string(&claims).expect("claims are JSON");
    let signed = format!("{}.{}", part(r#"{"alg":"EdDSA","typ":"JWT"}"#), part(&claims));
    format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes())
    )
}

/// Waits until nothing is left of a session of this flow, on the machine and in the queues.
pub fn nothing_is_left(deployment: &Deployment, folder: &Path) {
    let key = deployment.api().flow(folder).key();
    wait_for("the end of what a session had", Duration::from_secs(30), || {
        deployment.left().iter().all(|what| !what.contains(&key)).then_some(())
    });
    let queues = deployment.queues(&format!("agent-{key}"));
    assert!(queues.is_empty(), "{queues:?}");
}
