//! The promises under faults: the host killed at each named point, functions and agents killed,
//! messages repeated, late and out of order, replies lost. Whatever was acknowledged ends, and
//! nothing is left over.
//!
//! `PFSESSION_SEEDS=n` runs n seeds of chance faults (3 without it); each test prints what it ran.

use contract::{
    Phase,
    command::RunWish,
    row::{OperationStatus, RunStatus},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use whole_system::{Machine, accept, kill, wait_for, write_flow};

const BOUND: Duration = Duration::from_secs(120);

/// The points at which the host can be killed; the host refuses a plan that names another.
const POINTS: [&str; 8] = [
    "queue.sent",
    "queue.received",
    "machine.started",
    "machine.task-sent",
    "machine.answered",
    "function.invoked",
    "function.responded",
    "driver.handled",
];

/// Lives two sessions at once through a start, a run, a reset and a stop, on a host that may die at
/// any moment and is then started again. Asserts that all that was acknowledged ended, and that
/// nothing is left.
fn live_and_converge(machine: &Machine, case: &str, between: impl Fn(&Machine, usize)) {
    let flows: Vec<PathBuf> = ["a", "b"]
        .iter()
        .map(|name| machine.state().join("flows").join(name))
        .collect();
    for folder in &flows {
        write_flow(folder, "@tool\ndef one(text: str) -> str:\n    return text\n", None);
    }
    let mut step = 0;
    for phase in ["start", "run", "reset", "stop"] {
        let ids: Vec<(String, &PathBuf)> = flows
            .iter()
            .enumerate()
            .map(|(i, f)| (format!("{phase}-{i}"), f))
            .collect();
        for (id, folder) in &ids {
            acknowledged(machine, case, |machine| {
                let api = machine.api();
                match phase {
                    "start" => api.start(id, folder),
                    "run" => api.run(id, folder, &RunWish::default()),
                    "stop" => api.stop(id, folder),
                    _ => api.send(&serde_json::json!({ "id": id, "flow": api.flow(folder), "command": phase })),
                }
            });
            step += 1;
            between(machine, step);
        }
        for (id, _) in &ids {
            let ended = |machine: &Machine| {
                let api = machine.api();
                if phase == "run" {
                    let row: contract::row::RunRow = api.get(&format!("/v1/runs/{id}?wait=3000")).ok()?;
                    return row.status.is_final().then(|| format!("{:?}", row.status));
                }
                let row: contract::row::OperationRow = api.get(&format!("/v1/operations/{id}?wait=3000")).ok()?;
                (!matches!(row.status, OperationStatus::InProgress | OperationStatus::Joined))
                    .then(|| format!("{:?} {:?}", row.status, row.failure))
            };
            let said = wait_for(&format!("{case}: the end of {id}"), BOUND, || {
                if machine.host_pid().is_none() {
                    machine.up_again();
                }
                ended(machine)
            });
            // A fault may fail a start or a run, by its name; a stop succeeds whatever happens.
            if phase == "stop" {
                assert!(said.starts_with("Succeeded"), "{case}: {id} {said}");
            }
        }
    }
    machine.up_again();
    let api = machine.api();
    for folder in &flows {
        let phase = wait_for("an answer", BOUND, || api.phase(folder));
        assert_eq!(phase, Phase::Stopped, "{case}");
    }
    // A tick that was hit three times in a row ends among the dead letters, and the next one does
    // the same work.
    let is_tick = |left: &String| left.starts_with("queue idle-ticks-dead:");
    let all = || {
        machine
            .leftovers()
            .into_iter()
            .chain(machine.unfinished())
            .filter(|left| !is_tick(left))
            .collect::<Vec<_>>()
    };
    let mut left = all();
    let until = std::time::Instant::now() + BOUND;
    while !left.is_empty() && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        left = all();
    }
    assert!(left.is_empty(), "{case}: {left:#?}\n{}", machine.host_log());
}

/// Sends until it is acknowledged, on a host that is started again whenever it is not there. The
/// same id is the same wish.
fn acknowledged<T>(machine: &Machine, case: &str, send: impl Fn(&Machine) -> Result<T, (u16, String)>) {
    wait_for(&format!("{case}: an acknowledgement"), BOUND, || {
        if machine.host_pid().is_none() {
            machine.up_again();
        }
        send(machine).ok()
    });
}

fn with_faults(plan: &str) -> Machine {
    let mut machine = Machine::new();
    machine.variables.push(("PFSESSION_FAULTS".to_owned(), plan.to_owned()));
    machine
}

