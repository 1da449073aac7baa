//! The promised figures, measured over the whole path: a command in by HTTP, every queue, real function processes, the observed result
//! out, durable writes on. Beside each stand the physical floor and what people have today, from the same run.
//!
//!     cargo run --release -p whole-system --bin bench [-- --short]

use contract::{
    command::RunWish,
    row::{OperationStatus, RunStatus},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use whole_system::{Machine, flow};

const LONG: Duration = Duration::from_secs(600);

fn main() {
    let short = std::env::args().any(|a| a == "--short");
    let rounds = if short { 7 } else { 41 };
    let machine = Machine::new();
    machine.up();
    let api = machine.api();
    let folder = flow("one-node");
    eprintln!("first start: the environment is made if the store does not have it");
    api.start("bench-first", &folder).expect("the service takes commands");
    let first = Instant::now();
    assert_eq!(
        api.operation("bench-first", LONG).status,
        OperationStatus::Succeeded,
        "{}",
        machine.host_log()
    );
    eprintln!("first start: {:.1} s", first.elapsed().as_secs_f64());
    api.run("bench-warm", &folder, &RunWish::default())
        .expect("the service takes commands");
    assert_eq!(api.run_row("bench-warm", LONG).status, RunStatus::Completed);
    api.stop("bench-down", &folder).expect("the service takes commands");
    api.operation("bench-down", LONG);

    let (mut starts, mut firsts, mut seconds, mut stops) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut isolated = String::new();
    for round in 0..rounds {
        starts.push(timed(|| {
            let id = format!("bench-start-{round}");
            api.start(&id, &folder).expect("a start is taken");
            assert_eq!(
                api.operation(&id, LONG).status,
                OperationStatus::Succeeded,
                "{}",
                machine.host_log()
            );
        }));
        for (nth, times) in [("a", &mut firsts), ("b", &mut seconds)] {
            times.push(timed(|| {
                let id = format!("bench-run-{round}{nth}");
                api.run(&id, &folder, &RunWish::default()).expect("a run is taken");
                let row = api.run_row(&id, LONG);
                assert_eq!(row.status, RunStatus::Completed, "{row:?}");
            }));
        }
        isolated = isolation(&machine);
        stops.push(timed(|| {
            let id = format!("bench-stop-{round}");
            api.stop(&id, &folder).expect("a stop is taken");
            assert_eq!(api.operation(&id, LONG).status, OperationStatus::Succeeded);
        }));
    }
    let exec = floor(&["true"], rounds * 4);
    let spaces = floor(
        &[
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "true",
        ],
        rounds * 4,
    );
    let python = base_python(&machine);
    let interpreter = python
        .as_ref()
        .map(|p| floor(&[p.to_str().unwrap_or("python3"), "-I", "-S", "-c", "pass"], rounds));
    let (pf_test, pf_import) = match &python {
        Some(python) => (
            Some(floor(
                &[
                    text(python),
                    "-m",
                    "promptflow._cli.pf",
                    "flow",
                    "test",
                    "--flow",
                    text(&folder),
                ],
                3,
            )),
            Some(floor(&[text(python), "-c", "import promptflow.executor"], 3)),
        ),
        None => (None, None),
    };

    println!("| what | ours (median of {rounds}) | 90 % within | floor | the plain way today |");
    println!("| --- | --- | --- | --- | --- |");
    let none = || "not measured here".to_owned();
    row(
        "start a session whose environment is in the store, to Ready",
        &starts,
        &format!("{} (namespaces and exec)", ms(&spaces)),
        "minutes (the seed's service)",
    );
    let interpreter = interpreter
        .as_ref()
        .map_or_else(none, |t| format!("{} (a bare interpreter)", ms(t)));
    let pf = match (&pf_test, &pf_import) {
        (Some(test), Some(import)) => format!("{} (`pf flow test`), of it {} imports", ms(test), ms(import)),
        _ => none(),
    };
    row(
        "the first run of a one-node flow in a Ready session, to its output",
        &firsts,
        &interpreter,
        &pf,
    );
    row("the second run", &seconds, &interpreter, &pf);
    row(
        "stop, to observed Stopped",
        &stops,
        &format!("{} (exec)", ms(&exec)),
        "-",
    );
    println!("\nIsolation: {isolated}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

fn timed(what: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    what();
    begun.elapsed().as_secs_f64() * 1000.0
}

fn floor(command: &[&str], rounds: usize) -> Vec<f64> {
    let run = || {
        let status = Command::new(command[0])
            .args(&command[1..])
            .env_remove("PYTHONDONTWRITEBYTECODE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.is_ok_and(|s| s.success()), "{command:?}");
    };
    run();
    (0..rounds).map(|_| timed(run)).collect()
}

fn quantile(times: &[f64], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn ms(times: &[f64]) -> String {
    let median = quantile(times, 0.5);
    if median < 10.0 {
        format!("{median:.1} ms")
    } else {
        format!("{median:.0} ms")
    }
}

fn row(what: &str, ours: &[f64], floor: &str, today: &str) {
    println!(
        "| {what} | {} | {:.0} ms | {floor} | {today} |",
        ms(ours),
        quantile(ours, 0.9)
    );
}

/// The Python of an environment in the store that has promptflow.
fn base_python(machine: &Machine) -> Option<PathBuf> {
    let store = machine
        .variables
        .iter()
        .find(|(name, _)| name == "PFSESSION_STORE")
        .map(|(_, path)| PathBuf::from(path))?;
    let found = Command::new("find")
        .arg(&store)
        .args(["-maxdepth", "4", "-path", "*/bin/python"])
        .output()
        .ok()?;
    let found = String::from_utf8(found.stdout).ok()?;
    let has_promptflow = |python: &&str| {
        let status = Command::new(python)
            .args(["-c", "import promptflow.executor"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|s| s.success())
    };
    found.lines().find(has_promptflow).map(PathBuf::from)
}

/// How well the session of this machine is isolated, as its agent said when it closed the sandbox.
fn isolation(machine: &Machine) -> String {
    let sessions = Command::new("find")
        .arg(machine.state().join("sessions"))
        .args(["-name", "isolation.json"])
        .output();
    let found = sessions
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    found
        .lines()
        .next()
        .and_then(|path| fs::read_to_string(path).ok())
        .unwrap_or_else(|| "not known".to_owned())
}
