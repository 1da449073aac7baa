//! The record of a session's packages, which outlives the session.

use crate::{
    Fault, SAVE_TRIES,
    ports::{Ports, Save, Write},
};
use contract::{
    Kind,
    packages::{Change, InstallRow, Installation, Listed, MOST_INSTALLS, Package, PackageOrigin, PackagesRow},
};

/// Keeps what an agent says that it has installed, and an entry of the history of installs with
/// what that changed.
///
/// Twice is once, and of two that come in the wrong order the later one counts.
///
/// * `by`: the operation, or the run whose code did it by hand; `kind`: of the operation.
///
/// # Errors
///
/// [`Fault::Outside`], worth a retry.
///
/// # Source
///
/// "Shows the packages installed in the compute session" (the specification, *View installed
/// packages*).
pub async fn record_packages(
    ports: &impl Ports,
    flow: &str,
    generation: u32,
    by: &str,
    kind: Option<Kind>,
    installation: &Installation,
) -> Result<(), Fault> {
    for _ in 0..SAVE_TRIES {
        let before = ports.load_packages(flow).await?;
        let is_known = |row: &PackagesRow| (row.generation, row.count) >= (generation, installation.count);
        if before.as_ref().is_some_and(is_known) {
            return Ok(());
        }
        let listed = match &installation.listed {
            Some(listed) => listed.clone(),
            None => with_the_lock(ports, flow, &installation.lock, before.as_ref()).await?,
        };
        let number = before.as_ref().map_or(1, |row| row.number + 1);
        let row = PackagesRow {
            number,
            generation,
            count: installation.count,
            at: ports.now(),
            by: by.to_owned(),
            kind,
            lock: installation.lock.clone(),
            requirements: listed.requirements,
            packages: with_by_hand(listed.packages, installation),
            isolation: installation.isolation.clone(),
            left_out: installation.left_out.clone(),
            described: installation.described.clone(),
        };
        let was: &[Package] = before.as_ref().map_or(&[], |row| &row.packages);
        let entry = InstallRow {
            changes: Change::between(was, &row.packages),
            packages: row.clone(),
        };
        let flow = flow.to_owned();
        let mut writes = vec![
            Write::Packages {
                flow: flow.clone(),
                row: Box::new(row),
                read: before.as_ref().map(|row| row.number),
            },
            Write::NewInstall {
                flow: flow.clone(),
                entry: Box::new(entry),
            },
        ];
        if let Some(number) = number.checked_sub(MOST_INSTALLS).filter(|number| *number > 0) {
            writes.push(Write::ForgetInstall { flow, number });
        }
        match ports.save(Save { writes }).await {
            Err(Fault::Conflict) => {}
            done => return done,
        }
    }
    Err(Fault::Conflict)
}

/// The record of the last build of the flow's environment from this lock.
async fn with_the_lock(ports: &impl Ports, flow: &str, lock: &str, now: Option<&PackagesRow>) -> Result<Listed, Fault> {
    let listed = |row: &PackagesRow| {
        let mut packages = row.packages.clone();
        packages.retain(|package| package.origin != PackageOrigin::ByHand);
        Listed {
            requirements: row.requirements.clone(),
            packages,
        }
    };
    // What was done by hand may have hidden some of what the lock has, so that an entry with the
    // same lock and less by hand is better.
    if let Some(row) = now.filter(|row| row.lock == lock && row.kind.is_some()) {
        return Ok(listed(row));
    }
    let installs = ports.installs(flow).await?;
    let of_lock = installs.iter().rev().filter(|entry| entry.packages.lock == lock);
    let best = of_lock
        .clone()
        .find(|entry| entry.packages.kind.is_some())
        .or(of_lock.clone().next());
    Ok(best.map(|entry| listed(&entry.packages)).unwrap_or_default())
}

fn with_by_hand(mut packages: Vec<Package>, installation: &Installation) -> Vec<Package> {
    for change in &installation.by_hand {
        packages.retain(|package| package.name != change.name);
        packages.extend(change.version.as_ref().map(|version| Package {
            name: change.name.clone(),
            version: version.clone(),
            origin: PackageOrigin::ByHand,
            named: None,
            asked_by: Vec::new(),
        }));
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}
