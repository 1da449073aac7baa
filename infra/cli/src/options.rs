//! Options that several commands have, and the parsers of their values.

use clap::{Args, ValueEnum};
use contract::{
    IdleSeconds,
    command::{SERVERLESS, Wanted},
};
use lifecycle::session::{Counts, Setting};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, ffi::OsStr, fs, path::Path};

/// The origins of settings, for the help of the commands that take some.
macro_rules! settings_help {
    ($examples:literal) => {
        concat!(
            $examples,
            "

Each setting comes from the first of these that names it, and `pfsession show` says which:
  1. this command
  2. the run's own file, run.yml: resources.instance_type (the VM size), identity, network, allow_hosts
  3. the flow's own file, flow.dag.yaml or flow.flex.yaml: environment.image (the base image)
  4. the workspace's settings: the VM size, the base image, the largest idle time
  5. the default: all of this machine, yourself, the image `promptflow`, one hour, the internet
A session that is there keeps what it has, whatever a run's file names: `pfsession update` changes it."
        )
    };
}

pub(crate) use settings_help;

/// The time from which a change of each setting counts.
pub(crate) fn changes_help() -> String {
    let of = |counts: Counts| {
        let of = Setting::ALL.iter().filter(|setting| setting.counts() == counts);
        of.map(|setting| setting.what()).collect::<Vec<_>>().join(", ")
    };
    format!(
        "A change counts
  at once: {}
  from the next reset on: {}
  in the session that is made anew for it: {}",
        of(Counts::AtOnce),
        of(Counts::AtReset),
        of(Counts::OnNewCompute)
    )
}

/// The settings of a session.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "The session")]
pub(crate) struct Wants {
    /// Delete the session when it was not used for this long: 90s, 30m, 1h [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = idle)]
    pub(crate) idle: Option<IdleSeconds>,
    /// The VM size: how much processor and memory it may use, by Azure's or EC2's names, as
    /// `pfsession sizes` lists them [default: local, all of the machine]
    #[arg(long, value_name = "NAME")]
    pub(crate) size: Option<String>,
    /// The compute instance that the session is on; it has its own VM size and identity
    #[arg(long, value_name = "INSTANCE", value_parser = instance_name, conflicts_with_all = ["size", "identity"])]
    pub(crate) compute: Option<String>,
    /// The type of compute resource [default: serverless, or instance with --compute]
    #[arg(long, value_name = "TYPE", requires_if("instance", "compute"))]
    pub(crate) compute_type: Option<ComputeType>,
    /// The base image, in place of the flow's own
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// The user-assigned identity that the session acts as, in place of yours
    #[arg(long, value_name = "ID")]
    pub(crate) identity: Option<String>,
    /// Which network it has: the internet without this machine's and private addresses; this
    /// machine's own; or none [default: internet]
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<Network>,
    /// A host that it may reach whatever the network is: api.example.org:443, *.example.org,
    /// 10.1.0.0/16, 127.0.0.1:8080. All that are named take the place of those before; `none` is no
    /// host
    #[arg(long = "allow-host", value_name = "HOST", value_parser = host)]
    pub(crate) allow_hosts: Vec<String>,
}

impl Wants {
    /// The hosts that were named; `None` if the option is absent.
    fn allow_hosts(&self) -> Option<Vec<String>> {
        let named = self
            .allow_hosts
            .iter()
            .filter(|host| *host != NO_HOST)
            .cloned()
            .collect();
        (!self.allow_hosts.is_empty()).then_some(named)
    }

    /// The settings that were typed.
    pub(crate) fn to_wanted(&self) -> Wanted {
        Wanted {
            folder: None,
            size: self.size.clone(),
            identity: self.identity.clone(),
            image: self.image.clone(),
            idle: self.idle,
            network: self.network.map(Into::into),
            allow_hosts: self.allow_hosts(),
            compute: match (&self.compute, self.compute_type) {
                (None, Some(ComputeType::Serverless)) => Some(SERVERLESS.to_owned()),
                (name, _) => name.clone(),
            },
            from_run_file: Vec::new(),
        }
    }

    /// The options, for who typed none of them.
    pub(crate) fn options() -> String {
        let options = Self::augment_args(clap::Command::new(""));
        let long = options.get_arguments().filter_map(|option| option.get_long());
        long.map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ")
    }

    /// The settings that were typed, or `None`, which keeps those that the session has.
    pub(crate) fn change(&self) -> Option<Wanted> {
        Some(self.to_wanted()).filter(|wanted| *wanted != Wanted::default())
    }
}

/// Which network a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    None,
    Internet,
    Open,
}

impl From<Network> for lifecycle::network::Network {
    fn from(network: Network) -> Self {
        match network {
            Network::None => Self::None,
            Network::Internet => Self::Internet,
            Network::Open => Self::Open,
        }
    }
}

/// The type of a compute resource.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum ComputeType {
    Serverless,
    Instance,
}

/// Whether work under way may end.
#[derive(Args, Debug)]
pub(crate) struct Yes {
    /// Do not ask whether active runs may end
    #[arg(long)]
    pub(crate) yes: bool,
}

/// The word for an empty list of hosts.
const NO_HOST: &str = "none";

