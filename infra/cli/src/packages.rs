//! The packages of a flow's session: installing, listing, comparing, going back.

use crate::{
    args,
    client::Client,
    commands::{self, Done, Service},
    show, snapshot,
    terminal::note,
    text::{clock, home, out, out_json, short},
    trouble::{FAILED, NONE, Trouble, USAGE},
    wish::{self, Flow},
};
use comfy_table::Cell;
use contract::{
    Failure, Kind, Phase,
    command::Wish,
    http::{Installs, SessionView},
    packages::{Change, InstallRow, Package, PackageOrigin, PackagesRow},
    snapshot::Address,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal},
    path::Path,
};

/// How much of a lock's digest is shown.
const LOCK: usize = 8;

pub(crate) fn install(service: &Service, install: &args::Install) -> Done {
    let json = service.global.json;
    let saved = match (install.packages.is_empty(), install.extras.is_empty()) {
        (true, true) => None,
        (false, _) => Some(save(&install.flow, |folder, root| {
            flow::save(folder, root, &install.packages)
        })?),
        (true, false) => Some(save(&install.flow, |folder, root| {
            flow::save_extras(folder, root, &install.extras)
        })?),
    };
    if install.save_only && saved.is_none() {
        return Err(nothing_to_save());
    }
    if install.save_only {
        let file = saved.as_ref().map(|saved| saved.file.clone()).unwrap_or_default();
        if json {
            out_json(&serde_json::json!({ "saved": file }));
        } else {
            note!(
                "Saved in {}. To install it: pfsession install {}",
                file.display(),
                crate::text::quoted(&install.flow.display().to_string())
            );
        }
        return Ok(0);
    }
    let done = install_in(service, install, json);
    if let (Err(_), Some(saved)) = (&done, &saved) {
        put_back(saved);
    }
    done
}

fn install_in(service: &Service, install: &args::Install, json: bool) -> Done {
    let client = service.client()?;
    let flow = wish::flow_at(&install.flow, &client.user)?;
    let lock = match install.rollback {
        true => Some(lock_before(&installs_of(&client, &flow)?, &flow)?),
        false => None,
    };
    let settings = snapshot::changed(&client, &flow, install.wants.change())?;
    let wish = Wish::Install { settings, lock };
    let done =
        commands::operate(&client, &flow, Kind::Install, wish, install.no_wait, json).map_err(
            |trouble| match trouble.failure.error.as_str() {
                "Session.NoSession" => trouble.next(format!(
                    "start it: pfsession start {}; or save only: --save-only",
                    flow.typed
                )),
                _ => trouble,
            },
        )?;
    if !install.no_wait
        && !json
        && let Ok(installs) = installs_of(&client, &flow)
        && let Some(last) = installs.last()
    {
        for change in &last.changes {
            note!("  {}", changed(change));
        }
    }
    Ok(done)
}

fn nothing_to_save() -> Box<Trouble> {
    Trouble::new(USAGE, "Command.NothingToSave", "No package and no extra is named")
        .next("name one: pfsession install FLOW PACKAGE --save-only")
}

/// The lock that the flow's session had before the one that it has.
fn lock_before(installs: &[InstallRow], flow: &Flow) -> Result<String, Box<Trouble>> {
    let now = installs.last().map(|entry| &entry.packages.lock);
    let before = installs.iter().rev().find(|entry| Some(&entry.packages.lock) != now);
    before.map(|entry| entry.packages.lock.clone()).ok_or_else(|| {
        Trouble::new(
            FAILED,
            "Install.NothingBefore",
            format!(
                "The session of {} has had no other packages than those it has",
                flow.typed
            ),
        )
        .next(format!("see its installs: pfsession packages {} --history", flow.typed))
    })
}

