//! `pfsession compute`: the compute resources that sessions are on.

use crate::{
    client::Client,
    command::{Execute, family},
    confirm,
    global::{Done, Service},
    options::Yes,
    request::LONGEST_WAIT,
    show,
    terminal::note,
    text::{ago, folder, home, out, out_json, short},
    trouble::{FAILED, NONE, Trouble, USAGE},
    watch, wish,
};
use clap::Args;
use contract::{
    Code, FlowRef,
    command::{Command, Wish},
    http::{ComputeView, Computes},
    instance::Instances,
    route::{Route, Target},
    row::{OperationRow, OperationStatus},
};
use lifecycle::{compute::ComputePhase, size::dollars};
use std::collections::BTreeMap;

/// The shown length of an id.
const ID: usize = 8;

family! {
    /// List and show the compute resources of your sessions, and delete one with its sessions
    Compute {
        List(List),
        Show(Show),
        Delete(DeleteCompute),
    }
}

/// List the compute resources that have sessions, and your compute instances that run
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession compute list
  pfsession compute list --all-users
  pfsession compute list --json | jq -r '.computes[] | .id, .sessions[].flow.lineage'")]
pub(crate) struct List {
    /// Include those of all users of the workspace; needs the role owner
    #[arg(long)]
    all_users: bool,
}

impl Execute for List {
    type Json = Computes;

    fn execute(&self, service: &Service<'_>) -> Done {
        let computes = all(&*service.client()?, self.all_users)?;
        if service.global.json {
            out_json(&Computes { computes, next: None });
        } else if computes.is_empty() {
            note!("There is no compute resource: no session is on one. A start gets one: pfsession start FLOW");
        } else {
            out(&list_table(&computes));
        }
        Ok(0)
    }
}

/// Show a compute resource: its VM size and identity, its active flows and runs
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession compute show 5b1f03a2
  pfsession compute show 5b1f03a2 --json | jq -r '.sessions[].runs[]'")]
pub(crate) struct Show {
    /// The start of its id, as `pfsession compute list` shows it
    compute: String,
}

impl Execute for Show {
    type Json = ComputeView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let compute = find(&*service.client()?, &self.compute)?;
        if service.global.json {
            out_json(&compute);
        } else {
            out(&details(&compute, home().as_deref()));
        }
        Ok(0)
    }
}

/// Delete a compute resource: stop all sessions on it, and end their runs as canceled
#[derive(Args, Debug)]
#[command(
    visible_alias = "release",
    after_help = "\
It shows what ends, and asks. Where there is no terminal to ask at, it does nothing without --yes. Once the deletion is decided it is carried out, \
also if this command or the service ends meanwhile; a session that is started again gets another compute resource.

Examples:
  pfsession compute delete 5b1f03a2
  pfsession compute release 5b1f03a2 --yes"
)]
pub(crate) struct DeleteCompute {
    /// The start of its id, as `pfsession compute list` shows it
    pub(crate) compute: String,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

impl Execute for DeleteCompute {
    type Json = ComputeView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let json = service.global.json;
        let compute = find(client, &self.compute)?;
        let id = short(&compute.id, ID);
        // Where JSON is printed, that says the same at the end.
        if !json {
            out(&active(&compute, home().as_deref()));
        }
        let question = format!(
            "Deleting the compute resource {id} of {} ends {}.",
            compute.owner,
            ends(&compute)
        );
        confirm::ask(&question, self.yes.yes, confirm::Unasked::Refuse)?;
        let flow = FlowRef {
            workspace: compute.workspace.clone(),
            owner: compute.owner.clone(),
            lineage: format!("compute/{}", compute.id),
        };
        let command = format!("delete-{}", wish::random::<6>());
        client.send(&Command {
            id: command.clone(),
            flow,
            principal: None,
            wish: Wish::DeleteCompute {
                compute: compute.id.clone(),
            },
        })?;
        let decided: OperationRow = watch::until_end(client, &command)?;
        if let Some(failure) = decided.failure.filter(|_| decided.status != OperationStatus::Succeeded) {
            return Err(Trouble::of(FAILED, failure).what(format!("the compute resource {id} was not deleted")));
        }
        if self.no_wait {
            note!("The compute resource {id} is being deleted. Look at it: pfsession compute list");
        } else {
            until_empty(client, &compute.id)?;
            note!("The compute resource {id} is deleted. Ended: {}.", ends(&compute));
        }
        if json {
            out_json(&compute);
        }
        Ok(0)
    }
}

