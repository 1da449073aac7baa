//! The acts that are measured.

use super::figures::{Figure, Report, figures, ms, times};
use crate::{
    client::Client,
    operate,
    terminal::note,
    trouble::{FAILED, Trouble, UNREACHABLE},
    watch,
    wish::{Flow, flow_at},
};
use contract::{
    Code,
    command::{Command as Sent, RunWish, Wanted, Wish},
    http::SessionView,
    packages::PackagesRow,
    route::Route,
    row::{OperationRow, OperationStatus, RunRow, RunStatus},
};
use lifecycle::count;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// Two packages without others below them, which promptflow has not.
pub(super) const TWO_PACKAGES: &str = "toolz==0.12.1\nhumanize==4.9.0\n";

/// The same, of which one takes the place of promptflow's own: no process with promptflow loaded
/// can be forked for them.
const ONE_REPLACED: &str = "tabulate==0.9.0\nhumanize==4.9.0\n";

/// Packages like these in other versions: each is an environment that no store has yet, unless this
/// was measured before.
pub(super) const NEW_PACKAGES: [&str; 3] = [
    "toolz==0.12.0\nhumanize==4.8.0\n",
    "toolz==0.11.2\nhumanize==4.7.0\n",
    "toolz==0.11.1\nhumanize==4.6.0\n",
];

const FLOW: [(&str, &str); 2] = [
    ("flow.dag.yaml", include_str!("flow/flow.dag.yaml")),
    ("echo.py", include_str!("flow/echo.py")),
];

pub(super) struct Bench<'a> {
    pub(super) client: Client,
    pub(super) place: &'a Path,
    pub(super) store: PathBuf,
    pub(super) rounds: usize,
}

