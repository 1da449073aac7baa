//! How much one user, or all users together, may have at once in a workspace: sessions, and processors of each family of VM sizes.
//!
//! # Source
//!
//! "It runs on the virtual machine (VM) size of serverless compute, provided you have enough quota in the workspace" (the specification, *Start a compute
//! session on a flow page*).

use crate::{Code, Failure, size};
use std::collections::{BTreeMap, BTreeSet};

/// For whom a quota is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    #[default]
    User,
    /// All users of the workspace together.
    Everybody,
}

impl Whose {
    fn what(self) -> &'static str {
        match self {
            Self::User => "for you",
            Self::Everybody => "for everybody together",
        }
    }

    /// How room is made, before "then start this one again".
    fn stop(self, of_yours: &'static str) -> &'static str {
        match self {
            Self::User => of_yours,
            Self::Everybody => "Stop one of yours, or ask one of these users or an owner of the workspace to stop one",
        }
    }
}

/// The quota of one user, or of all. What it does not name has no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub whose: Whose,
    pub sessions: Option<u32>,
    /// Processors, by the family of VM sizes: `D`, `NC`, `m`.
    pub vcpus: BTreeMap<String, u32>,
}

/// A user's usage: each live session, by its flow's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Usage {
    /// Raised by each change; 0 of one that is not stored.
    pub revision: u64,
    pub sessions: BTreeMap<String, Use>,
    /// Compute instances that run, by the id of their compute resource: they use processors without a session, too.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "BTreeMap::is_empty"))]
    pub instances: BTreeMap<String, Use>,
}

/// The usage of one session or one compute instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Use {
    /// The flow, as its user names it; of an instance, what an error says of it.
    pub lineage: String,
    /// The VM size of its compute resource.
    pub size: String,
    /// Its compute resource: sessions on the same one use its processors once.
    pub compute: String,
}

impl Usage {
    /// Takes in the session of `flow`. Entering twice is entering once.
    ///
    /// * `workspace`: its name, for the error.
    ///
    /// # Errors
    ///
    /// `Session.QuotaExceeded`, final until something is stopped: it names the quota, what holds it and what to stop.
    pub fn enter(&self, flow: &str, wanted: &Use, quota: &Quota, workspace: &str) -> Result<Self, Failure> {
        let mut next = self.clone();
        next.sessions.remove(flow);
        let held = u32::try_from(next.sessions.len()).unwrap_or(u32::MAX);
        if let Some(most) = quota.sessions.filter(|most| held >= *most) {
            let all = next.sessions.values().collect();
            return Err(used_up(&format!(
                "The quota of sessions in the workspace {workspace} is {most} {}, in use by {}. {}",
                quota.whose.what(),
                holders(all),
                quota.whose.stop("Stop one that you do not need")
            )));
        }
        next.has_room(wanted, quota, workspace)?;
        next.sessions.insert(flow.to_owned(), wanted.clone());
        next.revision = self.revision + 1;
        Ok(next)
    }

    /// Takes in a compute instance that starts.
    ///
    /// * `workspace`: as [`enter`](Self::enter) takes it.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter).
    pub fn hold(&self, wanted: &Use, quota: &Quota, workspace: &str) -> Result<Self, Failure> {
        let mut next = self.clone();
        next.has_room(wanted, quota, workspace)?;
        next.instances.insert(wanted.compute.clone(), wanted.clone());
        next.revision = self.revision + 1;
        Ok(next)
    }

    /// Takes the compute instance out that `compute` is; `None` if it is not in it.
    pub fn release(&self, compute: &str) -> Option<Self> {
        let mut next = self.clone();
        next.instances.remove(compute)?;
        next.revision = self.revision + 1;
        Some(next)
    }

