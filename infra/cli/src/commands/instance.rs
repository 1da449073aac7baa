//! `pfsession instance`: compute instances, which their user starts and stops.

use super::compute;
use crate::{
    client::Client,
    command::{Execute, family},
    confirm,
    global::{Done, Service},
    options::{Yes, idle, instance_name},
    request::LONGEST_WAIT,
    show,
    terminal::note,
    text::{clock, home, out, out_json, took},
    trouble::{FAILED, Trouble},
    watch, wish,
};
use clap::Args;
use contract::{
    Code, FlowRef, IdleSeconds,
    command::{Command, Wish},
    http::ComputeView,
    instance::{InstanceView, Instances},
    route::{Route, Target},
    row::{OperationRow, OperationStatus},
};
use lifecycle::compute::ComputePhase;

family! {
    /// Create, start and stop compute instances: compute resources of yours that outlive the
    /// sessions on them
    Instance {
        Create(CreateInstance),
        Update(UpdateInstance),
        List(List),
        Show(Show),
        Start(Start),
        Stop(Stop),
        Delete(Delete),
    }
}

/// Create a compute instance, and start it
#[derive(Args, Debug)]
#[command(after_help = "\
Its VM size and identity are those of each session on it. It runs until you stop it, or until it was unused for the time of \
--idle-shutdown: no start, no run and no other use of a session on it. While it runs, it counts in your quota of vCPUs.

Examples:
  pfsession instance create dev --idle-shutdown 1h
  pfsession instance create big --size Standard_D8s_v5
  pfsession start ./my-flow --compute dev")]
pub(crate) struct CreateInstance {
    /// Its name: letters, digits, - and _
    #[arg(value_parser = instance_name)]
    pub(crate) name: String,
    /// The VM size [default: local, all of the machine]
    #[arg(long, value_name = "NAME")]
    pub(crate) size: Option<String>,
    /// The user-assigned identity that sessions on it act as, in place of yours
    #[arg(long, value_name = "ID")]
    pub(crate) identity: Option<String>,
    /// Shut it down, with all its sessions, after this time without use: 30m, 1h [default: never]
    #[arg(long, value_name = "TIME", value_parser = idle)]
    pub(crate) idle_shutdown: Option<IdleSeconds>,
}

impl Execute for CreateInstance {
    type Json = InstanceView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let create = Wish::CreateInstance {
            instance: self.name.clone(),
            size: self.size.clone(),
            identity: self.identity.clone(),
            idle_shutdown_seconds: self.idle_shutdown,
        };
        let instance = until_up(&*service.client()?, &self.name, create)?;
        say(&instance, "is created and runs", service.global.json);
        Ok(0)
    }
}

/// Change settings of a compute instance; those left out stay
#[derive(Args, Debug)]
#[command(after_help = "\
The idle shutdown counts at once, from the instance's last use. VM size and identity count from its next start on. `pfsession instance show` \
shows the present values and the next ones.

Examples:
  pfsession instance update dev --idle-shutdown 4h
  pfsession instance update dev --size Standard_D8s_v5 && pfsession instance stop dev && pfsession instance start dev")]
pub(crate) struct UpdateInstance {
    /// Its name
    #[arg(value_parser = instance_name)]
    name: String,
    /// The VM size, from its next start on
    #[arg(long, value_name = "NAME", required_unless_present_any = ["identity", "idle_shutdown"])]
    size: Option<String>,
    /// The user-assigned identity, from its next start on
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// Shut it down, with all its sessions, after this time without use: 30m, 1h, or never
    #[arg(long, value_name = "TIME", value_parser = idle_or_never)]
    idle_shutdown: Option<IdleOrNever>,
}

/// A time without use, or none.
#[derive(Clone, Copy, Debug)]
struct IdleOrNever(Option<IdleSeconds>);

fn idle_or_never(text: &str) -> Result<IdleOrNever, String> {
    match text {
        "never" => Ok(IdleOrNever(None)),
        time => idle(time).map(Some).map(IdleOrNever),
    }
}

