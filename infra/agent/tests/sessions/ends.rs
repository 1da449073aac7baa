//! Launches and ends: commands that come twice, kills, leases, a host that comes back.

use super::*;
use contract::Code;

pub(crate) fn a_command_that_comes_twice_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("it"), &DAG);
    let key = key(&unique("twice"));
    let slot = contract::Slot {
        workspace: "local".into(),
        owner: "me".into(),
        size: "local".into(),
        identity: None,
        instance: None,
    };
    machine.ask(ComputeRequest::create("c1".into(), slot));
    machine.launch(&key, 1, &it);
    machine.launch(&key, 1, &it);
    let keys: Vec<String> = machine
        .world
        .driver_reports
        .lock()
        .unwrap()
        .iter()
        .filter_map(|report| match report {
            DriverReport::SessionUp { key, .. } => Some(key.clone()),
            _ => None,
        })
        .collect();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    let install = AgentCommand::Install {
        operation: "again".into(),
        attempt: 1,
        settings: settings(&it),
        lock: None,
        resolve: false,
    };
    machine.tell(&key, 1, &install);
    machine.tell(&key, 1, &install);
    assert_eq!(machine.install(&key, 1, "again", &it), None);
    let later = AgentCommand::Install {
        operation: "again".into(),
        attempt: 4,
        settings: settings(&it),
        lock: None,
        resolve: false,
    };
    machine.tell(&key, 1, &later);
    machine.report(
        "the later attempt's answer",
        Duration::from_secs(60),
        &key,
        1,
        |report| matches!(report, AgentReport::Installed { attempt: 4, .. }).then_some(()),
    );
    let run = unique("twice");
    for _ in 0..3 {
        machine.begin_run(&key, 1, &run, &it, RunWish::default());
    }
    machine.ended_run(&key, 1, &run);
    machine.run(&key, 1, &unique("after"), &it, RunWish::default());
    let ends = machine
        .world
        .agent_reports
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, body)| matches!(&body.report, AgentReport::RunDone { run: r, .. } if *r == run))
        .count();
    assert_eq!(ends, 1);
    machine.remove(&key, 1);
    machine.remove(&key, 1);
}

pub(crate) fn a_report_is_signed_with_the_sessions_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("it"), &DAG);
    let flow_key = key(&unique("signed"));
    let public = machine.launch(&flow_key, 1, &it);
    assert_eq!(machine.install(&flow_key, 1, "signed", &it), None);
    machine.remove(&flow_key, 1);
    let other = machine.launch(&flow_key, 2, &it);
    machine.remove(&flow_key, 2);
    assert_ne!(public, other);
    for (signed, body) in machine
        .world
        .agent_reports
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, body)| body.generation == 1)
    {
        assert!(signed.is_signed_by(&public), "{body:?}");
        assert!(!signed.is_signed_by(&other));
    }
}

pub(crate) fn a_launch_that_is_late_or_was_removed_never_starts_an_agent() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("it"), &DAG);
    let key = key(&unique("late"));
    machine.create_compute("c1");
    let mut request = Machine::launch_request(&key, 1, "c1", &it);
    let ComputeRequest::LaunchSession { until, .. } = &mut request else {
        unreachable!()
    };
    *until = 1;
    machine.ask(request);
    assert_eq!(machine.gone(&key, 1).unwrap().error, Code::SessionLaunchTooLate);
    machine.remove(&key, 3);
    for generation in [1, 2, 3] {
        machine.ask(Machine::launch_request(&key, generation, "c1", &it));
    }
    assert_eq!(machine.gone(&key, 2).unwrap().error, Code::SessionRemoved);
    assert_eq!(processes_with(&format!("{key}/")), Vec::<String>::new());
    assert_eq!(
        fs::read_dir(machine.state.join("sessions").join(&key)).unwrap().count(),
        1
    );
    machine.ask(Machine::launch_request(&key, 4, "no-such-compute", &it));
    assert_eq!(machine.gone(&key, 4).unwrap().error, Code::SessionNoCompute);
}

pub(crate) fn an_agent_that_is_killed_takes_its_sandbox_with_it_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let key = key(&unique("killed"));
    let it = folder.path().join("it");
    let (_, mark) = asleep(&machine, &key, 1, &it);
    kill(process_ids(&machine, &key, 1).0);
    let failure = machine.gone(&key, 1).unwrap();
    assert_eq!(failure.error, Code::SessionAgentDied);
    let log = failure
        .message
        .split_whitespace()
        .find(|word| word.contains("/logs/"))
        .unwrap()
        .trim_end_matches('.');
    assert!(Path::new(log).exists(), "{failure}");
    gone_from_the_machine(&machine, &key, &mark);
}