    /// Whether there are processors for what is wanted.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter).
    pub fn has_room(&self, wanted: &Use, quota: &Quota, workspace: &str) -> Result<(), Failure> {
        let size = size::size(&wanted.size);
        let family = size.as_ref().map_or(size::WHOLE_MACHINE, |size| size.family);
        let needs = size
            .as_ref()
            .and_then(|size| size.limits)
            .map_or(0, |limits| limits.cpus);
        if let Some(most) = quota.vcpus.get(family) {
            let (in_use, of_family) = self.vcpus(family);
            let is_there = of_family.iter().any(|held| held.compute == wanted.compute);
            if !is_there && in_use.saturating_add(needs) > *most {
                let holders = match of_family.is_empty() {
                    true => "none is in use".to_owned(),
                    false => format!("{in_use} are in use: {}", holders(of_family)),
                };
                let next = if needs > *most {
                    "Name a smaller VM size, or one of another family"
                } else {
                    quota.whose.stop("Stop one of these")
                };
                return Err(used_up(&format!(
                    "The quota of vCPUs of family {family} in the workspace {workspace} is {most} {}. {} needs {needs} more, and \
                     {holders}. {next}",
                    quota.whose.what(),
                    wanted.size
                )));
            }
        }
        Ok(())
    }

    /// Takes the session of `flow` out; `None` if it is not in it.
    pub fn leave(&self, flow: &str) -> Option<Self> {
        let mut next = self.clone();
        next.sessions.remove(flow)?;
        next.revision = self.revision + 1;
        Some(next)
    }

    /// Returns the processors of this family that are in use, and the sessions and instances that use them.
    pub fn vcpus(&self, family: &str) -> (u32, Vec<&Use>) {
        let (mut count, mut computes, mut uses) = (0u32, BTreeSet::new(), Vec::new());
        for held in self.sessions.values().chain(self.instances.values()) {
            let Some(size) = size::size(&held.size).filter(|size| size.family == family) else {
                continue;
            };
            uses.push(held);
            if computes.insert(&held.compute) {
                count = count.saturating_add(size.limits.map_or(0, |limits| limits.cpus));
            }
        }
        (count, uses)
    }
}

fn used_up(what: &str) -> Failure {
    Failure::new(
        Code::SessionQuotaExceeded,
        format!("{what}, then start this one again."),
    )
}

/// The most sessions that an error names.
const NAMED: usize = 5;