impl Execute for UpdateInstance {
    type Json = InstanceView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let update = Wish::UpdateInstance {
            instance: self.name.clone(),
            size: self.size.clone(),
            identity: self.identity.clone(),
            idle_shutdown_seconds: self.idle_shutdown.and_then(|IdleOrNever(time)| time),
            no_idle_shutdown: matches!(self.idle_shutdown, Some(IdleOrNever(None))),
        };
        decide(client, &self.name, update)?;
        let instance = get(client, Route::Instance(&self.name).into())?;
        let names_any = self.size.is_some() || self.identity.is_some();
        let what = match names_any && is_changed_later(&instance) {
            true => "is changed; its VM size and identity count from its next start on",
            false => "is changed",
        };
        say(&instance, what, service.global.json);
        Ok(0)
    }
}

/// Whether it runs with another VM size or identity than it will have.
fn is_changed_later(instance: &InstanceView) -> bool {
    let row = &instance.instance;
    let is_other = |compute: &ComputeView| (&compute.size, &compute.identity) != (&row.size, &row.identity);
    instance.compute.as_ref().is_some_and(is_other)
}

/// List your compute instances
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession instance list
  pfsession instance list --json | jq -r '.instances[].name'")]
pub(crate) struct List {}

impl Execute for List {
    type Json = Instances;

    fn execute(&self, service: &Service<'_>) -> Done {
        let instances: Instances = service.client()?.get(Route::Instances)?;
        if service.global.json {
            out_json(&instances);
        } else if instances.instances.is_empty() {
            note!("You have no compute instance. Create one: pfsession instance create NAME");
        } else {
            out(&list_table(&instances.instances));
        }
        Ok(0)
    }
}

/// Show a compute instance, and the active flows and runs on it
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession instance show dev")]
pub(crate) struct Show {
    /// Its name
    name: String,
}

impl Execute for Show {
    type Json = InstanceView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let instance = get(&*service.client()?, Route::Instance(&self.name).into())?;
        if service.global.json {
            out_json(&instance);
        } else {
            out(&details(&instance, home().as_deref()));
        }
        Ok(0)
    }
}

/// Start a compute instance that is stopped
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession instance start dev")]
pub(crate) struct Start {
    /// Its name
    name: String,
}

impl Execute for Start {
    type Json = InstanceView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let instance = self.name.clone();
        let instance = until_up(&*service.client()?, &self.name, Wish::StartInstance { instance })?;
        say(&instance, "runs", service.global.json);
        Ok(0)
    }
}

/// Stop a compute instance with all sessions on it, whose runs end as canceled
#[derive(Args, Debug)]
#[command(after_help = "\
It shows what ends, and asks. Where there is no terminal to ask at, and a session is on it, it does nothing without --yes.

Examples:
  pfsession instance stop dev
  pfsession instance stop dev --yes")]
pub(crate) struct Stop {
    #[command(flatten)]
    end: EndInstance,
}

impl Execute for Stop {
    type Json = InstanceView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let instance = self.end.name.clone();
        let ended = end(client, &self.end, "Stopping", Wish::StopInstance { instance })?;
        // So that a start that follows finds it stopped.
        while let Some(compute) = get(client, settled_target(&self.end.name))?.compute
            && compute.phase != ComputePhase::Up
        {}
        say(&ended, "is stopped", service.global.json);
        Ok(0)
    }
}

/// Delete a compute instance; one that runs is stopped first
#[derive(Args, Debug)]
#[command(after_help = "\
It waits until the machine is gone.

Example:
  pfsession instance delete dev --yes")]
pub(crate) struct Delete {
    #[command(flatten)]
    end: EndInstance,
}

impl Execute for Delete {
    type Json = InstanceView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let (client, instance) = (&*service.client()?, self.end.name.clone());
        let ended = end(client, &self.end, "Deleting", Wish::DeleteInstance { instance })?;
        if let Some(compute) = &ended.compute {
            compute::until_gone(client, &compute.id)?;
        }
        say(&ended, "is deleted", service.global.json);
        Ok(0)
    }
}

/// The compute instance that ends.
#[derive(Args, Debug)]
pub(crate) struct EndInstance {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) yes: Yes,
}

fn say(instance: &InstanceView, what: &str, json: bool) {
    note!("The compute instance {} {what}.", instance.instance.name);
    if json {
        out_json(instance);
    }
}

