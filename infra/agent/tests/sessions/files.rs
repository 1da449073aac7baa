//! Files that sessions and runs leave, and a disk that fills.

use super::*;
use contract::Code;

/// Whether a file may be changed or removed at all; root alone may say so, and not on every file
/// system.
pub(crate) fn set_immutable(path: &Path, is_immutable: bool) -> bool {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let Ok(file) = fs::File::open(path) else { return false };
    ioctl_getflags(&file).is_ok_and(|mut flags| {
        flags.set(IFlags::IMMUTABLE, is_immutable);
        ioctl_setflags(&file, flags).is_ok()
    })
}

pub(crate) fn what_a_session_leaves_is_removed_by_another_process_in_any_depth() {
    const NEST: &str = "import os\nfd = os.open('/tmp', os.O_RDONLY)\nfor _ in range(3000):\n    os.mkdir('folder', dir_fd=fd)\n    \
        inner = os.open('folder', os.O_RDONLY, dir_fd=fd)\n    os.close(fd)\n    fd = inner\nos.fchmod(fd, 0)\n";
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let hello = flow(&folder.path().join("hello"), &DAG);
    let key = key(&hello.display().to_string());
    machine.start(&key, 1, &hello);
    let result = machine.run(&key, 1, "nest", &hello, command(&["python3", "-c", NEST]));
    assert_eq!(result.exit_code, Some(0), "{}", machine.output("nest"));
    // Something that cannot be removed now.
    let (gone, name) = (machine.state.join("gone"), "what-stays");
    let stays = machine.state.join("sessions").join(&key).join("1/home").join(name);
    fs::write(&stays, "").unwrap();
    let cannot = set_immutable(&stays, true);
    if !cannot {
        println!("nothing here can be made immutable: what cannot be removed is not tried");
    }
    machine.remove(&key, 1);
    assert_eq!(machine.gone(&key, 1), None);
    machine.start(&key, 2, &hello);
    let left = || {
        fs::read_dir(&gone)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let stays = machine
        .world
        .wait("the removal of the rest", Duration::from_secs(60), |_| {
            match &left()[..] {
                [] if !cannot => Some(None),
                [one] if cannot => {
                    // Everything else has gone: there is nothing in it but the way to what stays.
                    let mut at = one.clone();
                    while let [inner] = &fs::read_dir(&at)
                        .ok()?
                        .flatten()
                        .map(|entry| entry.path())
                        .collect::<Vec<_>>()[..]
                    {
                        at.clone_from(inner);
                        if at.ends_with(name) {
                            return Some(Some(at));
                        }
                    }
                    None
                }
                _ => None,
            }
        });
    if let Some(stays) = stays {
        let result = machine.run(&key, 2, "beside", &hello, RunWish::default());
        assert_eq!(result.failure, None);
        assert!(set_immutable(&stays, false));
        machine.world.wait("the next try", Duration::from_secs(60), |_| {
            left().is_empty().then_some(())
        });
    }
    machine.remove(&key, 2);
}

/// Leaves processes behind, one of which swaps a folder of the run for a link all the time.
pub(crate) const LEAVES: &str = r#"
import ctypes, os, sys, time
secret, ends = sys.argv[1], sys.argv[2]
os.makedirs("swapped"); open("swapped/passwd", "w").write("mine")
os.makedirs("plain"); open("plain/kept", "w").write("kept")
os.symlink(secret, "link"); os.link("plain/kept", "hard"); os.mkfifo("pipe")
open("tool", "w").write("x"); os.chmod("tool", 0o6755)
if ends == "by a signal":
    # What loses its parent goes further up than to this process.
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
def left(work):
    if not os.fork():
        os.setsid()
        if not os.fork():
            for fd in range(3):
                os.close(fd)
            work()
        os._exit(0)
def swap():
    os.symlink(secret, "to-secret")
    while True:
        for a, b in (("swapped", "away"), ("to-secret", "swapped"), ("swapped", "to-secret"), ("away", "swapped")):
            try:
                os.rename(a, b)
            except OSError:
                pass
def write():
    while True:
        open("/tmp/alive", "w").write(str(time.time_ns()))
left(swap)
left(write)
while not os.path.exists("/tmp/alive"):
    time.sleep(0.01)
if ends == "by a signal":
    os.kill(os.getpid(), 9)
"#;

pub(crate) fn what_a_run_leaves_behind_ends_with_it_and_only_its_own_files_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let secret = folder.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("passwd"), "secret").unwrap();
    let hello = flow(&folder.path().join("hello"), &DAG);
    fs::write(hello.join("leaves.py"), LEAVES).unwrap();
    let key = key(&hello.display().to_string());
    machine.start(&key, 1, &hello);
    let alive = machine.state.join("sessions").join(&key).join("1/tmp/alive");
    for ends in ["well", "by a signal", "well again"] {
        let run = format!("leaves-{}", ends.replace(' ', "-"));
        let _ = fs::remove_dir_all(machine.state.join("runs").join(&run));
        let secret_path = secret.display().to_string();
        let program = ["python3", "leaves.py", &secret_path, ends];
        let result = machine.run(&key, 1, &run, &hello, command(&program));
        let said = machine.output(&run);
        if ends != "by a signal" {
            assert_eq!(result.exit_code, Some(0), "{said}");
        } else {
            assert!(result.failure.is_some(), "{said}");
        }
        // The processes are gone: nothing is written any more.
        let last = fs::read(&alive).unwrap();
        assert_eq!(
            machine
                .run(&key, 1, &format!("after-{run}"), &hello, RunWish::default())
                .failure,
            None
        );
        assert_eq!(
            fs::read(&alive).unwrap(),
            last,
            "{ends}: a process of the run still writes"
        );
        fs::remove_file(&alive).unwrap();
        let files = machine.state.join("runs").join(&run).join("files");
        let text = |name: &str| fs::read_to_string(files.join(name)).unwrap_or_default();
        assert_eq!(
            (text("plain/kept"), text("hard")),
            ("kept".into(), "kept".into()),
            "{said}"
        );
        for name in ["swapped/passwd", "away/passwd", "to-secret/passwd"] {
            assert!(["", "mine"].contains(&text(name).as_str()), "{ends} {name}");
        }
        let about = fs::symlink_metadata(files.join("tool"));
        let about = about.unwrap_or_else(|error| panic!("{ends}: {error}: {result:?}"));
        assert_eq!(about.permissions().mode() & 0o7777, 0o755);
        for name in ["link: it is a link", "pipe: it is no file"] {
            assert!(result.not_kept.contains(&name.to_owned()), "{:?}", result.not_kept);
            assert!(said.contains(&format!("not kept: {name}")), "{said}");
        }
        for name in ["link", "pipe"] {
            assert!(files.join(name).symlink_metadata().is_err());
        }
        assert_eq!(fs::read_to_string(secret.join("passwd")).unwrap(), "secret");
    }
    machine.remove(&key, 1);
}