/// Writes packages into the flow's requirements file.
fn save(
    flow: &Path,
    change: impl FnOnce(&Path, &Path) -> Result<flow::Saved, Failure>,
) -> Result<flow::Saved, Box<Trouble>> {
    let usage = |failure| Trouble::of(USAGE, failure);
    let folder = flow::canonical(wish::folder_of(flow)).map_err(usage)?;
    let saved = change(&folder, &flow::include_root(&folder)).map_err(usage)?;
    write(&saved.file, saved.after.as_bytes()).map_err(|error| {
        let message = format!("{} cannot be written: {error}. Put that right.", saved.file.display());
        Trouble::of(USAGE, Failure::new("Flow.Unwritable", message))
    })?;
    Ok(saved)
}

/// As it was, if nobody has changed it since.
fn put_back(saved: &flow::Saved) {
    let file = saved.file.display();
    if fs::read(&saved.file).ok().as_deref() != Some(saved.after.as_bytes()) {
        return note!("{file} was changed meanwhile, and stays as it is.");
    }
    let done = match &saved.before {
        Some(before) => write(&saved.file, before),
        None => fs::remove_file(&saved.file),
    };
    match done {
        Ok(()) => note!("{file} is as it was."),
        Err(error) => note!("{file} could not be put back: {error}."),
    }
}

/// Whoever reads the file sees all of it, before or after.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = file.with_extension(format!("{}.partial", std::process::id()));
    fs::write(&partial, bytes)?;
    if let Ok(about) = fs::metadata(file) {
        fs::set_permissions(&partial, about.permissions())?;
    }
    fs::rename(&partial, file)
}

/// Keeps the credential of a private feed, which it reads from standard input, or forgets it; without a host, lists those that have one.
pub(crate) fn private(service: &Service, host: Option<&str>, remove: bool) -> Done {
    let state = service.local()?.state;
    let mut feeds = environments::private::Feeds::read(&state).map_err(|failure| Trouble::of(USAGE, failure))?;
    let Some(host) = host else {
        if service.global.json {
            out_json(&feeds.hosts().collect::<Vec<_>>());
        } else {
            feeds.hosts().for_each(out);
        }
        return Ok(0);
    };
    let usage = |message: String| Trouble::new(USAGE, "Install.PrivateFeed", message);
    if host.is_empty() || host.contains(['/', '@', ' ', '\t', '\n']) {
        return Err(usage(format!("{host} is no host")).next("give the host of the feed's URL alone: feed.example"));
    }
    if remove {
        if !feeds.set(host, None) {
            return Err(Trouble::new(
                NONE,
                "Install.PrivateFeed",
                format!("{host} has no credential here"),
            ));
        }
    } else {
        let token = match io::stdin().is_terminal() {
            true => rpassword::prompt_password("The token: "),
            false => io::read_to_string(io::stdin()),
        }
        .map_err(|error| usage(format!("Standard input cannot be read: {error}")))?;
        let token = token.trim();
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(usage("There is no token on standard input".into())
                .next(format!("pfsession private {host} < token.txt")));
        }
        feeds.set(host, Some(token));
    }
    feeds
        .write(&state)
        .map_err(|error| usage(format!("{} cannot be written: {error}", state.display())))?;
    Ok(0)
}

pub(crate) fn show(client: &Client, wanted: &args::Packages, json: bool) -> Done {
    let flow = wish::find_flow(client, &wanted.what)?.ok_or_else(|| wish::nothing_of(&wanted.what))?;
    if wanted.history {
        let installs = installs_of(client, &flow)?;
        if json {
            out_json(&Installs { installs })
        } else {
            out(&history(&installs));
        }
        return Ok(0);
    }
    if let Some(between) = &wanted.diff {
        let installs = installs_of(client, &flow)?;
        let changes = difference(&installs, between)?;
        if json {
            out_json(&changes);
        } else if changes.is_empty() {
            note!("There is no difference.");
        } else {
            changes.iter().for_each(|change| out(&changed(change)));
        }
        return Ok(0);
    }
    let row = recorded(client, &flow)?.ok_or_else(|| none(&flow))?;
    if json {
        out_json(&row)
    } else {
        out(&list(&row.packages));
        if let Some(left_out) = &row.left_out {
            note!("{left_out}.");
        }
    }
    Ok(0)
}