fn get(client: &Client, target: Target) -> Result<InstanceView, Box<Trouble>> {
    let found = client.get(target);
    found.map_err(|trouble| trouble.next("see those that there are: pfsession instance list"))
}

/// Sends what is wanted of an instance, and waits until it is decided.
fn decide(client: &Client, name: &str, wish: Wish) -> Result<(), Box<Trouble>> {
    let id = format!("instance-{}", wish::random::<6>());
    client.send(&Command {
        id: id.clone(),
        flow: FlowRef {
            workspace: client.user.workspace.clone(),
            owner: client.user.name.clone(),
            lineage: format!("instance/{name}"),
        },
        principal: None,
        wish,
    })?;
    let row: OperationRow = watch::until_end(client, &id)?;
    match row.failure.filter(|_| row.status != OperationStatus::Succeeded) {
        Some(failure) => {
            Err(Trouble::of(FAILED, failure).what(format!("nothing was done with the compute instance {name}")))
        }
        None => Ok(()),
    }
}

fn until_up(client: &Client, name: &str, wish: Wish) -> Result<InstanceView, Box<Trouble>> {
    decide(client, name, wish)?;
    loop {
        let instance = get(client, settled_target(name))?;
        match instance.compute.as_ref().map(|compute| compute.phase) {
            Some(ComputePhase::Requested) => {}
            Some(ComputePhase::Up) => return Ok(instance),
            _ => return Err(instance_gone(name)),
        }
    }
}

/// Asks for an instance once it is neither starting nor stopping, or the longest wait is over.
fn settled_target(name: &str) -> Target<'_> {
    Route::Instance(name).with("wait", LONGEST_WAIT.as_millis())
}

fn instance_gone(name: &str) -> Box<Trouble> {
    let message = format!("The compute instance {name} was stopped meanwhile, or its machine could not be had");
    Trouble::new(FAILED, Code::InstanceGone, message).next(format!("start it: pfsession instance start {name}"))
}

/// Stops or deletes an instance. Gives back what it was.
fn end(client: &Client, wanted: &EndInstance, what: &str, wish: Wish) -> Result<InstanceView, Box<Trouble>> {
    let instance = get(client, Route::Instance(&wanted.name).into())?;
    if let Some(compute) = instance.compute.as_ref().filter(|compute| !compute.sessions.is_empty()) {
        let active = compute::active(compute, home().as_deref());
        let ends = compute::ends(compute);
        let question = format!("{active}\n{what} the compute instance {} ends {ends}.", wanted.name);
        confirm::ask(&question, wanted.yes.yes, confirm::Unasked::Refuse)?;
    }
    decide(client, &wanted.name, wish)?;
    if let Some(compute) = &instance.compute {
        compute::until_empty(client, &compute.id)?;
    }
    Ok(instance)
}

fn phase(instance: &InstanceView) -> &'static str {
    let compute = instance.compute.as_ref();
    compute.map_or("stopped", |compute| match compute.phase {
        ComputePhase::Requested => "starting",
        ComputePhase::Up => "running",
        ComputePhase::Draining | ComputePhase::Releasing => "stopping",
        ComputePhase::Gone => "stopped",
    })
}

fn list_table(instances: &[InstanceView]) -> String {
    let mut rows = show::table(&[
        "NAME",
        "PHASE",
        "VM SIZE",
        "IDENTITY",
        "IDLE SHUTDOWN",
        "SESSIONS",
        "ACTIVE RUNS",
    ]);
    for instance in instances {
        let compute = instance.compute.as_ref();
        rows.add_row([
            instance.instance.name.clone(),
            phase(instance).to_owned(),
            instance.instance.size.clone(),
            identity(instance),
            idle_shutdown(instance),
            compute.map_or(0, |compute| compute.sessions.len()).to_string(),
            compute.map_or(0, compute::runs).to_string(),
        ]);
    }
    show::render(rows)
}

fn identity(instance: &InstanceView) -> String {
    whose(instance.instance.identity.as_ref())
}

fn whose(identity: Option<&String>) -> String {
    identity.cloned().unwrap_or_else(|| "the user's own".into())
}

/// A setting, and with what the instance runs if that is another.
fn now_and_later(instance: &InstanceView, later: &str, now: impl Fn(&ComputeView) -> String) -> String {
    match instance.compute.as_ref().map(now).filter(|now| now != later) {
        Some(now) => format!("{now}; from its next start on {later}"),
        None => later.to_owned(),
    }
}