impl Bench<'_> {
    pub(super) fn measure(&self, at_once: usize, image: Option<&str>) -> Result<Report, Box<Trouble>> {
        let (mut figures, isolation) = self.one_at_a_time()?;
        if let Some(image) = image {
            figures.push(self.on_image(image)?);
        }
        if at_once > 0 {
            figures.extend(self.at_once(at_once)?);
        }
        Ok(Report { isolation, figures })
    }

    /// A flow of its own, so that its requirements can be changed.
    pub(super) fn flow(&self, name: &str) -> Result<Flow, Box<Trouble>> {
        let folder = self.place.join(name);
        let written = fs::create_dir_all(&folder).and_then(|()| {
            FLOW.iter()
                .try_for_each(|(file, text)| fs::write(folder.join(file), text))
        });
        written.map_err(|why| not_written(&folder, &why))?;
        self.require(name, "")?;
        flow_at(&folder, &self.client.user)
    }

    pub(super) fn require(&self, name: &str, requirements: &str) -> Result<(), Box<Trouble>> {
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
            _ => Err(failure_of(id, row.failure)),
        }
    }

    fn run_ends(&self, id: &str) -> Result<RunRow, Box<Trouble>> {
        let row: RunRow = watch::until_end(&self.client, id)?;
        match row.status {
            RunStatus::Completed => Ok(row),
            _ => Err(failure_of(id, row.failure)),
        }
    }

    pub(super) fn operate(&self, flow: &Flow, word: &str, wish: Wish) -> Result<(), Box<Trouble>> {
        let id = self.send(flow, word, wish)?;
        self.operation_ends(&id).map(|_| ())
    }

    fn run(&self, flow: &Flow) -> Result<(), Box<Trouble>> {
        let id = self.send(flow, "run", running())?;
        self.run_ends(&id).map(|_| ())
    }

    fn one_at_a_time(&self) -> Result<(Vec<Figure>, String), Box<Trouble>> {
        let flow = self.flow("bench")?;
        let key = flow.key();
        let packages = Route::Packages(&key);
        say("the first start, which makes the environments that this machine does not have yet");
        self.operate(&flow, "start", starting())?;
        self.run(&flow)?;
        for packages in [ONE_REPLACED, TWO_PACKAGES] {
            self.require("bench", packages)?;
            self.operate(&flow, "install", installing())?;
        }
        let isolation = self.client.get::<PackagesRow>(packages)?.isolation;
        let isolation = isolation.map_or_else(|| "not known".into(), |isolation| isolation.to_string());
        self.operate(&flow, "stop", Wish::Stop)?;

        say(&format!(
            "{} of start, run, install, packages, reset and stop",
            count(self.rounds, "round")
        ));
        let ours = self.rounds_of(&flow, packages)?;
        let new = self.new_environments(&flow)?;
        let mut requests = Vec::new();
        for _ in 0..self.rounds {
            requests.push(time(|| {
                self.client.find::<SessionView>(Route::Session("0")).map(|_| ())
            })?);
        }
        say("the floors and the plain ways");
        let plain = self.plain(!new.is_empty())?;
        let request = times("a request for a session that is not there".into(), &requests);
        if new.is_empty() {
            say("no first start of a new environment: those are here from before");
        }
        Ok((figures(ours, new, request, plain), isolation))
    }

    /// Times of each act of a session's life, by rounds: start, first run, second run, install in
    /// place of a package, install, packages, reset, stop.
    fn rounds_of(&self, flow: &Flow, packages: Route) -> Result<[Vec<f64>; 8], Box<Trouble>> {
        let mut ours: [Vec<f64>; 8] = Default::default();
        for _ in 0..self.rounds {
            let [start, first, second, replaced, install, listed, reset, stop] = &mut ours;
            self.require("bench", "")?;
            start.push(time(|| self.operate(flow, "start", starting()))?);
            first.push(time(|| self.run(flow))?);
            second.push(time(|| self.run(flow))?);
            self.require("bench", ONE_REPLACED)?;
            replaced.push(time(|| self.operate(flow, "install", installing()))?);
            self.require("bench", TWO_PACKAGES)?;
            install.push(time(|| self.operate(flow, "install", installing()))?);
            listed.push(time(|| self.client.get::<PackagesRow>(packages).map(|_| ()))?);
            reset.push(time(|| self.operate(flow, "reset", resetting()))?);
            stop.push(time(|| self.operate(flow, "stop", Wish::Stop))?);
        }
        Ok(ours)
    }

    /// Times of starts whose environment is not there yet; none if all are there from before.
    fn new_environments(&self, flow: &Flow) -> Result<Vec<f64>, Box<Trouble>> {
        let mut new = Vec::new();
        for packages in NEW_PACKAGES {
            self.require("bench", packages)?;
            let before = self.environments();
            let took = time(|| self.operate(flow, "start", starting()))?;
            // Once they have been made they are there.
            if self.environments() > before {
                new.push(took);
            }
            self.operate(flow, "stop", Wish::Stop)?;
        }
        Ok(new)
    }

    /// So many sessions at once: started, run in, stopped, each as if it were alone.
    fn at_once(&self, count: usize) -> Result<Vec<Figure>, Box<Trouble>> {
        say(&format!("{} at once", lifecycle::count(count, "session")));
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

    /// The number of environments in the store.
    fn environments(&self) -> usize {
        let entries = fs::read_dir(self.store.join("environments")).into_iter().flatten();
        entries.flatten().filter(|entry| entry.path().is_dir()).count()
    }
}

pub(super) fn starting() -> Wish {
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

fn failure_of(id: &str, failure: Option<contract::Failure>) -> Box<Trouble> {
    match failure {
        Some(failure) => Trouble::of(FAILED, failure).what(format!("The benchmark's {id} has failed")),
        None => Trouble::of(FAILED, operate::canceled()).what(format!("The benchmark's {id} has failed")),
    }
}

pub(super) fn not_written(path: &Path, why: &std::io::Error) -> Box<Trouble> {
    Trouble::new(
        UNREACHABLE,
        Code::ServiceNotStarted,
        format!("{} cannot be written: {why}", path.display()),
    )
    .next("see that the state folder's disk has room, or name another folder with --state")
}

pub(super) fn say(what: &str) {
    note!("measuring: {what}");
}

pub(super) fn show_path(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn time(what: impl FnOnce() -> Result<(), Box<Trouble>>) -> Result<f64, Box<Trouble>> {
    let begun = Instant::now();
    what()?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}