pub(crate) fn none(flow: &Flow) -> Box<Trouble> {
    let message = format!("Nothing was ever installed for {}", flow.typed);
    Trouble::new(NONE, "Session.NoPackages", message).next(format!("start its session: pfsession start {}", flow.typed))
}

pub(crate) fn recorded(client: &Client, flow: &Flow) -> Result<Option<PackagesRow>, Box<Trouble>> {
    client.find(&format!("/v1/sessions/{}/packages", flow.key()))
}

fn installs_of(client: &Client, flow: &Flow) -> Result<Vec<InstallRow>, Box<Trouble>> {
    let found: Option<Installs> = client.find(&format!("/v1/sessions/{}/installs", flow.key()))?;
    found
        .map(|found| found.installs)
        .filter(|installs| !installs.is_empty())
        .ok_or_else(|| none(flow))
}

/// The difference of two installs; see [`args::Packages::diff`].
fn difference(installs: &[InstallRow], between: &[String]) -> Result<Vec<Change>, Box<Trouble>> {
    let find = |wanted: &String| {
        let of_number = |entry: &&InstallRow| entry.packages.number.to_string() == *wanted;
        let of_lock = |entry: &&InstallRow| wanted.len() >= 4 && entry.packages.lock.starts_with(wanted.as_str());
        installs
            .iter()
            .find(of_number)
            .or_else(|| installs.iter().rev().find(of_lock))
            .map(|entry| &entry.packages.packages[..])
            .ok_or_else(|| {
                Trouble::new(USAGE, "Install.NoSuchInstall", format!("There is no install {wanted}"))
                    .next("see what there is: pfsession packages --history")
            })
    };
    let last = installs
        .last()
        .map(|entry| &entry.packages.packages[..])
        .unwrap_or_default();
    match between {
        [] => Ok(installs.last().map(|entry| entry.changes.clone()).unwrap_or_default()),
        [from] => Ok(Change::between(find(from)?, last)),
        [from, to, ..] => Ok(Change::between(find(from)?, find(to)?)),
    }
}

fn changed(change: &Change) -> String {
    match (&change.from, &change.to) {
        (None, Some(to)) => format!("+ {} {to}", change.name),
        (Some(from), None) => format!("- {} {from}", change.name),
        (from, to) => format!(
            "~ {} {} → {}",
            change.name,
            from.as_deref().unwrap_or_default(),
            to.as_deref().unwrap_or_default()
        ),
    }
}

fn list(packages: &[Package]) -> String {
    let mut table = show::table(&["PACKAGE", "VERSION", "BECAUSE OF"]);
    for package in packages {
        let asked = || match package.asked_by.join(", ") {
            askers if askers.is_empty() => "another package".to_owned(),
            askers => askers,
        };
        let because = match (package.origin, &package.named) {
            (PackageOrigin::BaseImage, None) => "base image".into(),
            (PackageOrigin::BaseImage, Some(place)) => format!("base image, {place}"),
            (PackageOrigin::Requirements, place) => place.clone().unwrap_or_else(|| "requirements".into()),
            (PackageOrigin::Dependency, _) => asked(),
            (PackageOrigin::ByHand, _) => "by hand, in a run".into(),
        };
        table.add_row([&package.name, &package.version, &because].map(Cell::new));
    }
    show::rendered(table)
}