/// Which sessions hold a quota.
fn holders(mut uses: Vec<&Use>) -> String {
    uses.sort_by_key(|held| &held.lineage);
    let count = uses.len();
    let named: Vec<String> = uses
        .iter()
        .take(NAMED)
        .map(|held| match held.lineage.as_str() {
            "" => format!("a session ({})", held.size),
            lineage => format!("{lineage} ({})", held.size),
        })
        .collect();
    let more = count.saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    match count {
        0 => "no session".to_owned(),
        _ => format!("{}{more}", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(lineage: &str, size: &str, compute: &str) -> Use {
        Use {
            lineage: lineage.into(),
            size: size.into(),
            compute: compute.into(),
        }
    }

    fn quota(sessions: Option<u32>, vcpus: &[(&str, u32)]) -> Quota {
        Quota {
            whose: Whose::User,
            sessions,
            vcpus: vcpus
                .iter()
                .map(|(family, count)| ((*family).to_owned(), *count))
                .collect(),
        }
    }

    #[test]
    fn a_quota_of_sessions_counts_those_that_are_there_and_one_twice_as_one() {
        let two = quota(Some(2), &[]);
        let mut usage = Usage::default();
        for flow in ["a", "b", "a"] {
            usage = usage.enter(flow, &place(flow, "local", "c1"), &two, "lab").unwrap();
        }
        assert_eq!((usage.sessions.len(), usage.revision), (2, 3));
        let full = usage.enter("c", &place("c", "local", "c1"), &two, "lab").unwrap_err();
        assert_eq!(
            full.to_string(),
            "Session.QuotaExceeded: The quota of sessions in the workspace lab is 2 for you, in use by a (local), b (local). Stop one that you \
             do not need, then start this one again."
        );
        let left = usage.leave("a").unwrap();
        left.enter("c", &place("c", "local", "c1"), &two, "lab").unwrap();
        assert_eq!(left.leave("a"), None);
        let none = Usage::default().enter("a", &place("a", "local", "c1"), &quota(Some(0), &[]), "lab");
        assert!(
            none.unwrap_err()
                .message
                .contains("is 0 for you, in use by no session.")
        );
    }

    #[test]
    fn a_quota_of_all_users_says_who_holds_it_and_who_can_make_room() {
        let all = Quota {
            whose: Whose::Everybody,
            ..quota(Some(2), &[("D", 4)])
        };
        let d4 = "Standard_D4s_v5";
        let one = Usage::default()
            .enter("a", &place("bob", d4, "c1"), &all, "lab")
            .unwrap();
        let two = one.enter("b", &place("ann", "local", "c2"), &all, "lab").unwrap();
        let texts = [
            two.enter("c", &place("eve", "local", "c3"), &all, "lab"),
            one.hold(&place("eve", d4, "c3"), &all, "lab"),
        ];
        expect_test::expect![[r#"
            Session.QuotaExceeded: The quota of sessions in the workspace lab is 2 for everybody together, in use by ann (local), bob (Standard_D4s_v5). Stop one of yours, or ask one of these users or an owner of the workspace to stop one, then start this one again.
            Session.QuotaExceeded: The quota of vCPUs of family D in the workspace lab is 4 for everybody together. Standard_D4s_v5 needs 4 more, and 4 are in use: bob (Standard_D4s_v5). Stop one of yours, or ask one of these users or an owner of the workspace to stop one, then start this one again."#]].assert_eq(&texts.map(|refused| refused.unwrap_err().to_string()).join("\n"));
    }

    #[test]
    fn a_compute_instance_holds_its_processors_from_its_start_to_its_stop() {
        let four = quota(None, &[("D", 4)]);
        let d4 = "Standard_D4s_v5";
        let dev = place("the compute instance dev", d4, "c1");
        let usage = Usage::default().hold(&dev, &four, "lab").unwrap();
        assert_eq!((usage.vcpus("D").0, usage.revision), (4, 1));
        // A session on it needs no more, and one elsewhere is told what holds them.
        let joined = usage.enter("a", &place("a", d4, "c1"), &four, "lab").unwrap();
        let elsewhere = usage.enter("b", &place("b", d4, "c2"), &four, "lab");
        assert_eq!(
            elsewhere.unwrap_err().to_string(),
            "Session.QuotaExceeded: The quota of vCPUs of family D in the workspace lab is 4 for you. Standard_D4s_v5 needs 4 more, and 4 are \
             in use: the compute instance dev (Standard_D4s_v5). Stop one of these, then start this one again."
        );
        assert_eq!(joined.leave("a").unwrap().vcpus("D").0, 4);
        let free = usage.release("c1").unwrap();
        assert_eq!((free.vcpus("D").0, free.release("c1")), (0, None));
    }

    #[test]
    fn a_quota_of_processors_counts_each_compute_resource_once_and_its_family_alone() {
        let eight = quota(None, &[("D", 8), ("NC", 0)]);
        let d4 = "Standard_D4s_v5";
        let mut usage = Usage::default();
        for (flow, size, compute) in [
            ("a", d4, "c1"),
            ("b", d4, "c1"),
            ("c", "m6i.xlarge", "c2"),
            ("d", "d2s_v3", "c3"),
            ("e", "local", "c4"),
        ] {
            usage = usage.enter(flow, &place(flow, size, compute), &eight, "lab").unwrap();
        }
        assert_eq!(usage.vcpus("D").0, 6);
        // On a compute resource that is there it needs no more.
        usage.enter("f", &place("f", d4, "c1"), &eight, "lab").unwrap();
        let texts = [
            usage.enter("g", &place("g", d4, "c5"), &eight, "lab"),
            usage.enter("h", &place("h", "Standard_NC4as_T4_v3", "c6"), &eight, "lab"),
            Usage::default().enter("i", &place("i", "Standard_D16s_v5", "c7"), &eight, "lab"),
        ]
        .map(|refused| refused.unwrap_err().to_string());
        assert_eq!(
            texts,
            [
                "Session.QuotaExceeded: The quota of vCPUs of family D in the workspace lab is 8 for you. Standard_D4s_v5 needs 4 more, and 6 \
                 are in use: a (Standard_D4s_v5), b (Standard_D4s_v5), d (d2s_v3). Stop one of these, then start this one again.",
                "Session.QuotaExceeded: The quota of vCPUs of family NC in the workspace lab is 0 for you. Standard_NC4as_T4_v3 needs 4 more, \
                 and none is in use. Name a smaller VM size, or one of another family, then start this one again.",
                "Session.QuotaExceeded: The quota of vCPUs of family D in the workspace lab is 8 for you. Standard_D16s_v5 needs 16 more, and \
                 none is in use. Name a smaller VM size, or one of another family, then start this one again.",
            ]
        );
    }
}
