//! The real service on a disk that somebody else has filled to its last byte.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

const PFSESSION: &str = env!("CARGO_BIN_EXE_pfsession");

/// A machine whose state lies on a small disk of its own. The environments are elsewhere.
struct Machine {
    folder: tempfile::TempDir,
    flows: tempfile::TempDir,
    store: PathBuf,
}

impl Machine {
    /// Nothing, if this user may mount nothing.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=160m,mode=700", "tmpfs"])
            .arg(folder.path())
            .output();
        let store = Path::new(PFSESSION).with_file_name("test-store");
        fs::create_dir_all(&store).unwrap();
        let flows = tempfile::tempdir().unwrap();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self { folder, flows, store })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        // None hangs.
        command.args(["--foreground", "120", PFSESSION]).args(arguments);
        command
            .env("PFSESSION_STATE", self.folder.path())
            .env("PFSESSION_STORE", &self.store);
        command.env_remove("PFSESSION_ENDPOINT").env_remove("PFSESSION_TOKEN");
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The output of a command that has to fail.
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code();
        assert!(
            code != Some(0) && code != Some(124),
            "{arguments:?}: {code:?} {said}\n{}",
            self.log()
        );
        said
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log/host.log")).unwrap_or_default()
    }

    fn flow(&self, name: &str) -> String {
        let flow = self.flows.path().join(name);
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/flows/one-node");
        fs::create_dir_all(&flow).unwrap();
        for file in ["flow.dag.yaml", "echo.py", "data.jsonl"] {
            fs::copy(from.join(file), flow.join(file)).unwrap();
        }
        flow.to_str().unwrap().to_owned()
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    /// Writes until there is no byte left, also where the host has just given up room.
    fn fill(&self) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let _ = [1 << 20, 1 << 12, 1].map(|bytes| while file.write_all(&vec![0; bytes]).is_ok() {});
            std::thread::yield_now();
        }
        assert_eq!(agent::disk::Room::of(self.folder.path()).unwrap().free, 0);
    }

    fn kill_host(&self) {
        let host: serde_json::Value =
            serde_json::from_slice(&fs::read(self.folder.path().join("host.json")).unwrap()).unwrap();
        let pid = nix::unistd::Pid::from_raw(host["pid"].as_i64().unwrap().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// The number of sessions that are ready.
    fn ready(&self) -> usize {
        let list: serde_json::Value = serde_json::from_str(&self.succeed(&["list", "--json"])).unwrap();
        let sessions = list["sessions"].as_array().unwrap().iter();
        sessions.filter(|session| session["phase"] == "ready").count()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.filler());
        let _ = self.run(&["down", "--stop-sessions"]);
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[test]
fn on_a_full_disk_all_is_named_stops_and_starts_of_the_host_go_on_and_all_recovers() {
    let Some(machine) = Machine::new() else {
        println!("no file system can be mounted here: a full disk is not tried");
        return;
    };
    let [a, b, c] = ["a", "b", "c"].map(|name| machine.flow(name));
    let data = format!("{a}/data.jsonl");
    machine.succeed(&["run", &a, "--data", &data]);
    machine.succeed(&["start", &b]);
    // The host keeps room in its databases once it has the time to.
    let until = Instant::now() + Duration::from_secs(30);
    let is_kept = |name: &str| fs::metadata(machine.folder.path().join(name)).is_ok_and(|about| about.len() > 1 << 20);
    while !["queues.db", "table.db"].iter().all(|name| is_kept(name)) {
        assert!(Instant::now() < until, "{}", machine.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    machine.fill();
    assert_eq!(machine.ready(), 2);
    let where_ = format!(
        "The disk of {} has 0 MiB free of 160 MiB. ",
        machine.folder.path().display()
    );
    let is_named =
        |said: &str| said.contains(&where_) && said.contains("other files have") && said.contains("make room");
    let said = machine.fail(&["start", &c]);
    assert!(said.contains("DiskFull") && is_named(&said), "{said}");
    // That has used the room for small files.
    machine.fill();
    let said = machine.fail(&["run", &a, "--data", &data]);
    assert!(
        said.contains("DiskFull") || said.contains("no room on the disk"),
        "{said}"
    );
    machine.succeed(&["stop", &b]);
    // Nothing of that room is left for the next host, either.
    machine.kill_host();
    machine.fill();
    assert_eq!(machine.ready(), 1);
    machine.succeed(&["down"]);
    machine.fill();
    let said = machine.fail(&["start", &c]);
    assert!(said.contains("DiskFull") && is_named(&said), "{said}");
    machine.succeed(&["stop", &a]);
    fs::remove_file(machine.filler()).unwrap();
    machine.succeed(&["start", &b]);
    machine.succeed(&["run", &c, "--data", &data]);
    assert_eq!(machine.ready(), 2);
}