pub(crate) fn files_over_a_bound_and_data_over_a_bound_are_named_and_nothing_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let hello = flow(&folder.path().join("hello"), &DAG);
    let key = key(&hello.display().to_string());
    machine.start(&key, 1, &hello);
    let refused = |run: &str, wish: RunWish| {
        let result = machine.run(&key, 1, run, &hello, wish);
        (result.failure.clone().map(|failure| failure.error), result)
    };
    let deep = "import os\nopen('first', 'w').write('kept')\nfor _ in range(80):\n    os.mkdir('inner')\n    os.chdir('inner')\n";
    let huge = "open('a', 'w').write('kept')\nopen('huge', 'w').truncate(1 << 40)\n";
    for (run, code, kept) in [("too-deep", deep, "first"), ("too-much", huge, "a")] {
        let _ = fs::remove_dir_all(machine.state.join("runs").join(run));
        let (error, result) = refused(run, command(&["python3", "-c", code]));
        assert_eq!(error, Some(Code::RunFilesNotKept), "{result:?}");
        let said = result.failure.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(
            said.starts_with("Run.FilesNotKept: Not all files that the run made are kept: "),
            "{said}"
        );
        assert!(
            result.not_kept.iter().any(|line| line.starts_with("the rest: ")),
            "{result:?}"
        );
        assert!(machine.output(run).contains("not kept: the rest: "));
        let kept = machine.state.join("runs").join(run).join("files").join(kept);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "kept", "{}", kept.display());
    }
    let data = |path: &Path| RunWish {
        data: Some(path.display().to_string()),
        ..RunWish::default()
    };
    let large = folder.path().join("large.jsonl");
    fs::File::create(&large).unwrap().set_len(3 << 30).unwrap();
    let said = refused("large-data", data(&large)).1.failure.unwrap().to_string();
    let expected = format!(
        "Run.DataTooLarge: The data {} has more than 1024 MiB, which is the most for one run. Split it, and run each part.",
        large.display()
    );
    assert!(said.starts_with(&expected), "{said}");
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(refused("pipe-data", data(&pipe)).0, Some(Code::RunBadData));
    machine.remove(&key, 1);
}