#[test]
fn a_host_killed_at_each_named_point_goes_on_where_it_was() {
    for point in POINTS {
        for count in [2, 5] {
            let case = format!("kill-host@{point}={count}");
            println!("{case}");
            let machine = with_faults(&case);
            machine.up_again();
            live_and_converge(&machine, &case, |_, _| {});
            assert!(machine.host_has_died(), "{case} killed nobody: the case shows nothing");
        }
    }
}

#[test]
fn a_host_killed_between_any_two_commands_goes_on_where_it_was() {
    let machine = Machine::new();
    machine.up();
    live_and_converge(&machine, "kill -9 after each command", |machine, _| machine.kill_host());
}

#[test]
fn an_agent_killed_at_an_install_at_rest_or_at_a_run_takes_its_session_to_an_end_with_a_reason() {
    let machine = Machine::new();
    machine.up();
    let api = machine.api();
    let kill_agents = || {
        for (pid, command) in machine.processes() {
            if command.split(' ').nth(1) == Some("agent") {
                kill(pid);
            }
        }
    };
    let source = "@tool\ndef one(text: str) -> str:\n    import time\n    time.sleep(30)\n    return text\n";
    let ended = |folder: &Path| {
        let session = wait_for("the session's end", BOUND, || {
            api.session(folder).filter(|session| session.phase == Phase::Failed)
        });
        let said = session.failure.unwrap().to_string();
        assert!(
            said.starts_with("Session.AgentDied: The session's agent has ended. Its log is ")
                && said.ends_with(". Start the session again."),
            "{said}"
        );
    };

    // At an install that downloads from an index which never says a word.
    let slow = machine.state().join("flows/slow");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let index = format!(
        "--index-url http://127.0.0.1:{}/simple\nsurely-slow\n",
        silent.local_addr().unwrap().port()
    );
    write_flow(&slow, source, Some(&index));
    api.start("start-slow", &slow).unwrap();
    let connected = accept(&silent, "the install's question to the index");
    kill_agents();
    let start = api.operation("start-slow", BOUND);
    assert_eq!(
        (start.status, start.failure.unwrap().error.as_str()),
        (OperationStatus::Failed, "Session.AgentDied")
    );
    ended(&slow);
    drop(connected);

    // At rest.
    let folder = machine.state().join("flows/a");
    write_flow(&folder, source, None);
    api.start("start-1", &folder).unwrap();
    assert_eq!(api.operation("start-1", BOUND).status, OperationStatus::Succeeded);
    kill_agents();
    ended(&folder);

    // At a run.
    api.run("run-1", &folder, &RunWish::default()).unwrap();
    wait_for("the run's start", BOUND, || {
        let row: contract::row::RunRow = api.get("/v1/runs/run-1").ok()?;
        (row.status == RunStatus::Running).then_some(())
    });
    kill_agents();
    let run = api.run_row("run-1", BOUND);
    assert_eq!(run.status, RunStatus::Failed);
    assert!(
        run.failure.is_some_and(|f| f.error == contract::Code::SessionAgentDied),
        "the run says why"
    );
    ended(&folder);

    api.start("start-2", &folder).unwrap();
    assert_eq!(api.operation("start-2", BOUND).status, OperationStatus::Succeeded);
    for (id, folder) in [("stop-1", &slow), ("stop-2", &folder)] {
        api.stop(id, folder).unwrap();
        assert_eq!(api.operation(id, BOUND).status, OperationStatus::Succeeded);
    }
    wait_for("the end of all", BOUND, || machine.leftovers().is_empty().then_some(()));
}

#[test]
fn functions_killed_at_work_lose_nothing() {
    let machine = Machine::new();
    machine.up();
    live_and_converge(&machine, "kill -9 of functions", |machine, step| {
        let functions: Vec<(i32, String)> = machine
            .processes()
            .into_iter()
            .filter(|(_, c)| c.contains(" function "))
            .collect();
        if let Some((pid, _)) = functions.get(step % functions.len().max(1)) {
            kill(*pid);
        }
    });
}

#[test]
fn repeats_delays_disorder_lost_replies_and_crashes_at_once_change_nothing_that_was_promised() {
    let seeds: u64 = std::env::var("PFSESSION_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    for seed in 1..=seeds {
        let plan = format!("seed={seed},duplicate=0.10,reorder=0.10,delay=0.03,drop-reply=0.03,kill-function=0.03");
        println!("{plan}");
        let machine = with_faults(&plan);
        machine.up_again();
        live_and_converge(&machine, &plan, |machine, step| {
            if step as u64 == seed % 7 + 1 {
                machine.kill_host();
            }
        });
    }
}
