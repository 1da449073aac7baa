//! The agent in a container of its own: launched by `compute-ecs.asl.json` in moto, which it
//! answers itself.
//!
//! A plain process stands in for the container: it has what ECS would give it (one environment
//! variable, credentials, a region), and no more of this machine than its folders. What a plain
//! process cannot show: another file system, another user, the task's own credentials endpoint, an
//! image that lacks a C library.
//!
//! This program is its own agent, as `pfsession agent --container` is.

use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{
    Code, Settings,
    agent::{AgentCommand, AgentReport, AgentSettings, SignedBody, SignedReport},
    command::RunWish,
    driver::{ComputeRequest, DriverReport},
    names,
    packages::PackageOrigin,
    snapshot::Address,
};
use machines::World;
use serde_json::json;
use std::{
    io::Cursor,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A test by its name.
type Test = (&'static str, fn(&World));

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--container") {
        if let Err(error) = agent::supervise_container() {
            eprintln!("{error:#}");
            std::process::exit(1);
        }
        return;
    }
    let tests: [Test; 2] = [
        (
            "an_agent_in_a_container_answers_the_driver_installs_runs_and_ends_when_its_lease_runs_out",
            an_agent_in_a_container_answers_the_driver_installs_runs_and_ends_when_its_lease_runs_out,
        ),
        (
            "an_agent_that_comes_up_too_late_says_so_and_ends",
            an_agent_that_comes_up_too_late_says_so_and_ends,
        ),
    ];
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, test) in tests {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted)) {
            continue;
        }
        let world = World::with_compute(120);
        up(&world);
        test(&world);
        println!("test {name} ... ok");
    }
}

fn flow() -> PathBuf {
    let flow = Path::new(env!("CARGO_MANIFEST_DIR")).join("../flows/one-node");
    flow.canonicalize().expect("the flow is there")
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    u64::try_from(now.as_millis()).expect("a time")
}

/// Puts something into moto's S3 as a flow's; gives back its address.
fn sent(world: &World, bytes: &[u8]) -> String {
    let address = Address {
        bucket: "flows-of-the-team".into(),
        flow: world.flow.clone(),
        digest: snapshots::digest(bytes),
    };
    let body = STANDARD.encode(bytes);
    let put = json!({ "Bucket": address.bucket, "Key": address.key(), "Body": body });
    world.call("s3", "create_bucket", json!({ "Bucket": address.bucket }));
    world.call("s3", "put_object", put);
    address.to_string()
}

/// The flow's folder as the command line sends it, after an edit of its text.
fn sent_folder(world: &World, edit: (&str, &str)) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let flow = folder.path().join("flow");
    let view = ::flow::view::list(&self::flow(), &::flow::include_root(&self::flow())).expect("a flow");
    ::flow::view::copy_into(&view, &flow).expect("copied");
    for file in &view.files {
        let file = flow.join(&file.target);
        if let Ok(text) = std::fs::read_to_string(&file) {
            std::fs::write(&file, text.replace(edit.0, edit.1)).expect("written");
        }
    }
    let view = ::flow::view::list(&flow, folder.path()).expect("a flow");
    let packed = ::flow::snapshot::pack(&view, Cursor::new(Vec::new())).expect("packed");
    sent(world, packed.get_ref())
}

fn settings(world: &World) -> Settings {
    Settings {
        size: "Standard_DS3_v2".to_owned().into(),
        // Whatever it is called: in a container of its own it is what the session runs in.
        image: Some(machines::DEFAULT_IMAGE.to_owned()).into(),
        ..Settings::new(sent_folder(world, ("", "")))
    }
}

/// A compute resource that is up: the test is the instance.
fn up(world: &World) {
    let slot = contract::Slot {
        workspace: "team".into(),
        owner: "alice".into(),
        size: "Standard_DS3_v2".into(),
        identity: None,
        instance: None,
    };
    let request = ComputeRequest::create("c1".into(), slot);
    world.ask(&request, "00000000-0000-0000-0000-00000000000a");
    world.join_an_instance();
    assert_eq!(world.report(), DriverReport::ComputeUp { compute: "c1".into() });
}

