//! The floors, and the same acts without pfsession.

use super::{
    figures::{Plain, Times, times},
    measure::{Bench, NEW_PACKAGES, TWO_PACKAGES, show_path},
};
use crate::trouble::Trouble;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

impl Bench<'_> {
    /// The floors, and the plain ways to the same.
    ///
    /// * `is_new`: whether a whole environment is to be installed in the plain ways too.
    pub(super) fn plain(&self, is_new: bool) -> Result<Plain, Box<Trouble>> {
        let spaces = "unshare --user --map-root-user --mount --pid --ipc --uts --fork true";
        let mut plain = Plain {
            spaces: measure_plain("namespaces and exec", self.rounds, &words(spaces)),
            exec: measure_plain("exec", self.rounds, &words("true")),
            ..Plain::default()
        };
        let Some(python) = self.base_python() else {
            return Ok(plain);
        };
        let of = |arguments: &str| [vec![show_path(&python)], words(arguments)].concat();
        plain.python = measure_plain("a bare interpreter", self.rounds, &of("-I -S -c pass"));
        let flow = self.place.join("bench").display().to_string();
        // The service that it leaves running is then not the user's own, and can be ended.
        let home = vec!["env".to_owned(), format!("HOME={}", self.place.display())];
        let pf = |arguments: &str| [home.clone(), of("-m promptflow._cli.pf"), words(arguments)].concat();
        let command = [pf("flow test --flow"), vec![flow]].concat();
        self.require("bench", "")?;
        plain.pf_test = measure_plain("`pf flow test`", 3, &command);
        is_done(&pf("service stop"));
        plain.two = self.installers(&python, TWO_PACKAGES, 5);
        // This takes minutes, and one round is only to see that it works.
        if is_new && self.rounds > 1 {
            plain.all = self.installers(&python, &format!("promptflow promptflow-tools {}", NEW_PACKAGES[2]), 1);
        }
        Ok(plain)
    }

    /// The Python of an environment that has promptflow.
    fn base_python(&self) -> Option<PathBuf> {
        let environments = fs::read_dir(self.store.join("environments")).ok()?;
        let pythons = environments.flatten().map(|entry| entry.path().join("bin/python"));
        pythons.filter(|python| python.exists()).find(|python| {
            is_done(
                &[
                    vec![show_path(python)],
                    words("-c"),
                    vec!["import promptflow.executor".into()],
                ]
                .concat(),
            )
        })
    }

    /// Packages installed into an empty folder, from what has been fetched before: by uv as it is,
    /// and by pip.
    fn installers(&self, python: &Path, packages: &str, rounds: usize) -> (Option<Times>, Option<Times>) {
        let target = self.place.join("installed");
        let cache = self.place.join("uv-cache");
        let installed = |what: &str, command: Vec<String>, rounds: usize| {
            let command = [command, vec![show_path(&target)], words(packages)].concat();
            let once = || {
                let _ = fs::remove_dir_all(&target);
                let begun = Instant::now();
                is_done(&command).then(|| begun.elapsed().as_secs_f64() * 1000.0)
            };
            if rounds > 1 {
                once()?;
            }
            let all = (0..rounds).map(|_| once()).collect::<Option<Vec<_>>>()?;
            Some(times(what.to_owned(), &all))
        };
        let uv = self.store.join("tools/uv");
        let uv = if uv.is_file() { show_path(&uv) } else { "uv".into() };
        let uv = [
            vec![uv],
            words("pip install --compile-bytecode --link-mode copy --python"),
            vec![show_path(python), "--cache-dir".into(), show_path(&cache)],
            words("--target"),
        ];
        let pip = words("python3 -m pip install --quiet --target");
        (
            installed("bare uv, from its cache", uv.concat(), rounds),
            installed("pip, from its cache", pip, rounds.min(3)),
        )
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The time of a command, if this machine can run it.
fn measure_plain(what: &str, rounds: usize, command: &[String]) -> Option<Times> {
    if !is_done(command) {
        return None;
    }
    let all: Vec<f64> = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            is_done(command);
            begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    Some(times(what.to_owned(), &all))
}

fn is_done(command: &[String]) -> bool {
    let status = Command::new(&command[0])
        .args(&command[1..])
        // It alone makes imports several times slower, which would not be fair to them.
        .env_remove("PYTHONDONTWRITEBYTECODE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