/// A host that may be reached, as it is stored.
fn host(text: &str) -> Result<String, String> {
    match text.parse::<lifecycle::network::Host>() {
        Ok(host) => Ok(host.to_string()),
        Err(_) => Err(format!("a host is {}", lifecycle::network::HOST)),
    }
}

/// `NAME=TEXT`.
pub(crate) fn named_text(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("this is to be NAME=TEXT".into()),
    }
}

/// `NODE.KEY=TEXT`.
pub(crate) fn of_a_node(text: &str) -> Result<(String, String, String), String> {
    let (place, value) = named_text(text)?;
    match place.split_once('.') {
        Some((node, key)) if !node.is_empty() && !key.is_empty() => Ok((node.into(), key.into(), value)),
        _ => Err("this is to be NODE.KEY=TEXT".into()),
    }
}

/// `NAME=TEXT` or `NAME:=JSON`. Text stays text: the flow's own types say what it becomes.
pub(crate) fn named_value(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("this is to be NAME=TEXT or NAME:=JSON")?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => (
            name,
            serde_json::from_str(value).map_err(|e| format!("what follows := is not JSON: {e}"))?,
        ),
        None => (name, value.into()),
    };
    if name.is_empty() {
        Err("there is no name before the =".into())
    } else {
        Ok((name.into(), value))
    }
}

/// Values by name that one argument gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Values(Vec<(String, Value)>);

impl Values {
    /// All of several arguments; of one name the last counts.
    pub(crate) fn of_all(given: &[Self]) -> BTreeMap<String, Value> {
        given.iter().flat_map(|values| values.0.iter().cloned()).collect()
    }
}

/// `NAME=TEXT`, `NAME:=JSON`, or the path of a file of JSON with values by name; of JSON lines the
/// first, as `pf` has it.
pub(crate) fn values(text: &str) -> Result<Values, String> {
    let path = Path::new(text);
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    if text.contains('=') || !matches!(ending, "json" | "jsonl") {
        return Ok(Values(vec![named_value(text)?]));
    }
    let written = fs::read_to_string(path).map_err(|error| format!("the file cannot be read: {error}"))?;
    let first = match ending {
        "jsonl" => written.lines().next().unwrap_or_default(),
        _ => &written,
    };
    let values: Map<String, Value> =
        serde_json::from_str(first).map_err(|error| format!("the file has no JSON object: {error}"))?;
    Ok(Values(values.into_iter().collect()))
}

/// A time such as `90s`, `30m` or `1h`, in seconds, within what a session's idle time may be.
pub(crate) fn idle(text: &str) -> Result<IdleSeconds, String> {
    let time = humantime::parse_duration(text).map_err(|_| "a time is a number and a unit, such as 90s, 30m or 1h")?;
    time.as_secs().try_into()
}

pub(crate) fn instance_name(text: &str) -> Result<String, String> {
    match text {
        contract::command::SERVERLESS => Err("serverless compute has this name".into()),
        name if contract::command::is_good_id(name) => Ok(name.into()),
        _ => Err("a name is 1 to 80 characters of A-Z a-z 0-9 - _".into()),
    }
}

/// The id of a run leaves room for the name of the start that it may cause.
pub(crate) fn run_id(text: &str) -> Result<String, String> {
    if contract::command::is_good_id(text) && text.len() <= 70 {
        Ok(text.into())
    } else {
        Err("an id has 1 to 70 characters of A-Z a-z 0-9 - _".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_stays_text_and_json_is_asked_for() {
        assert_eq!(named_value("a=1"), Ok(("a".into(), json!("1"))));
        assert_eq!(named_value("a:=1"), Ok(("a".into(), json!(1))));
        assert_eq!(
            named_value("url=http://x/?a:=b"),
            Ok(("url".into(), json!("http://x/?a:=b")))
        );
        assert_eq!(named_value("a="), Ok(("a".into(), json!(""))));
        for wrong in ["a", "=1", ":=1", "a:={"] {
            assert!(named_value(wrong).is_err(), "{wrong}");
        }
        assert_eq!(named_text("q=${data.a=b}"), Ok(("q".into(), "${data.a=b}".into())));
    }

    #[test]
    fn values_come_one_by_one_or_from_a_file_and_the_last_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let given = [
            file("all.json", "{\"a\": [1],\n\"b\": 2}"),
            "b=x".to_owned(),
            "file=a.json".to_owned(),
            file("rows.jsonl", "{\"c\": 3}\n{\"c\": 4}\n"),
        ];
        let given: Vec<Values> = given.iter().map(|text| values(text).unwrap()).collect();
        let all = json!({ "a": [1], "b": "x", "c": 3, "file": "a.json" });
        assert_eq!(json!(Values::of_all(&given)), all);
        for (wrong, why) in [
            (file("list.json", "[1]"), "no JSON object"),
            (folder.path().join("none.json").display().to_string(), "cannot be read"),
            ("none.yaml".to_owned(), "NAME=TEXT"),
        ] {
            let said = values(&wrong).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn an_idle_time_has_a_unit_and_is_within_a_minute_and_a_day() {
        assert_eq!(
            [idle("90s"), idle("30m"), idle("1h"), idle("24h")],
            [90, 1800, 3600, 86_400].map(IdleSeconds::try_from)
        );
        for wrong in ["", "30", "59s", "25h", "-1m", "soon"] {
            assert!(idle(wrong).is_err(), "{wrong}");
        }
    }
}
