//! `pfsession bench`: how fast sessions are on this machine, beside the physical floor and what people have without this.
//!
//! All of it goes the whole way: a command in by HTTP, every queue, real function processes, the observed result out. It has a host of its own over
//! a state folder of its own; the environments are those that the user's sessions have.

use crate::{
    args,
    client::Client,
    commands::Done,
    request::address_of,
    service::Local,
    terminal::note,
    text::{out, out_json},
    trouble::{FAILED, Trouble, UNREACHABLE},
    watch,
    wish::{Flow, flow_at},
};
use contract::{
    command::{Command as Sent, RunWish, Wanted, Wish},
    http::SessionView,
    packages::PackagesRow,
    row::{OperationRow, OperationStatus, RunRow, RunStatus},
};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// Two packages without others below them, which promptflow has not.
const TWO_PACKAGES: &str = "toolz==0.12.1\nhumanize==4.9.0\n";
/// The same, of which one takes the place of promptflow's own: no process with promptflow loaded can be forked for them.
const ONE_REPLACED: &str = "tabulate==0.9.0\nhumanize==4.9.0\n";
/// Packages like these in other versions: each is an environment that no store has yet, unless this was measured before.
const NEW_PACKAGES: [&str; 3] = [
    "toolz==0.12.0\nhumanize==4.8.0\n",
    "toolz==0.11.2\nhumanize==4.7.0\n",
    "toolz==0.11.1\nhumanize==4.6.0\n",
];
const FLOW: [(&str, &str); 2] = [
    (
        "flow.dag.yaml",
        include_str!("../../../tests/flows/one-node/flow.dag.yaml"),
    ),
    ("echo.py", include_str!("../../../tests/flows/one-node/echo.py")),
];

/// Measured times, in milliseconds.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Times {
    /// The act that was measured.
    what: String,
    median_ms: f64,
    /// The ninetieth percentile.
    p90_ms: f64,
    rounds: usize,
}

/// One line of the table.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Figure {
    ours: Times,
    /// The physical floor.
    floor: Option<Times>,
    /// The plain alternative.
    plain: Option<Times>,
}

/// The output of a benchmark.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Report {
    /// How the session was kept apart, as its agent said.
    isolation: String,
    figures: Vec<Figure>,
}

pub(crate) fn bench(wanted: &args::Bench, local: &Local, json: bool) -> Done {
    let beside = local.state.parent().unwrap_or(&local.state);
    let cannot = |why| not_written(beside, &why);
    fs::create_dir_all(beside).map_err(cannot)?;
    let place = tempfile::Builder::new()
        .prefix("pfsession-bench-")
        .tempdir_in(beside)
        .map_err(cannot)?;
    let own = Local {
        state: wanted.within.clone().unwrap_or_else(|| place.path().join("state")),
        store: Some(environments::store_folder(&local.state)),
    };
    let host = own.find_or_start()?;
    let report = Client::new(address_of(&host), Some(own.clone()), None).and_then(|client| {
        let bench = Bench {
            client,
            place: place.path(),
            store: own.store.clone().unwrap_or_default(),
            rounds: wanted.rounds.max(1),
        };
        bench.measure(usize::from(wanted.at_once))
    });
    // Whatever it has found, nothing of it stays.
    own.end(&host)?;
    let report = report?;
    if json {
        out_json(&report);
    } else {
        table(&report);
    }
    Ok(0)
}

fn table(report: &Report) {
    out("| what | ours (median) | 90 % within | rounds | floor | the plain way |");
    out("| --- | --- | --- | --- | --- | --- |");
    let beside = |times: &Option<Times>| {
        times.as_ref().map_or_else(
            || "-".to_owned(),
            |times| format!("{} ({})", ms(times.median_ms), times.what),
        )
    };
    for Figure { ours, floor, plain } in &report.figures {
        out(&format!(
            "| {} | {} | {} | {} | {} | {} |",
            ours.what,
            ms(ours.median_ms),
            ms(ours.p90_ms),
            ours.rounds,
            beside(floor),
            beside(plain)
        ));
    }
    out("");
    out(&format!("Isolation: {}", report.isolation));
}

struct Bench<'a> {
    client: Client,
    place: &'a Path,
    store: PathBuf,
    rounds: usize,
}

