//! The installed packages of a session, as its agent saw them, and their installs.

use crate::{Kind, Millis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The installed packages of a session from here on.
///
/// * `count`: from 1 in each generation: of two that come in any order, the larger counts.
/// * `lock`: the digest of the lock that the environment was built from; the agent that reports it
///   can build it again from that.
/// * `listed`: `None` if the environment was brought to a lock that the flow had before: then it is
///   what was recorded with that.
/// * `by_hand`: what the session's own code has changed on top, as `pip install` in a run does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Installation {
    pub count: u32,
    pub lock: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<Listed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_hand: Vec<ByHand>,
    /// The isolation of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// The file of the flow folder that the packages come from, and those that were passed over, as
    /// one line; left out where there is nothing but a `requirements.txt`, or nothing at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub described: Option<String>,
}

/// The packages for which a report and a row have no room.
///
/// * `count`: packages and lines of requirements that are cut or not listed.
/// * `file`: where all are, on the session's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    pub count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            1 => write!(f, "1 more line or package is not listed here")?,
            more => write!(f, "{more} more lines and packages are not listed here")?,
        }
        match &self.file {
            Some(file) => write!(f, "; all are in {file}"),
            None => Ok(()),
        }
    }
}

/// The strength of a session's isolation from the rest of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Tier {
    /// Namespaces, and cgroups that hold the VM size's processor and memory.
    A,
    /// Namespaces without cgroups.
    B,
    /// Landlock, system call filter and limits.
    C,
    /// Not isolated.
    D,
    /// A container that somebody else has made for this session alone.
    #[serde(rename = "container")]
    Container,
}

/// The isolation of sessions, and what is not held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Isolation {
    pub tier: Tier,
    pub not_held: Vec<String>,
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.tier {
            Tier::D => write!(f, "not isolated")?,
            Tier::Container => write!(f, "a container of its own")?,
            tier => write!(f, "tier {tier:?}")?,
        }
        if self.not_held.is_empty() {
            Ok(())
        } else {
            write!(f, "; not held: {}", self.not_held.join(", "))
        }
    }
}

/// The packages of an environment, and the requirements that they were resolved from.
///
/// * `requirements`: every line that says something, without credentials; `-c` stands before one
///   that only limits versions.
/// * `packages`: by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    pub requirements: Vec<String>,
    pub packages: Vec<Package>,
}

/// A package that was installed, or taken away (`version` is `None`), by the session's own code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ByHand {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A package that is installed.
///
/// * `named`: `file:line` of the requirement that names it.
/// * `asked_by`: the packages that need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub origin: PackageOrigin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked_by: Vec<String>,
}

/// The origin of a package.
///
/// # Source
///
/// "Shows the packages installed in the compute session, including those in the base image and
/// specified in the `requirements.txt` file in the flow folder" (the specification, *View installed
/// packages*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PackageOrigin {
    /// It is the base image's, at the base image's version.
    BaseImage,
    /// The flow's requirements name it.
    Requirements,
    /// Another package needs it.
    Dependency,
    /// The session's own code installed it.
    ByHand,
}

/// A difference of two sets of packages: `from` is `None` for a new one, `to` for one that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl Change {
    /// All that changed, by name.
    pub fn between(before: &[Package], after: &[Package]) -> Vec<Self> {
        let versions = |packages: &[Package]| -> BTreeMap<String, String> {
            packages
                .iter()
                .map(|package| (package.name.clone(), package.version.clone()))
                .collect()
        };
        let (before, after) = (versions(before), versions(after));
        let names = before
            .keys()
            .chain(after.keys().filter(|name| !before.contains_key(*name)));
        let mut changes: Vec<Self> = names
            .filter(|name| before.get(*name) != after.get(*name))
            .map(|name| Self {
                name: name.clone(),
                from: before.get(name).cloned(),
                to: after.get(name).cloned(),
            })
            .collect();
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        changes
    }
}

/// The end of an install's own program.
///
/// * `command`: what it was, in words; `exit_code`: 128 and the signal's number if a signal ended
///   it.
/// * `tail`: the last lines of its output, redacted; all of it is the operation's output.
///
/// # Source
///
/// `setupResults` of the service that the specification describes: `command`, `exitCode`, `stdOut`,
/// `stdErr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Setup {
    pub command: String,
    pub exit_code: i32,
    pub tail: Vec<String>,
}

/// The packages of a flow's session, as last recorded. The record outlives the session.
///
/// * `number`: of the last entry of the history.
/// * `by`: the operation or the run that changed it last; `kind`: of that operation; `None` for a
///   run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PackagesRow {
    pub number: u64,
    pub generation: u32,
    pub count: u32,
    pub at: Millis,
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    pub lock: String,
    pub requirements: Vec<String>,
    pub packages: Vec<Package>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// As in [`Installation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub described: Option<String>,
}

/// One entry of a flow's history of installs: what [`PackagesRow`] was from then on, and what of it
/// was new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstallRow {
    #[serde(flatten)]
    pub packages: PackagesRow,
    pub changes: Vec<Change>,
}

/// The most entries of a flow's history of installs that are kept.
pub const MOST_INSTALLS: u64 = 50;
