//! The times of a session's start and of a run, beside the floor. `cargo run -p agent --example
//! speed`
//!
//! It is its own agent program.

#[allow(dead_code, reason = "shared with others")]
#[path = "../tests/common/mod.rs"]
mod common;

use common::{DAG, Machine, flow, state};
use contract::command::RunWish;
use std::time::{Duration, Instant};

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).is_some_and(|first| first == "agent") {
        return agent::supervise();
    }
    let folder = std::env::temp_dir().join(format!("agent-speed-{}", std::process::id()));
    let hello = flow(&folder.join("hello"), &DAG);
    let machine = Machine::new(&state());
    let key = contract::FlowRef {
        workspace: "local".into(),
        owner: "me".into(),
        lineage: hello.display().to_string(),
    }
    .key();
    let id = std::process::id();
    let mut figures: Vec<(&str, Vec<Duration>)> = [
        "launch to session-up",
        "launch to installed",
        "first run after that",
        "a run in a session in use",
        "removal",
    ]
    .map(|name| (name, Vec::new()))
    .to_vec();
    // The first builds what is not there, and is not counted; the warm process comes up meanwhile.
    for generation in 1..=12 {
        let mut add = |which: usize, took: Duration| figures[which].1.push(took);
        let begun = Instant::now();
        machine.launch(&key, generation, &hello);
        let up = begun.elapsed();
        assert_eq!(
            machine.install(&key, generation, &format!("i{id}-{generation}"), &hello),
            None
        );
        let installed = begun.elapsed();
        let run = |number: u32| {
            let begun = Instant::now();
            let result = machine.run(
                &key,
                generation,
                &format!("r{id}-{generation}-{number}"),
                &hello,
                RunWish::default(),
            );
            assert_eq!(result.failure, None);
            begun.elapsed()
        };
        let runs = [run(0), run(1), run(2)];
        let begun = Instant::now();
        machine.remove(&key, generation);
        machine.gone(&key, generation);
        if generation > 2 {
            add(0, up);
            add(1, installed);
            add(2, runs[0]);
            add(3, runs[1]);
            add(3, runs[2]);
            add(4, begun.elapsed());
        } else {
            println!(
                "not counted: installed after {installed:.2?}, first run {:.2?}",
                runs[0]
            );
            std::thread::sleep(Duration::from_secs(4));
        }
    }
    for (name, mut all) in figures {
        all.sort();
        let ms = |at: usize| all[at].as_secs_f64() * 1000.0;
        println!(
            "{name:28} median {:6.1} ms   least {:6.1}   most {:6.1}",
            ms(all.len() / 2),
            ms(0),
            ms(all.len() - 1)
        );
    }
    machine.driver.let_go();
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