/// All that have sessions, and the compute instances that run: the caller's own, or everybody's.
fn all(client: &Client, of_all: bool) -> Result<Vec<ComputeView>, Box<Trouble>> {
    let page_of = |compute: ComputeView| ((compute.owner.clone(), compute.since, compute.id.clone()), compute);
    // An instance may run without a session.
    let users = of_all.then_some("all");
    let (mut computes, mut after) = (BTreeMap::new(), None::<String>);
    loop {
        let target = Target::from(Route::Instances).with_any("users", users);
        let page: Instances = client.get(target.with_any("after", after))?;
        let running = page.instances.into_iter().filter_map(|instance| instance.compute);
        computes.extend(running.map(page_of));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    loop {
        let target = Target::from(Route::Computes).with_any("users", users);
        let page: Computes = client.get(target.with_any("after", after))?;
        computes.extend(page.computes.into_iter().map(page_of));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(computes.into_values().collect())
}

fn list_table(computes: &[ComputeView]) -> String {
    let mut rows = show::table(&[
        "COMPUTE",
        "OWNER",
        "PHASE",
        "SINCE",
        "VM SIZE",
        "IDENTITY",
        "SESSIONS",
        "ACTIVE RUNS",
        "LIST PRICE",
        "SO FAR",
    ]);
    for compute in computes {
        rows.add_row([
            short(&compute.id, ID).to_owned(),
            compute.owner.clone(),
            phase_of(compute.phase).to_owned(),
            since(compute),
            compute.size.clone(),
            identity(compute),
            compute.sessions.len().to_string(),
            runs(compute).to_string(),
            price(compute),
            so_far(compute),
        ]);
    }
    show::render(rows)
}

fn details(compute: &ComputeView, home: Option<&str>) -> String {
    let lines = [
        ("compute", compute.id.clone()),
        ("owner", compute.owner.clone()),
        ("phase", phase_of(compute.phase).to_owned()),
        ("requested", since(compute)),
        ("VM size", compute.size.clone()),
        ("identity", identity(compute)),
        ("list price", price(compute)),
        ("so far", so_far(compute)),
    ];
    let lines = lines.map(|(name, value)| format!("{name:<10} {value}"));
    format!("{}\n\n{}", lines.join("\n"), active(compute, home))
}

fn price(compute: &ComputeView) -> String {
    let price = compute.price.map(|price| format!("{} an hour", dollars(price.into())));
    price.unwrap_or_else(|| "none known".to_owned())
}

/// Its cost by the list price since it was requested.
fn so_far(compute: &ComputeView) -> String {
    compute.cost().map_or_else(|| "none known".to_owned(), dollars)
}

/// The active flows and runs of a compute resource.
pub(crate) fn active(compute: &ComputeView, home: Option<&str>) -> String {
    let mut rows = show::table(&["KEY", "FLOW", "PHASE", "SINCE", "ACTIVE RUNS"]);
    for session in &compute.sessions {
        let runs = match session.runs.as_slice() {
            [] => "none".to_owned(),
            runs => runs.join(", "),
        };
        rows.add_row([
            short(&session.key, ID).to_owned(),
            folder(&session.flow.lineage, home),
            session.phase.word().to_owned(),
            ago(compute.now, session.since),
            runs,
        ]);
    }
    show::render(rows)
}

fn phase_of(phase: ComputePhase) -> &'static str {
    match phase {
        ComputePhase::Requested => "requested",
        ComputePhase::Up => "up",
        ComputePhase::Draining => "draining",
        ComputePhase::Releasing => "releasing",
        ComputePhase::Gone => "gone",
    }
}

fn since(compute: &ComputeView) -> String {
    let at = compute.since.map(|since| ago(compute.now, since));
    at.unwrap_or_else(|| "not known".into())
}

fn identity(compute: &ComputeView) -> String {
    compute.identity.clone().unwrap_or_else(|| "the user's own".into())
}

pub(crate) fn runs(compute: &ComputeView) -> usize {
    compute.sessions.iter().map(|session| session.runs.len()).sum()
}

/// The compute resource whose id begins so: the user's own, or else one of the workspace, for its
/// owner.
fn find(client: &Client, id: &str) -> Result<ComputeView, Box<Trouble>> {
    let of = |computes: Vec<ComputeView>| -> Vec<ComputeView> {
        let computes = computes.into_iter();
        computes.filter(|compute| compute.id.starts_with(id)).collect()
    };
    let mut computes = of(all(client, false)?);
    if computes.is_empty() {
        computes = match all(client, true) {
            Err(trouble) if trouble.failure.error == Code::AccessDenied => Vec::new(),
            found => of(found?),
        };
    }
    match computes.len() {
        0 => Err(none(id)),
        1 => Ok(computes.remove(0)),
        many => Err(ambiguous(id, many)),
    }
}

fn none(id: &str) -> Box<Trouble> {
    let message = format!("There is no compute resource {id} with a session, or none that you may see");
    Trouble::new(NONE, Code::ComputeNone, message).next("see those that there are: pfsession compute list")
}

fn ambiguous(id: &str, many: usize) -> Box<Trouble> {
    let message = format!("{many} compute resources have an id that starts with {id}");
    Trouble::new(USAGE, Code::ComputeAmbiguous, message).next("type more of the id: pfsession compute list --json")
}

fn count_of(number: usize, what: &str) -> String {
    match number {
        0 => format!("no {what}"),
        some => lifecycle::count(some, what),
    }
}

/// The sessions and runs that end with a compute resource.
pub(crate) fn ends(compute: &ComputeView) -> String {
    let sessions = count_of(compute.sessions.len(), "session");
    format!("{sessions} and {}", count_of(runs(compute), "active run"))
}

/// Waits until no session is on a compute resource: each has a bound within which it stops.
pub(crate) fn until_empty(client: &Client, id: &str) -> Result<(), Box<Trouble>> {
    while client
        .find::<ComputeView>(Route::Compute(id).with("wait", LONGEST_WAIT.as_millis()))?
        .is_some_and(|left| !left.sessions.is_empty())
    {}
    Ok(())
}

/// Waits until a compute resource that is being deleted is gone: its driver has seen it so.
pub(crate) fn until_gone(client: &Client, id: &str) -> Result<(), Box<Trouble>> {
    let target = || {
        Route::Compute(id)
            .with("wait", LONGEST_WAIT.as_millis())
            .with("until", "gone")
    };
    while client
        .find::<ComputeView>(target())?
        .is_some_and(|left| left.phase != ComputePhase::Gone)
    {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compute() -> ComputeView {
        let flow = json!({ "workspace": "lab", "owner": "bob", "lineage": "/flows/a" });
        let session = |key: &str, runs: &[&str]| json!({ "key": key, "flow": flow, "phase": "ready", "since": 5_000, "current": null, "runs": runs });
        serde_json::from_value(json!({
            "id": "6f1c2d3e4b5a69788796a5b4c3d2e1f0", "workspace": "lab", "owner": "bob", "phase": "up", "since": 1_000,
            "size": "Standard_D2s_v3", "price": 96_000, "sessions": [session("0123456789ab", &["run-1", "run-2"]), session("a0", &[])],
            "now": 65_000,
        }))
        .unwrap()
    }

    #[test]
    fn a_compute_resource_is_shown_with_its_active_flows_and_runs() {
        expect_test::expect![[r#"
            compute    6f1c2d3e4b5a69788796a5b4c3d2e1f0
            owner      bob
            phase      up
            requested  1 min 4 s ago
            VM size    Standard_D2s_v3
            identity   the user's own
            list price $0.096 an hour
            so far     $0.002

            KEY       FLOW      PHASE  SINCE      ACTIVE RUNS
            01234567  /flows/a  ready  1 min ago  run-1, run-2
            a0        /flows/a  ready  1 min ago  none"#]]
        .assert_eq(&details(&compute(), None));
        let unknown = ComputeView {
            since: None,
            price: None,
            identity: Some("id-1".into()),
            sessions: Vec::new(),
            ..compute()
        };
        expect_test::expect![[r#"
            COMPUTE   OWNER  PHASE  SINCE          VM SIZE          IDENTITY        SESSIONS  ACTIVE RUNS  LIST PRICE      SO FAR
            6f1c2d3e  bob    up     1 min 4 s ago  Standard_D2s_v3  the user's own  2         2            $0.096 an hour  $0.002
            6f1c2d3e  bob    up     not known      Standard_D2s_v3  id-1            0         0            none known      none known"#]]
        .assert_eq(&list_table(&[compute(), unknown]));
        assert_eq!(
            [count_of(0, "run"), count_of(1, "run"), count_of(2, "run")],
            ["no run", "1 run", "2 runs"]
        );
    }

    #[test]
    fn what_is_not_found_says_where_to_look() {
        let texts = [none("6f"), ambiguous("6f", 2)].map(|trouble| trouble.failure.to_string());
        expect_test::expect![[r#"
            Compute.None: There is no compute resource 6f with a session, or none that you may see
            Compute.Ambiguous: 2 compute resources have an id that starts with 6f"#]]
        .assert_eq(&texts.join("\n"));
    }
}
