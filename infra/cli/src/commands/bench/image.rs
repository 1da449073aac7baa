//! Starts of a session on an image, beside those on the base image that is built in.

use super::{
    figures::{Figure, Times, times},
    measure::{Bench, say, starting, time},
};
use crate::{trouble::Trouble, wish::Flow};
use contract::command::{Wanted, Wish};
use lifecycle::count;
use std::{
    process::{Command, Stdio},
    time::Instant,
};

impl Bench<'_> {
    /// Starts from an image that is unpacked. The floor is a start from the image that is built in,
    /// in turn with it.
    pub(super) fn on_image(&self, image: &str) -> Result<Figure, Box<Trouble>> {
        let on_image = || Wish::Start {
            settings: Wanted {
                image: Some(image.to_owned()),
                ..Wanted::default()
            },
        };
        let (flow, beside) = (self.flow("on-image")?, self.flow("built-in")?);
        let start = |flow: &Flow, wish: Wish| {
            let took = time(|| self.operate(flow, "start", wish))?;
            self.operate(flow, "stop", Wish::Stop)?;
            Ok::<_, Box<Trouble>>(took)
        };
        say("the first start on the image, which pulls it and builds on it");
        start(&flow, on_image())?;
        start(&beside, starting())?;
        say(&format!(
            "{} of starts on the image and beside it",
            count(self.rounds, "round")
        ));
        let (mut ours, mut built_in) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            built_in.push(start(&beside, starting())?);
            ours.push(start(&flow, on_image())?);
        }
        let podman = podman(image, self.rounds);
        let podman = podman.inspect_err(|why| say(&format!("podman is not measured: {why}")));
        Ok(Figure {
            ours: times("start a session from an image that is unpacked, to Ready".into(), &ours),
            floor: Some(times("from the image that is built in".into(), &built_in)),
            plain: podman.ok(),
        })
    }
}

/// The times of a container of podman on the same image, with an interpreter that ends at once; or
/// why there are none.
fn podman(image: &str, rounds: usize) -> Result<Times, String> {
    let execute = |arguments: &[&str]| {
        let output = Command::new("podman").args(arguments).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("it does not start: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(said.trim().lines().last().unwrap_or_default().to_owned()),
        }
    };
    // A registry of this machine has no TLS.
    let is_here = ["127.0.0.1:", "localhost:"].iter().any(|host| image.starts_with(host));
    let tls = format!("--tls-verify={}", !is_here);
    let id = execute(&["pull", "--quiet", &tls, image])?;
    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "--pull",
        "never",
        &id,
        "python3",
        "-c",
        "pass",
    ];
    execute(&run)?;
    let all: Result<Vec<f64>, String> = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            execute(&run)?;
            Ok(begun.elapsed().as_secs_f64() * 1000.0)
        })
        .collect();
    Ok(times("`podman run` of its Python, which ends at once".into(), &all?))
}