fn history(installs: &[InstallRow]) -> String {
    let mut table = show::table(&["INSTALL", "TIME", "LOCK", "BY", "WHAT CHANGED"]);
    for InstallRow { packages, changes } in installs {
        let what = match changes.len() {
            0 => "nothing".to_owned(),
            1..=6 => changes.iter().map(changed).collect::<Vec<_>>().join(", "),
            many => {
                let added = changes.iter().filter(|change| change.from.is_none()).count();
                let gone = changes.iter().filter(|change| change.to.is_none()).count();
                format!("{added} added, {} changed, {gone} gone", many - added - gone)
            }
        };
        table.add_row([
            packages.number.to_string(),
            clock(packages.at),
            short(&packages.lock, LOCK).to_owned(),
            packages.by.clone(),
            what,
        ]);
    }
    show::rendered(table)
}

/// How the saved requirements and the installed ones differ.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Drift {
    /// Lines that are saved and not installed.
    saved: Vec<String>,
    /// Lines that are installed and not saved any more.
    installed: Vec<String>,
}

impl Drift {
    /// The difference in one sentence, and what to do.
    pub(crate) fn said(&self, flow: &Flow) -> String {
        let list = |what: &str, lines: &[String]| match lines {
            [] => None,
            all if all.len() <= 3 => Some(format!("{what}: {}", all.join(", "))),
            all => Some(format!("{what}: {} and {} more", all[..2].join(", "), all.len() - 2)),
        };
        let saved = list("saved, not installed", &self.saved);
        let installed = list("installed, not saved", &self.installed);
        let what: Vec<String> = saved.into_iter().chain(installed).collect();
        format!(
            "The requirements have changed since the install ({}), and this run has what is installed. Install first: pfsession run {} --install",
            what.join("; "),
            flow.typed
        )
    }

    fn between(saved: &[String], installed: &[String]) -> Self {
        let count = |lines: &[String]| {
            lines.iter().fold(BTreeMap::<String, usize>::new(), |mut counts, line| {
                *counts.entry(line.clone()).or_default() += 1;
                counts
            })
        };
        let more = |these: &[String], those: &[String]| {
            let known = count(those);
            count(these)
                .into_iter()
                .filter(|(line, many)| known.get(line).is_none_or(|known| known < many))
                .map(|(line, _)| line)
                .collect()
        };
        Self {
            saved: more(saved, installed),
            installed: more(installed, saved),
        }
    }
}

/// How the requirements in a flow folder and what its session has differ. `None` if they do not, if there is no session that runs are taken
/// by, or if that cannot be said now.
pub(crate) fn drift(client: &Client, flow: &Flow) -> Option<Drift> {
    let session: SessionView = client.find(&format!("/v1/sessions/{}", flow.key())).ok()??;
    if session.phase != Phase::Ready || session.current.is_some() {
        return None;
    }
    let row = recorded(client, flow).ok()??;
    let drift = Drift::between(&saved(Path::new(&flow.reference.lineage))?, &row.requirements);
    (row.generation == session.generation && drift != Drift::default()).then_some(drift)
}

/// The lines of the requirements in a flow folder. `None` if it cannot be read.
fn saved(folder: &Path) -> Option<Vec<String>> {
    let environment = flow::environment(folder, &flow::include_root(folder)).ok()?;
    let lines = environment.requirements.map(|requirements| requirements.lines);
    Some(lines.unwrap_or_default().iter().map(flow::Line::said).collect())
}

/// A session with what is installed in it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Whole<'a> {
    #[serde(flatten)]
    session: &'a SessionView,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    isolation: Option<&'a contract::packages::Isolation>,
    /// Packages that are saved in the flow folder and not installed, and the reverse; left out if the folder cannot be read here.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<Drift>,
}