/// Fills what it can, and goes on when the disk is full.
pub(crate) const FILLS: &str = r#"
import itertools
for number in itertools.count():
    try:
        with open(f"/tmp/{number}", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
    except OSError:
        pass
"#;

/// A file system that is unmounted at last.
pub(crate) struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

pub(crate) fn on_a_small_disk_a_session_that_fills_it_gives_way_and_others_go_on() {
    let small = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160m,mode=700", "tmpfs"])
        .arg(small.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("no file system can be mounted here: a full disk is not tried");
        return;
    }
    let _mount = Mount(small.path().to_owned());
    // The environments are on the large disk.
    drop(Machine::new(&state()));
    let inner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["inner", "disk"])
        .env("TEST_STATE", small.path())
        .env("PFSESSION_STORE", state())
        .status();
    assert!(inner.unwrap().success());
}

/// The part of the test above whose state folder is on the small disk.
pub(crate) fn a_small_disk_is_filled() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let flows = ["quiet", "greedy", "late"].map(|name| flow(&folder.path().join(name), &DAG));
    let keys = [0, 1, 2].map(|at: usize| key(&flows[at].display().to_string()));
    machine.start(&keys[0], 1, &flows[0]);
    machine.start(&keys[1], 1, &flows[1]);
    // The first may be stopped for its session's own bound, before the disk is full.
    for run in ["fills", "fills-the-rest"] {
        let result = machine.run(&keys[1], 1, run, &flows[1], command(&["python3", "-c", FILLS]));
        let said = result.failure.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(said.starts_with("Run.DiskFull: The "), "{result:?}");
        if agent::disk::Room::of(&machine.state).unwrap().is_short() {
            break;
        }
    }
    // Its files are still there: the session gives way, too.
    let ended = machine.gone(&keys[1], 1).expect("it ended by itself");
    assert!(
        ended.to_string().starts_with("Session.DiskFull: The disk of "),
        "{ended}"
    );
    assert!(ended.message.contains("this session has written the most"), "{ended}");
    let gone = machine.state.join("gone");
    machine
        .world
        .wait("the removal of its files", Duration::from_secs(60), |_| {
            fs::read_dir(&gone).unwrap().next().is_none().then_some(())
        });
    assert_eq!(
        machine
            .run(&keys[0], 1, "beside", &flows[0], RunWish::default())
            .failure,
        None
    );
    // Somebody else fills it, but for what the host keeps.
    let filler = machine.state.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 1 << 16]).is_ok() {}
    file.set_len(file.metadata().unwrap().len() - (4 << 20)).unwrap();
    machine.ask(Machine::launch_request(&keys[2], 1, "c1", &flows[2]));
    let refused = machine.gone(&keys[2], 1).expect("it is refused");
    assert_eq!(refused.error, Code::SessionDiskFull, "{refused}");
    assert!(refused.message.contains(&flows[0].display().to_string()), "{refused}");
    machine.remove(&keys[0], 1);
    assert_eq!(machine.gone(&keys[0], 1), None);
    drop(file);
    fs::remove_file(&filler).unwrap();
    machine.start(&keys[2], 2, &flows[2]);
    assert_eq!(
        machine.run(&keys[2], 2, "after", &flows[2], RunWish::default()).failure,
        None
    );
    machine.remove(&keys[2], 2);
    machine.driver.let_go();
}