impl Bench<'_> {
    fn measure(&self, at_once: usize) -> Result<Report, Box<Trouble>> {
        let (mut figures, isolation) = self.one_at_a_time()?;
        if at_once > 0 {
            figures.extend(self.at_once(at_once)?);
        }
        Ok(Report { isolation, figures })
    }

    /// A flow of its own, so that its requirements can be changed.
    fn flow(&self, name: &str) -> Result<Flow, Box<Trouble>> {
        let folder = self.place.join(name);
        let written = fs::create_dir_all(&folder).and_then(|()| {
            FLOW.iter()
                .try_for_each(|(file, text)| fs::write(folder.join(file), text))
        });
        written.map_err(|why| not_written(&folder, &why))?;
        self.require(name, "")?;
        flow_at(&folder, &self.client.user)
    }

    fn require(&self, name: &str, requirements: &str) -> Result<(), Box<Trouble>> {
        let file = self.place.join(name).join("requirements.txt");
        fs::write(&file, requirements).map_err(|why| not_written(&file, &why))
    }

    fn send(&self, flow: &Flow, word: &str, wish: Wish) -> Result<String, Box<Trouble>> {
        let id = flow.new_id(Some(word));
        self.client.send(&Sent {
            id: id.clone(),
            flow: flow.reference.clone(),
            principal: None,
            wish,
        })?;
        Ok(id)
    }

    fn operation_ends(&self, id: &str) -> Result<OperationRow, Box<Trouble>> {
        let row: OperationRow = watch::until_end(&self.client, id)?;
        match row.status {
            OperationStatus::Succeeded => Ok(row),
            _ => Err(failed(id, row.failure)),
        }
    }

    fn run_ends(&self, id: &str) -> Result<RunRow, Box<Trouble>> {
        let row: RunRow = watch::until_end(&self.client, id)?;
        match row.status {
            RunStatus::Completed => Ok(row),
            _ => Err(failed(id, row.failure)),
        }
    }

    fn operate(&self, flow: &Flow, word: &str, wish: Wish) -> Result<(), Box<Trouble>> {
        let id = self.send(flow, word, wish)?;
        self.operation_ends(&id).map(|_| ())
    }

    fn run(&self, flow: &Flow) -> Result<(), Box<Trouble>> {
        let id = self.send(flow, "run", running())?;
        self.run_ends(&id).map(|_| ())
    }

    fn one_at_a_time(&self) -> Result<(Vec<Figure>, String), Box<Trouble>> {
        let flow = self.flow("bench")?;
        let packages = format!("/v1/sessions/{}/packages", flow.key());
        say("the first start, which makes the environments that this machine does not have yet");
        self.operate(&flow, "start", starting())?;
        self.run(&flow)?;
        for packages in [ONE_REPLACED, TWO_PACKAGES] {
            self.require("bench", packages)?;
            self.operate(&flow, "install", installing())?;
        }
        let isolation = self.client.get::<PackagesRow>(&packages)?.isolation;
        let isolation = isolation.map_or_else(|| "not known".into(), |isolation| isolation.to_string());
        self.operate(&flow, "stop", Wish::Stop)?;

        say(&format!(
            "{} rounds of start, run, install, packages, reset and stop",
            self.rounds
        ));
        let ours = self.rounds_of(&flow, &packages)?;
        let new = self.new_environments(&flow)?;
        let mut requests = Vec::new();
        for _ in 0..self.rounds {
            requests.push(timed(|| self.client.find::<SessionView>("/v1/sessions/0").map(|_| ()))?);
        }
        say("the floors and the plain ways");
        let plain = self.plain(!new.is_empty())?;
        let request = times("a request for a session that is not there".into(), &requests);
        if new.is_empty() {
            say("no first start of a new environment: those are here from before");
        }
        Ok((figures(ours, new, request, plain), isolation))
    }

    /// Times of each act of a session's life, by rounds: start, first run, second run, install in place of a package, install, packages, reset,
    /// stop.
    fn rounds_of(&self, flow: &Flow, packages: &str) -> Result<[Vec<f64>; 8], Box<Trouble>> {
        let mut ours: [Vec<f64>; 8] = Default::default();
        for _ in 0..self.rounds {
            let [start, first, second, replaced, install, listed, reset, stop] = &mut ours;
            self.require("bench", "")?;
            start.push(timed(|| self.operate(flow, "start", starting()))?);
            first.push(timed(|| self.run(flow))?);
            second.push(timed(|| self.run(flow))?);
            self.require("bench", ONE_REPLACED)?;
            replaced.push(timed(|| self.operate(flow, "install", installing()))?);
            self.require("bench", TWO_PACKAGES)?;
            install.push(timed(|| self.operate(flow, "install", installing()))?);
            listed.push(timed(|| self.client.get::<PackagesRow>(packages).map(|_| ()))?);
            reset.push(timed(|| self.operate(flow, "reset", resetting()))?);
            stop.push(timed(|| self.operate(flow, "stop", Wish::Stop))?);
        }
        Ok(ours)
    }

    /// Times of starts whose environment is not there yet; none if all are there from before.
    fn new_environments(&self, flow: &Flow) -> Result<Vec<f64>, Box<Trouble>> {
        let mut new = Vec::new();
        for packages in NEW_PACKAGES {
            self.require("bench", packages)?;
            let before = self.environments();
            let took = timed(|| self.operate(flow, "start", starting()))?;
            // Once they have been made they are there.
            if self.environments() > before {
                new.push(took);
            }
            self.operate(flow, "stop", Wish::Stop)?;
        }
        Ok(new)
    }

    /// The floors, and the plain ways to the same.
    ///
    /// * `is_new`: whether a whole environment is to be installed in the plain ways too.
    fn plain(&self, is_new: bool) -> Result<Plain, Box<Trouble>> {
        let spaces = "unshare --user --map-root-user --mount --pid --ipc --uts --fork true";
        let mut plain = Plain {
            spaces: measured("namespaces and exec", self.rounds, &words(spaces)),
            exec: measured("exec", self.rounds, &words("true")),
            ..Plain::default()
        };
        let Some(python) = self.base_python() else {
            return Ok(plain);
        };
        let of = |arguments: &str| [vec![shown(&python)], words(arguments)].concat();
        plain.python = measured("a bare interpreter", self.rounds, &of("-I -S -c pass"));
        let flow = self.place.join("bench").display().to_string();
        // The service that it leaves running is then not the user's own, and can be ended.
        let home = vec!["env".to_owned(), format!("HOME={}", self.place.display())];
        let pf = |arguments: &str| [home.clone(), of("-m promptflow._cli.pf"), words(arguments)].concat();
        let command = [pf("flow test --flow"), vec![flow]].concat();
        self.require("bench", "")?;
        plain.pf_test = measured("`pf flow test`", 3, &command);
        is_done(&pf("service stop"));
        plain.two = self.installers(&python, TWO_PACKAGES, 5);
        // This takes minutes, and whoever wants one round wants to see that it works.
        if is_new && self.rounds > 1 {
            plain.all = self.installers(&python, &format!("promptflow promptflow-tools {}", NEW_PACKAGES[2]), 1);
        }
        Ok(plain)
    }

    /// So many sessions at once: started, run in, stopped, each as if it were alone.
    fn at_once(&self, count: usize) -> Result<Vec<Figure>, Box<Trouble>> {
        say(&format!("{count} sessions at once"));
        let flows = (0..count)
            .map(|nth| self.flow(&format!("flow-{nth}")))
            .collect::<Result<Vec<_>, _>>()?;
        let mut figures = Vec::new();
        for (word, what) in [("start", "start"), ("run", "the first run"), ("stop", "stop")] {
            let begun = Instant::now();
            let wish = || match word {
                "start" => starting(),
                "run" => running(),
                _ => Wish::Stop,
            };
            let ids = flows
                .iter()
                .map(|flow| self.send(flow, word, wish()))
                .collect::<Result<Vec<_>, _>>()?;
            let mut each = Vec::new();
            for id in &ids {
                let (accepted, ended) = if word == "run" {
                    let row = self.run_ends(id)?;
                    (row.accepted, row.ended)
                } else {
                    let row = self.operation_ends(id)?;
                    (row.accepted, row.ended)
                };
                each.push(ended.unwrap_or(accepted).saturating_sub(accepted) as f64);
            }
            let all = begun.elapsed().as_secs_f64() * 1000.0;
            let what = format!(
                "{what}, {count} at once: each, from its acceptance on (all of them: {})",
                ms(all)
            );
            figures.push(Figure {
                ours: times(what, &each),
                floor: None,
                plain: None,
            });
        }
        Ok(figures)
    }

    /// How many there are in the store.
    fn environments(&self) -> usize {
        let entries = fs::read_dir(self.store.join("environments")).into_iter().flatten();
        entries.flatten().filter(|entry| entry.path().is_dir()).count()
    }

    /// The Python of an environment that has promptflow.
    fn base_python(&self) -> Option<PathBuf> {
        let environments = fs::read_dir(self.store.join("environments")).ok()?;
        let pythons = environments.flatten().map(|entry| entry.path().join("bin/python"));
        pythons.filter(|python| python.exists()).find(|python| {
            is_done(
                &[
                    vec![shown(python)],
                    words("-c"),
                    vec!["import promptflow.executor".into()],
                ]
                .concat(),
            )
        })
    }

    /// Packages installed into an empty folder, from what has been fetched before: by uv as it is, and by pip.
    fn installers(&self, python: &Path, packages: &str, rounds: usize) -> (Option<Times>, Option<Times>) {
        let target = self.place.join("installed");
        let cache = self.place.join("uv-cache");
        let installed = |what: &str, command: Vec<String>, rounds: usize| {
            let command = [command, vec![shown(&target)], words(packages)].concat();
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
        let uv = if uv.is_file() { shown(&uv) } else { "uv".into() };
        let uv = [
            vec![uv],
            words("pip install --compile-bytecode --link-mode copy --python"),
            vec![shown(python), "--cache-dir".into(), shown(&cache)],
            words("--target"),
        ];
        let pip = words("python3 -m pip install --quiet --target");
        (
            installed("bare uv, from its cache", uv.concat(), rounds),
            installed("pip, from its cache", pip, rounds.min(3)),
        )
    }
}