/// Asks for a session, and starts what ECS was told to start.
///
/// * `state`: a folder for the container's files.
fn launch(world: &World, until: u64, state: &Path) -> Agent {
    let request = ComputeRequest::LaunchSession {
        flow: world.flow.clone(),
        owner: "alice".into(),
        workspace: "team".into(),
        generation: 1,
        compute: "c1".into(),
        settings: settings(world),
        room: None,
        until,
    };
    world.ask(&request, "00000000-0000-0000-0000-00000000000b");
    let run = world.wait_for("a task", || world.calls("RunTask").into_iter().next());
    let told = run.body["overrides"]["containerOverrides"][0]["environment"][0].clone();
    assert_eq!(told["name"], names::AGENT);
    let told: AgentSettings = serde_json::from_str(told["value"].as_str().expect("a text")).expect("its settings");
    // The environments that other tests have made, beside the profile's binaries.
    let own = std::env::current_exe().expect("a process has a binary");
    let store = own.ancestors().nth(2).expect("a profile").join("test-store");
    std::fs::create_dir_all(&store).expect("the store is made");
    let kept = ["PATH", "HOME"];
    let kept = kept
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)));
    let child = Command::new(own)
        .arg("--container")
        .env_clear()
        .envs(kept)
        .envs(environments::kept_variables())
        .env(names::AGENT, serde_json::to_string(&told).expect("JSON"))
        .env("AWS_ENDPOINT_URL", world.url())
        .env("AWS_ACCESS_KEY_ID", "task")
        .env("AWS_SECRET_ACCESS_KEY", "task")
        .env("PFSESSION_STATE", state)
        .env("PFSESSION_PYTHON", python_of_an_image(&state.join("image")))
        .env("PFSESSION_STORE", store)
        .stdin(Stdio::null())
        .spawn()
        .expect("the agent starts");
    Agent { child }
}

/// A Python as an image has it, with a package that nothing else has.
fn python_of_an_image(place: &Path) -> PathBuf {
    // Debian's own needs no library that lies elsewhere, which a container would have in its place.
    let debians = "/usr/bin/python3";
    let from = if Path::new(debians).exists() {
        debians
    } else {
        "python3"
    };
    tools::roots::python_root_of(place, "opt/python", from);
    let python = place.join("opt/python");
    let ask = "import site; print(site.getsitepackages()[-1])";
    let executable = python.join("bin/python3").display().to_string();
    let site = PathBuf::from(tools::roots::execute(&executable, &["-I", "-c", ask]).trim());
    std::fs::create_dir_all(site.join("imagepkg")).expect("a folder");
    std::fs::create_dir_all(site.join("imagepkg-1.5.dist-info")).expect("a folder");
    std::fs::write(site.join("imagepkg/__init__.py"), "WORD = ' of the image'\n").expect("written");
    let metadata = "Metadata-Version: 2.1\nName: imagepkg\nVersion: 1.5\n";
    std::fs::write(site.join("imagepkg-1.5.dist-info/METADATA"), metadata).expect("written");
    python.join("bin/python3")
}

