//! `pfsession packages`: the packages of a flow's session.

mod drift;

pub(crate) use drift::{Drift, drift, lines_in_folder};

use crate::{
    client::Client,
    command::{Execute, Printed, any_of, schema_of},
    global::{Done, Service},
    show,
    terminal::note,
    text::{clock, out, out_json, short},
    trouble::{NONE, Trouble, USAGE},
    wish::{self, Flow},
};
use clap::Args;
use comfy_table::Cell;
use contract::{
    Code,
    http::Installs,
    packages::{Change, InstallRow, Package, PackageOrigin, PackagesRow},
    route::Route,
};
use serde_json::Value;

/// The shown length of a lock's digest.
pub(crate) const LOCK: usize = 8;

/// List the packages of a flow's session, each with why it is there
#[derive(Args, Debug)]
#[command(after_help = "\
Each install has a number and a lock, which --history shows and --diff takes.

Examples:
  pfsession packages ./my-flow
  pfsession packages ./my-flow --history
  pfsession packages ./my-flow --diff        what the last install changed
  pfsession packages ./my-flow --diff 2 5")]
pub(crate) struct Packages {
    /// The flow's folder, or the start of its session's key
    #[arg(value_name = "FLOW", default_value = ".")]
    pub(crate) what: String,
    /// List the installs: when, by which operation, and what each changed
    #[arg(long)]
    pub(crate) history: bool,
    /// Compare two installs, by number or lock; one is compared with now, none is the last with the
    /// one before
    #[arg(long, value_name = "INSTALL", num_args = 0..=2, conflicts_with = "history")]
    pub(crate) diff: Option<Vec<String>>,
}

/// The packages, the installs, or the changes between two of them.
pub(crate) enum Listed {}

impl Printed for Listed {
    fn schema() -> Option<Value> {
        Some(any_of(&[
            ("the packages", schema_of::<PackagesRow>()),
            ("with --history", schema_of::<Installs>()),
            ("with --diff", schema_of::<Vec<Change>>()),
        ]))
    }
}

impl Execute for Packages {
    type Json = Listed;
    const READS: bool = true;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let json = service.global.json;
        let flow = wish::find_flow(client, &self.what)?.ok_or_else(|| wish::nothing_of(&self.what))?;
        if self.history {
            let installs = installs_of(client, &flow)?;
            if json {
                out_json(&Installs { installs })
            } else {
                out(&history(&installs));
            }
            return Ok(0);
        }
        if let Some(between) = &self.diff {
            let installs = installs_of(client, &flow)?;
            let changes = difference(&installs, between)?;
            if json {
                out_json(&changes);
            } else if changes.is_empty() {
                note!("There is no difference.");
            } else {
                changes.iter().for_each(|change| out(&change_line(change)));
            }
            return Ok(0);
        }
        let row = recorded_packages(client, &flow)?.ok_or_else(|| none(&flow))?;
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
}

pub(crate) fn none(flow: &Flow) -> Box<Trouble> {
    let message = format!("Nothing was ever installed for {}", flow.typed);
    Trouble::new(NONE, Code::SessionNoPackages, message)
        .next(format!("start its session: pfsession start {}", flow.typed))
}

pub(crate) fn recorded_packages(client: &Client, flow: &Flow) -> Result<Option<PackagesRow>, Box<Trouble>> {
    client.find(Route::Packages(&flow.key()))
}

pub(crate) fn installs_of(client: &Client, flow: &Flow) -> Result<Vec<InstallRow>, Box<Trouble>> {
    let found: Option<Installs> = client.find(Route::Installs(&flow.key()))?;
    found
        .map(|found| found.installs)
        .filter(|installs| !installs.is_empty())
        .ok_or_else(|| none(flow))
}

/// The difference of two installs; see [`Packages::diff`].
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
                Trouble::new(
                    USAGE,
                    Code::InstallNoSuchInstall,
                    format!("There is no install {wanted}"),
                )
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

pub(crate) fn change_line(change: &Change) -> String {
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
    show::render(table)
}

fn history(installs: &[InstallRow]) -> String {
    let mut table = show::table(&["INSTALL", "TIME", "LOCK", "BY", "WHAT CHANGED"]);
    for InstallRow { packages, changes } in installs {
        let what = match changes.len() {
            0 => "nothing".to_owned(),
            1..=6 => changes.iter().map(change_line).collect::<Vec<_>>().join(", "),
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
    show::render(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Kind;
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
                described: None,
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
            difference(&installs, &what).map(|changes| changes.iter().map(change_line).collect::<Vec<_>>())
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
    fn a_flow_whose_session_never_had_packages_says_what_to_do() {
        let flow = Flow {
            reference: contract::FlowRef {
                workspace: "local".into(),
                owner: "ann".into(),
                lineage: "/flows/cow".into(),
            },
            typed: "./cow".into(),
            named: None,
        };
        expect![[r#"
            error: Nothing was ever installed for ./cow [Session.NoPackages]
              next: start its session: pfsession start ./cow"#]]
        .assert_eq(&none(&flow).to_string());
    }
}