fn starting() -> Wish {
    Wish::Start {
        settings: Wanted::default(),
    }
}

fn installing() -> Wish {
    Wish::Install {
        settings: None,
        lock: None,
    }
}

fn resetting() -> Wish {
    Wish::Reset {
        settings: None,
        resolve: false,
    }
}

fn running() -> Wish {
    Wish::Run {
        settings: Wanted::default(),
        run: RunWish::default(),
    }
}

fn failed(id: &str, failure: Option<contract::Failure>) -> Box<Trouble> {
    match failure {
        Some(failure) => Trouble::of(FAILED, failure).what(format!("The benchmark's {id} has failed")),
        None => Trouble::new(
            FAILED,
            "Session.Canceled",
            format!("The benchmark's {id} was ended by somebody"),
        ),
    }
}

fn not_written(path: &Path, why: &std::io::Error) -> Box<Trouble> {
    Trouble::new(
        UNREACHABLE,
        "Service.NotStarted",
        format!("{} cannot be written: {why}", path.display()),
    )
    .next("see that the state folder's disk has room, or name another folder with --state")
}

/// Times of the same acts without pfsession, where they could be measured.
///
/// * `two`, `all`: two packages, and a whole environment, by uv and by pip.
#[derive(Default)]
struct Plain {
    spaces: Option<Times>,
    exec: Option<Times>,
    python: Option<Times>,
    pf_test: Option<Times>,
    two: (Option<Times>, Option<Times>),
    all: (Option<Times>, Option<Times>),
}