/// After how long an instance is shut down, and when that is by now.
fn idle_shutdown(instance: &InstanceView) -> String {
    let Some(seconds) = instance.instance.idle_shutdown_seconds else {
        return "never".to_owned();
    };
    let after = took(seconds.into());
    match &instance.compute {
        Some(compute) => match compute.shutdown_due {
            Some(due) => {
                let warned = if compute.shutdown_warned {
                    "; use a session on it to keep it"
                } else {
                    ""
                };
                format!("{after}: in {}{warned}", took(due.saturating_sub(compute.now)))
            }
            None if compute.phase == ComputePhase::Up => format!("{after}: in use"),
            None => after,
        },
        None => after,
    }
}

fn details(instance: &InstanceView, home: Option<&str>) -> String {
    let row = &instance.instance;
    let lines = [
        ("instance", row.name.clone()),
        ("owner", row.owner.clone()),
        ("phase", phase(instance).to_owned()),
        (
            "VM size",
            now_and_later(instance, &row.size, |compute| compute.size.clone()),
        ),
        (
            "identity",
            now_and_later(instance, &identity(instance), |compute| {
                whose(compute.identity.as_ref())
            }),
        ),
        ("idle shutdown", idle_shutdown(instance)),
        ("created", format!("by {} at {}", row.by, clock(row.at))),
    ];
    let lines = lines.map(|(name, value)| format!("{name:<13} {value}")).join("\n");
    match instance.compute.as_ref().filter(|compute| !compute.sessions.is_empty()) {
        Some(compute) => format!("{lines}\n\n{}", compute::active(compute, home)),
        None => lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_compute_instance_is_shown_stopped_idle_and_in_use() {
        let stopped: InstanceView = serde_json::from_value(json!({
            "workspace": "lab", "owner": "bob", "name": "dev", "size": "Standard_D2s_v3", "revision": 1, "by": "bob", "at": 0,
        }))
        .unwrap();
        let flow = json!({ "workspace": "lab", "owner": "bob", "lineage": "/flows/a" });
        let compute = json!({
            "id": "c1", "workspace": "lab", "owner": "bob", "phase": "up", "size": "Standard_D2s_v3", "now": 65_000,
            "shutdown_due": 3_665_000,
            "sessions": [{ "key": "a0", "flow": flow, "phase": "ready", "since": 5_000, "current": null, "runs": ["run-1"] }],
        });
        let mut idle = InstanceView {
            compute: Some(serde_json::from_value(compute).unwrap()),
            ..stopped.clone()
        };
        idle.instance.idle_shutdown_seconds = Some(7200.try_into().unwrap());
        let mut warned = idle.clone();
        warned.compute.as_mut().unwrap().shutdown_warned = true;
        assert_eq!(idle_shutdown(&warned), "2 h: in 1 h; use a session on it to keep it");
        let mut used = idle.clone();
        used.compute.as_mut().unwrap().shutdown_due = None;
        expect_test::expect![[r#"
            NAME  PHASE    VM SIZE          IDENTITY        IDLE SHUTDOWN  SESSIONS  ACTIVE RUNS
            dev   stopped  Standard_D2s_v3  the user's own  never          0         0
            dev   running  Standard_D2s_v3  the user's own  2 h: in 1 h    1         1
            dev   running  Standard_D2s_v3  the user's own  2 h: in use    1         1"#]]
        .assert_eq(&list_table(&[stopped, idle.clone(), used]));
        expect_test::expect![[r#"
            instance      dev
            owner         bob
            phase         running
            VM size       Standard_D2s_v3
            identity      the user's own
            idle shutdown 2 h: in 1 h
            created       by bob at 1970-01-01T00:00:00.000Z

            KEY  FLOW      PHASE  SINCE      ACTIVE RUNS
            a0   /flows/a  ready  1 min ago  run-1"#]]
        .assert_eq(&details(&idle, None));
        expect_test::expect![
            "Instance.Gone: The compute instance dev was stopped meanwhile, or its machine could not be had"
        ]
        .assert_eq(&instance_gone("dev").failure.to_string());
    }
}