/// Shows a session, with how well it is kept apart, and how its packages differ from what is saved.
pub(crate) fn show_session(
    client: &Client,
    flow: &Flow,
    session: &SessionView,
    json: bool,
) -> Result<(), Box<Trouble>> {
    let row = recorded(client, flow)?;
    // A snapshot is of what was there.
    let folder = match Address::read(&session.settings.folder.value) {
        Some(_) => Path::new(&session.flow.lineage),
        None => Path::new(&session.settings.folder.value),
    };
    let drift = row
        .as_ref()
        .zip(saved(folder))
        .map(|(row, saved)| Drift::between(&saved, &row.requirements));
    if json {
        out_json(&Whole {
            session,
            lock: row.as_ref().map(|row| row.lock.as_str()),
            isolation: row.as_ref().and_then(|row| row.isolation.as_ref()),
            drift,
        });
        return Ok(());
    }
    let mut more = Vec::new();
    if let Some(row) = &row {
        let lock = short(&row.lock, LOCK);
        more.push((
            "packages",
            format!("{} (lock {lock}, by {})", row.packages.len(), row.by),
        ));
        if let Some(isolation) = &row.isolation {
            more.push(("isolation", isolation.to_string()));
        }
    }
    if let Some(drift) = drift.filter(|drift| *drift != Drift::default()) {
        let saved = drift.saved.iter().map(|line| format!("saved, not installed: {line}"));
        let installed = drift
            .installed
            .iter()
            .map(|line| format!("installed, not saved: {line}"));
        let mut lines: Vec<String> = saved.chain(installed).collect();
        lines.push(format!("make them one: pfsession install {}", flow.typed));
        more.push(("requirements", lines.join("\n")));
    }
    out(&show::session(session, home().as_deref(), more));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn package(name: &str, version: &str, origin: PackageOrigin, named: Option<&str>, asked_by: &[&str]) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            origin,
            named: named.map(Into::into),
            asked_by: asked_by.iter().map(|asker| (*asker).into()).collect(),
        }
    }

    fn install(number: u64, lock: &str, packages: &[(&str, &str)], before: &[(&str, &str)]) -> InstallRow {
        let listed = |packages: &[(&str, &str)]| -> Vec<Package> {
            packages
                .iter()
                .map(|(name, version)| package(name, version, PackageOrigin::Requirements, None, &[]))
                .collect()
        };
        InstallRow {
            changes: Change::between(&listed(before), &listed(packages)),
            packages: PackagesRow {
                number,
                generation: 1,
                count: 1,
                at: 1_000_000,
                by: format!("install-{number}"),
                kind: Some(Kind::Install),
                lock: lock.into(),
                requirements: Vec::new(),
                packages: listed(packages),
                isolation: None,
                left_out: None,
            },
        }
    }

    fn lines(text: &str) -> String {
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn each_package_is_listed_with_why_it_is_there() {
        let packages = [
            package("blinker", "1.9.0", PackageOrigin::Dependency, None, &["flask", "other"]),
            package(
                "flask",
                "3.1.3",
                PackageOrigin::BaseImage,
                Some("requirements.txt:2"),
                &[],
            ),
            package(
                "humanize",
                "4.9.0",
                PackageOrigin::Requirements,
                Some("requirements.txt:1"),
                &[],
            ),
            package("tabulate", "0.9.0", PackageOrigin::BaseImage, None, &["promptflow"]),
            package("tiny", "1", PackageOrigin::ByHand, None, &[]),
        ];
        expect![[r#"
            PACKAGE   VERSION  BECAUSE OF
            blinker   1.9.0    flask, other
            flask     3.1.3    base image, requirements.txt:2
            humanize  4.9.0    requirements.txt:1
            tabulate  0.9.0    base image
            tiny      1        by hand, in a run
        "#]]
        .assert_eq(&lines(&list(&packages)));
    }

    #[test]
    fn a_history_says_what_each_install_changed_and_two_can_be_compared() {
        let installs = [
            install(1, "aaaa1111aaaa1111", &[("a", "1"), ("b", "1")], &[]),
            install(
                2,
                "bbbb2222bbbb2222",
                &[("a", "2"), ("c", "1")],
                &[("a", "1"), ("b", "1")],
            ),
            install(
                3,
                "bbbb2222bbbb2222",
                &[("a", "2"), ("c", "1")],
                &[("a", "2"), ("c", "1")],
            ),
        ];
        expect![[r#"
            INSTALL  TIME                      LOCK      BY         WHAT CHANGED
            1        1970-01-01T00:16:40.000Z  aaaa1111  install-1  + a 1, + b 1
            2        1970-01-01T00:16:40.000Z  bbbb2222  install-2  ~ a 1 → 2, - b 1, + c 1
            3        1970-01-01T00:16:40.000Z  bbbb2222  install-3  nothing
        "#]]
        .assert_eq(&lines(&history(&installs)));
        let between = |what: &[&str]| {
            let what: Vec<String> = what.iter().map(|each| (*each).to_owned()).collect();
            difference(&installs, &what).map(|changes| changes.iter().map(changed).collect::<Vec<_>>())
        };
        assert_eq!(between(&["1"]).unwrap(), ["~ a 1 → 2", "- b 1", "+ c 1"]);
        assert_eq!(between(&["bbbb", "aaaa"]).unwrap(), ["~ a 2 → 1", "+ b 1", "- c 1"]);
        assert!(between(&[]).unwrap().is_empty());
        expect![[r#"
            error: There is no install 9 [Install.NoSuchInstall]
              next: see what there is: pfsession packages --history"#]]
        .assert_eq(&between(&["9"]).unwrap_err().to_string());
    }

    #[test]
    fn what_cannot_be_done_with_packages_says_what_to_do() {
        let flow = Flow {
            reference: contract::FlowRef {
                workspace: "local".into(),
                owner: "ann".into(),
                lineage: "/flows/cow".into(),
            },
            typed: "./cow".into(),
        };
        expect![[r#"
            error: Nothing was ever installed for ./cow [Session.NoPackages]
              next: start its session: pfsession start ./cow"#]]
        .assert_eq(&none(&flow).to_string());
        expect![[r#"
            error: No package and no extra is named [Command.NothingToSave]
              next: name one: pfsession install FLOW PACKAGE --save-only"#]]
        .assert_eq(&nothing_to_save().to_string());
        let only = [install(1, "aaaa1111aaaa1111", &[("a", "1")], &[])];
        expect![[r#"
            error: The session of ./cow has had no other packages than those it has [Install.NothingBefore]
              next: see its installs: pfsession packages ./cow --history"#]]
        .assert_eq(&lock_before(&only, &flow).unwrap_err().to_string());
        let folder = tempfile::tempdir().unwrap();
        let partial = format!("requirements.{}.partial", std::process::id());
        fs::create_dir(folder.path().join(partial)).unwrap();
        let cow = |folder: &Path, root: &Path| flow::save(folder, root, &["cowsay".into()]);
        let said = save(folder.path(), cow).unwrap_err().to_string();
        expect!["error: FOLDER/requirements.txt cannot be written: Is a directory (os error 21). Put that right. [Flow.Unwritable]"]
            .assert_eq(&said.replace(&folder.path().canonicalize().unwrap().display().to_string(), "FOLDER"));
    }

    #[test]
    fn a_drift_says_what_differs_and_what_to_do() {
        let flow = Flow {
            reference: contract::FlowRef {
                workspace: "local".into(),
                owner: "ann".into(),
                lineage: "/flows/cow".into(),
            },
            typed: "./cow".into(),
        };
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let drift = Drift::between(&lines("a b c d e"), &lines("e f"));
        expect!["The requirements have changed since the install (saved, not installed: a, b and 2 more; installed, not saved: f), and this run has what is installed. Install first: pfsession run ./cow --install"].assert_eq(&drift.said(&flow));
    }

    #[test]
    fn a_difference_is_of_lines_and_of_how_often_each_is_there() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            Drift::between(&lines("a b b c"), &lines("c b a d")),
            Drift {
                saved: lines("b"),
                installed: lines("d")
            }
        );
        assert_eq!(Drift::between(&lines("b a"), &lines("a b")), Drift::default());
    }
}