fn figures(ours: [Vec<f64>; 8], new: Vec<f64>, request: Times, plain: Plain) -> Vec<Figure> {
    let [start, first, second, replaced, install, listed, reset, stop] = ours;
    let figure = |what: &str, ours: &[f64], floor: Option<Times>, plain: Option<Times>| Figure {
        ours: times(what.into(), ours),
        floor,
        plain,
    };
    let (python, spaces) = (plain.python, plain.spaces);
    let mut all = vec![
        figure(
            "start a session whose environment is in the store, to Ready",
            &start,
            spaces.clone(),
            None,
        ),
        figure(
            "the first run of a one-node flow in a Ready session, to its output",
            &first,
            python.clone(),
            plain.pf_test.clone(),
        ),
        figure("the second run", &second, python, plain.pf_test),
        figure(
            "install two packages that the store has, one in place of the base image's own",
            &replaced,
            None,
            None,
        ),
        figure(
            "install two packages that the store has",
            &install,
            plain.two.0,
            plain.two.1,
        ),
        figure("view the installed packages", &listed, Some(request), None),
        figure("reset, with these two packages, to Ready again", &reset, spaces, None),
        figure("stop, to observed Stopped", &stop, plain.exec, None),
    ];
    if !new.is_empty() {
        let what = "the first start of an environment that is new: two packages beside promptflow";
        all.push(figure(what, &new, plain.all.0, plain.all.1));
    }
    all
}

fn say(what: &str) {
    note!("measuring: {what}");
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn timed(what: impl FnOnce() -> Result<(), Box<Trouble>>) -> Result<f64, Box<Trouble>> {
    let begun = Instant::now();
    what()?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// How long a command takes, if this machine can do it.
fn measured(what: &str, rounds: usize, command: &[String]) -> Option<Times> {
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

fn times(what: String, all: &[f64]) -> Times {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quantile = |part: f64| {
        let nth = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
        sorted.get(nth).copied().unwrap_or_default()
    };
    Times {
        what,
        median_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        rounds: all.len(),
    }
}

fn ms(millis: f64) -> String {
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_and_nine_of_ten_took_at_most_the_other() {
        let all: Vec<f64> = (0..=10).rev().map(f64::from).collect();
        let times = times("it".into(), &all);
        assert_eq!((times.median_ms, times.p90_ms, times.rounds), (5.0, 9.0, 11));
        assert_eq!((ms(9.96), ms(41.4)), ("10.0 ms".into(), "41 ms".into()));
    }
}