struct Agent {
    child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The agent's next report that is no line of output, signed with `key`; a request for a lease is
/// granted on the way, if `grant`.
fn says(world: &World, key: &str, grant: bool) -> AgentReport {
    loop {
        let signed: SignedReport = serde_json::from_value(world.agent_report()).expect("a signed report");
        assert!(
            signed.is_signed_by(key),
            "a report that the session's key has not signed"
        );
        let body: SignedBody = serde_json::from_str(&signed.body).expect("a body");
        assert_eq!((&body.flow, body.generation), (&world.flow, 1));
        match body.report {
            AgentReport::Output { .. } => {}
            AgentReport::Alive { nonce, .. } if grant => world.tell_agent(1, &AgentCommand::Lease { nonce }),
            AgentReport::Alive { .. } => {}
            other => return other,
        }
    }
}

fn an_agent_in_a_container_answers_the_driver_installs_runs_and_ends_when_its_lease_runs_out(world: &World) {
    let state = tempfile::tempdir().expect("a folder");
    let mut agent = launch(world, now() + 240_000, state.path());
    // The state machine has the key from the agent itself.
    let DriverReport::SessionUp { flow, generation, key } = world.driver_report() else {
        panic!("the session is not up");
    };
    assert_eq!((&flow, generation), (&world.flow, 1));
    let settings = settings(world);
    world.tell_agent(
        1,
        &AgentCommand::Install {
            operation: "install-1".into(),
            attempt: 1,
            settings: settings.clone(),
            lock: None,
            resolve: false,
        },
    );
    // The image is named by its digest, which is what ECS pulls.
    let digest = machines::DEFAULT_IMAGE.rsplit_once('@').expect("a digest").1.to_owned();
    assert_eq!(says(world, &key, true), AgentReport::Image { digest, latest: None });
    let AgentReport::Installed {
        operation,
        installation: Some(installation),
        ..
    } = says(world, &key, true)
    else {
        panic!("nothing is installed");
    };
    assert_eq!(operation, "install-1");
    let listed = installation.listed.expect("a list");
    let of = |name: &str| {
        let package = listed.packages.iter().find(|package| package.name == name);
        package.map(|package| package.origin)
    };
    // What the image has is there, and what flows need is added to it.
    assert_eq!(of("imagepkg"), Some(PackageOrigin::BaseImage));
    assert!(of("promptflow").is_some());
    let session = state.path().join("sessions").join(&world.flow).join("1/isolation.json");
    let isolation = std::fs::read_to_string(session).expect("isolation.json");
    assert!(isolation.contains("\"container\""), "{isolation}");
    let data = std::fs::read(self::flow().join("data.jsonl")).expect("data");
    let wish = RunWish {
        data: Some(sent(world, &data)),
        ..RunWish::default()
    };
    world.tell_agent(
        1,
        &AgentCommand::Run {
            run: "run-1".into(),
            settings: settings.clone(),
            wish,
        },
    );
    assert_eq!(says(world, &key, true), AgentReport::RunStarted { run: "run-1".into() });
    let AgentReport::RunDone { outcome, result, .. } = says(world, &key, true) else {
        panic!("the run has not ended");
    };
    assert_eq!(outcome, contract::Outcome::Succeeded, "{result:?}");
    let expected = std::fs::read_to_string(self::flow().join("expected.jsonl")).expect("what is expected");
    let expected: Vec<serde_json::Value> = expected
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(result.outputs, expected);
    // An edit is another snapshot, and counts in the next run.
    let edited = Settings {
        folder: sent_folder(
            world,
            ("return text", "return text.upper() + __import__('imagepkg').WORD"),
        )
        .into(),
        ..settings.clone()
    };
    assert_ne!(edited.folder, settings.folder);
    let wish = RunWish {
        inputs: [("text".to_owned(), json!("louder"))].into(),
        ..RunWish::default()
    };
    let run = AgentCommand::Run {
        run: "run-2".into(),
        settings: edited,
        wish,
    };
    world.tell_agent(1, &run);
    assert_eq!(says(world, &key, true), AgentReport::RunStarted { run: "run-2".into() });
    let AgentReport::RunDone { result, .. } = says(world, &key, true) else {
        panic!("the run has not ended");
    };
    assert_eq!(result.outputs, [json!({ "text": "LOUDER of the image" })], "{result:?}");
    // What is not there, and what is not its flow's, is refused by name.
    let missing = format!(
        "{}/{}",
        settings.folder.value.rsplit_once('/').expect("a key").0,
        "0".repeat(64)
    );
    let others = settings.folder.value.replace(&world.flow, &"f".repeat(32));
    for (at, (folder, error)) in [(missing, Code::SnapshotMissing), (others, Code::SnapshotNotYours)]
        .into_iter()
        .enumerate()
    {
        let install = AgentCommand::Install {
            operation: format!("install-{}", at + 2),
            attempt: 1,
            settings: Settings {
                folder: folder.into(),
                ..settings.clone()
            },
            lock: None,
            resolve: false,
        };
        world.tell_agent(1, &install);
        let AgentReport::InstallFailed { failure, .. } = says(world, &key, true) else {
            panic!("a snapshot was taken");
        };
        assert_eq!(failure.error, error, "{failure:?}");
    }
    // From here on nobody renews its lease.
    let since = Instant::now();
    let lease = Duration::from_millis(lifecycle::deadlines::LEASE);
    let ended = loop {
        if let Some(status) = agent.child.try_wait().expect("its own child") {
            break status;
        }
        assert!(
            since.elapsed() < lease + Duration::from_secs(20),
            "it outlives its lease"
        );
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(ended.success(), "{ended}");
}

fn an_agent_that_comes_up_too_late_says_so_and_ends(world: &World) {
    let state = tempfile::tempdir().expect("a folder");
    let mut agent = launch(world, now() - 1, state.path());
    match world.driver_report() {
        DriverReport::SessionGone {
            failure: Some(failure), ..
        } => assert_eq!(failure.error, Code::SessionLaunchTooLate),
        other => panic!("{other:?}"),
    }
    assert!(agent.child.wait().expect("its own child").success());
    let what = json!(world.calls("RunTask").len());
    assert_eq!(what, 1);
}