pub(crate) fn a_runner_that_is_killed_fails_its_runs_and_the_next_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let key = key(&unique("runner"));
    let it = folder.path().join("it");
    let (run, mark) = asleep(&machine, &key, 1, &it);
    kill(process_ids(&machine, &key, 1).1[0]);
    assert_eq!(
        machine.ended_run(&key, 1, &run).failure.unwrap().error,
        Code::RunCrashed
    );
    machine
        .world
        .wait("the end of all processes", Duration::from_secs(60), |_| {
            processes_with(&mark).is_empty().then_some(())
        });
    flex(&it, "def main() -> str:\n    return 'again'\n");
    assert_eq!(
        output(&machine.run(&key, 1, &unique("again"), &it, RunWish::default())),
        json!({ "output": "again" })
    );
    machine.remove(&key, 1);
    gone_from_the_machine(&machine, &key, &mark);
}

pub(crate) fn a_host_that_comes_back_finds_its_agents_and_reports_the_dead() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(&state());
    let (lives, dies) = (key(&unique("lives")), key(&unique("dies")));
    let it = flow(&folder.path().join("it"), &DAG);
    machine.start(&lives, 1, &it);
    let other = folder.path().join("other");
    let (_, mark) = asleep(&machine, &dies, 1, &other);
    let (living, dead) = (process_ids(&machine, &lives, 1).0, process_ids(&machine, &dies, 1).0);
    // A launch that was cut off: an agent that waits for its specification.
    let cut = machine.state.join("sessions").join(&dies).join("2");
    fs::create_dir_all(&cut).unwrap();
    // And files that a removal was cut off from.
    fs::create_dir_all(machine.state.join("gone/cut-off/tmp")).unwrap();
    machine.restart_host();
    kill(dead);
    // Nobody is there to end it: the sandbox ends with its agent by itself.
    machine
        .world
        .wait("the end of the sandbox", Duration::from_secs(60), |_| {
            processes_with(&mark).is_empty().then_some(())
        });
    machine.runtime.block_on(machine.driver.recover());
    assert_eq!(machine.gone(&dies, 1).unwrap().error, Code::SessionAgentDied);
    assert!(!cut.exists());
    gone_from_the_machine(&machine, &dies, &mark);
    assert_eq!(
        output(&machine.run(&lives, 1, &unique("still"), &it, RunWish::default())),
        json!({ "greeting": "Hello, world!" })
    );
    // And it is watched again.
    kill(living);
    assert_eq!(machine.gone(&lives, 1).unwrap().error, Code::SessionAgentDied);
}

pub(crate) fn a_released_compute_takes_its_sessions_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let key = key(&unique("released"));
    let (_, mark) = asleep(&machine, &key, 1, &folder.path().join("it"));
    machine.ask(ComputeRequest::ReleaseCompute { compute: "c1".into() });
    assert_eq!(machine.gone(&key, 1), None);
    gone_from_the_machine(&machine, &key, &mark);
    assert!(!machine.state.join("computes/c1").exists());
    machine.ask(ComputeRequest::ReleaseCompute { compute: "c1".into() });
}

/// It runs beside the others, on a machine of its own.
pub(crate) fn an_agent_whose_lease_is_not_renewed_ends() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&folder.path().join("state"));
    let it = flow(&folder.path().join("it"), &DAG);
    *machine.world.silent.lock().unwrap() = true;
    let key = key(&unique("lease"));
    machine.launch(&key, 1, &it);
    let asks = |count: u64| {
        machine.report("a request for a lease", Duration::from_secs(40), &key, 1, |report| {
            matches!(report, AgentReport::Alive { nonce, .. } if *nonce == count).then_some(())
        });
    };
    asks(1);
    asks(2);
    asks(3);
    let begun = Instant::now();
    let failure = machine.world.wait("the end", Duration::from_secs(40), |world| {
        world
            .driver_reports
            .lock()
            .unwrap()
            .iter()
            .find_map(|report| match report {
                DriverReport::SessionGone { failure, .. } => Some(failure.clone()),
                _ => None,
            })
    });
    assert_eq!(failure.unwrap().error, Code::SessionAgentDied);
    // A third of the lease after it asked for the third time.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
