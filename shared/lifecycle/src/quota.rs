//! The quota of one user, or of all users together, in a workspace: sessions, and processors of
//! each family of VM sizes.
//!
//! # Source
//!
//! "It runs on the virtual machine (VM) size of serverless compute, provided you have enough quota
//! in the workspace" (the specification, *Start a compute session on a flow page*).
//!
//! A cost cap is such a quota, too: how long the sessions of a user may live on one day. Each
//! session counts for itself, from the claim of its compute resource until it leaves that; days are
//! those of UTC.

use crate::{Code, Failure, Millis, deadlines, size};
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

    /// The way to make room, before "then start this one again".
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
    /// The longest time that the sessions may live on one day, all of them together.
    pub daily: Option<Millis>,
}

/// A user's usage: each live session, by its flow's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Usage {
    /// Raised by each change; 0 of one that is not stored.
    pub revision: u64,
    pub sessions: BTreeMap<String, Use>,
    /// Compute instances that run, by the id of their compute resource: they use processors without
    /// a session, too.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "BTreeMap::is_empty"))]
    pub instances: BTreeMap<String, Use>,
    /// The day on which a session left last, and how long those that have left lived on it.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub past: Option<Past>,
    /// The time at which a sweep looks whether the time of the day is used up: see [`Usage::look`].
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub due: Option<Millis>,
    /// Up to when it was counted among what all users have: see [`Usage::count`].
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub counted: Option<Millis>,
}

/// The sessions and compute instances of users at one moment, all that were counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Users with a session or a compute instance.
    pub users: u64,
    pub sessions: u64,
    /// Compute instances that run.
    pub instances: u64,
    /// The time that sessions have lived on this day.
    pub lived: Millis,
}

/// The time that sessions lived which have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Past {
    /// The day of UTC, since the Unix epoch.
    pub day: u64,
    pub lived: Millis,
}

/// The act of a sweep about the time of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Daily {
    /// Nothing yet.
    Wait,
    /// Warn each session: it is stopped at `due`.
    Warn { due: Millis },
    /// Stop each session. The time begins anew at `until`.
    Stop { until: Millis },
}

/// The usage of one session or one compute instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "wire", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub struct Use {
    /// The flow, as its user names it; of an instance, what an error says of it.
    pub lineage: String,
    /// The VM size of its compute resource.
    pub size: String,
    /// Its compute resource: sessions on the same one use its processors once.
    pub compute: String,
    /// Since when a session is on it; none of a row that an earlier version wrote.
    #[cfg_attr(feature = "wire", serde(default, skip_serializing_if = "Option::is_none"))]
    pub since: Option<Millis>,
}

impl Usage {
    /// Takes in the session of `flow`. Entering twice is entering once.
    ///
    /// * `workspace`: its name, for the error.
    ///
    /// # Errors
    ///
    /// `Session.QuotaExceeded`, final until something is stopped: it names the quota, what holds it
    /// and what to stop. `Session.DailyTimeUsedUp`, final for the day.
    pub fn enter(
        &self,
        flow: &str,
        wanted: &Use,
        quota: &Quota,
        workspace: &str,
        now: Millis,
    ) -> Result<Self, Failure> {
        let mut next = self.clone();
        let since = next.sessions.remove(flow).and_then(|held| held.since);
        if let Some(most) = quota.daily.filter(|most| self.lived(now) >= *most) {
            return Err(daily_time_used_up(self.lived(now), most, workspace, now));
        }
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
        let wanted = Use {
            since: since.or(Some(now)),
            ..wanted.clone()
        };
        next.sessions.insert(flow.to_owned(), wanted);
        next.revision = self.revision + 1;
        Ok(next.watch(quota, now))
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
    pub fn leave(&self, flow: &str, now: Millis) -> Option<Self> {
        let mut next = self.clone();
        let left = next.sessions.remove(flow)?;
        let lived = self.past_of(now) + on_day(&left, now);
        next.past = Some(Past { day: now / DAY, lived });
        next.revision = self.revision + 1;
        Some(next)
    }

    /// Returns how long sessions have lived on the day of `now`, all of them together.
    pub fn lived(&self, now: Millis) -> Millis {
        self.past_of(now) + self.sessions.values().map(|held| on_day(held, now)).sum::<Millis>()
    }

    /// Returns when the time of a day is used up, if all sessions stay and none comes; `None` if it
    /// never is so.
    pub fn daily_due(&self, quota: &Quota, now: Millis) -> Option<Millis> {
        let most = quota.daily?;
        let live = u64::try_from(self.sessions.len()).ok().filter(|live| *live > 0)?;
        let ends = |from: Millis, left: Millis| from.saturating_add(left.div_ceil(live));
        let today = ends(now, most.saturating_sub(self.lived(now)));
        // Afterwards each day is as the next one.
        let next = ends(next_day(now), most);
        let is_in_day = |at: &Millis, day: Millis| *at < day + DAY;
        Some(today)
            .filter(|at| is_in_day(at, next_day(now) - DAY))
            .or(Some(next).filter(|at| is_in_day(at, next_day(now))))
    }

    /// Looks whether the time of the day is used up, or soon. `None` if nobody is to look now.
    pub fn look(&self, quota: &Quota, now: Millis) -> Option<(Self, Daily)> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        let mut next = self.clone();
        next.revision = self.revision + 1;
        let due = self.daily_due(quota, now);
        let what = match due {
            // The sessions are told again if they have not left by then.
            Some(due) if now >= due => {
                next.due = Some(now + deadlines::COMPUTE_RETRY);
                let until = next_day(now);
                return Some((next, Daily::Stop { until }));
            }
            Some(due) if now >= warning_of(due, quota) => {
                next.due = Some(due);
                Daily::Warn { due }
            }
            _ => {
                next = next.watch(quota, now);
                Daily::Wait
            }
        };
        Some((next, what))
    }

    /// Returns when a sweep is to come to it: to [`look`](Self::look), or to
    /// [`count`](Self::count).
    pub fn due_at(&self, now: Millis) -> Option<Millis> {
        let has_any = !self.sessions.is_empty() || !self.instances.is_empty() || self.past_of(now) > 0;
        let last = self.counted.unwrap_or(now / COUNTED_EVERY * COUNTED_EVERY);
        let count = has_any.then_some(last + COUNTED_EVERY);
        self.due.into_iter().chain(count).min()
    }

    /// Counts what the user has, once in each span of [`COUNTED_EVERY`]. `None` if that was done,
    /// or there is nothing.
    pub fn count(&self, now: Millis) -> Option<(Self, Live)> {
        let from = now / COUNTED_EVERY * COUNTED_EVERY;
        self.due_at(now)?;
        if self.counted.is_some_and(|last| last >= from) {
            return None;
        }
        let count = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
        let (sessions, instances) = (count(self.sessions.len()), count(self.instances.len()));
        let live = Live {
            users: u64::from(sessions + instances > 0),
            sessions,
            instances,
            lived: self.lived(now),
        };
        let next = Self {
            counted: Some(from),
            revision: self.revision + 1,
            ..self.clone()
        };
        Some((next, live))
    }

    /// Sets when a sweep is to look at it.
    #[must_use]
    pub fn watch(mut self, quota: &Quota, now: Millis) -> Self {
        self.due = self.daily_due(quota, now).map(|due| warning_of(due, quota));
        self
    }

    /// The time of the sessions that have left, on the day of `now`.
    fn past_of(&self, now: Millis) -> Millis {
        self.past
            .filter(|past| past.day == now / DAY)
            .map_or(0, |past| past.lived)
    }

    /// Returns the processors of this family that are in use, and the sessions and instances that
    /// use them.
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

/// The time between two counts of what all users have.
pub const COUNTED_EVERY: Millis = 300_000;

/// One day, in milliseconds.
const DAY: Millis = 86_400_000;

/// The start of the day after that of `now`.
fn next_day(now: Millis) -> Millis {
    (now / DAY + 1) * DAY
}

/// The time that a session has lived on the day of `now`.
fn on_day(held: &Use, now: Millis) -> Millis {
    held.since
        .map_or(0, |since| now.saturating_sub(since.max(next_day(now) - DAY)))
}

/// The time of the warning that the user's time ends.
fn warning_of(due: Millis, quota: &Quota) -> Millis {
    due.saturating_sub(deadlines::IDLE_WARNING.min(quota.daily.unwrap_or_default() / 4))
}

/// The failure of a session, or of its start, once the time of the day is used up.
///
/// * `lived`: how long the user's sessions have lived today.
pub fn daily_time_used_up(lived: Millis, most: Millis, workspace: &str, now: Millis) -> Failure {
    let message = format!(
        "Your sessions may live for {} a day in the workspace {workspace}, all of them together, and have lived for {} today. The time begins \
         anew at {} 00:00 UTC. Start the session then, or ask an owner of the workspace for more.",
        words(most),
        words(lived),
        date(next_day(now))
    );
    Failure::new(Code::SessionDailyTimeUsedUp, message)
}

/// A length of time, in whole seconds.
fn words(time: Millis) -> String {
    let seconds = time / 1000;
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let named: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if named.is_empty() {
        "0 s".to_owned()
    } else {
        named.join(" ")
    }
}

/// The date of a moment, in UTC.
///
/// # Source
///
/// Howard Hinnant, *chrono-Compatible Low-Level Date Algorithms*, `civil_from_days`, for days from
/// the Unix epoch on.
fn date(at: Millis) -> String {
    let days = at / DAY + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + next)
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
            since: None,
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
            daily: None,
        }
    }

    #[test]
    fn a_quota_of_sessions_counts_those_that_are_there_and_one_twice_as_one() {
        let two = quota(Some(2), &[]);
        let mut usage = Usage::default();
        for flow in ["a", "b", "a"] {
            usage = usage.enter(flow, &place(flow, "local", "c1"), &two, "lab", 0).unwrap();
        }
        assert_eq!((usage.sessions.len(), usage.revision), (2, 3));
        let full = usage
            .enter("c", &place("c", "local", "c1"), &two, "lab", 0)
            .unwrap_err();
        assert_eq!(
            full.to_string(),
            "Session.QuotaExceeded: The quota of sessions in the workspace lab is 2 for you, in use by a (local), b (local). Stop one that you \
             do not need, then start this one again."
        );
        let left = usage.leave("a", 0).unwrap();
        left.enter("c", &place("c", "local", "c1"), &two, "lab", 0).unwrap();
        assert_eq!(left.leave("a", 0), None);
        let none = Usage::default().enter("a", &place("a", "local", "c1"), &quota(Some(0), &[]), "lab", 0);
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
            .enter("a", &place("bob", d4, "c1"), &all, "lab", 0)
            .unwrap();
        let two = one.enter("b", &place("ann", "local", "c2"), &all, "lab", 0).unwrap();
        let texts = [
            two.enter("c", &place("eve", "local", "c3"), &all, "lab", 0),
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
        let joined = usage.enter("a", &place("a", d4, "c1"), &four, "lab", 0).unwrap();
        let elsewhere = usage.enter("b", &place("b", d4, "c2"), &four, "lab", 0);
        assert_eq!(
            elsewhere.unwrap_err().to_string(),
            "Session.QuotaExceeded: The quota of vCPUs of family D in the workspace lab is 4 for you. Standard_D4s_v5 needs 4 more, and 4 are \
             in use: the compute instance dev (Standard_D4s_v5). Stop one of these, then start this one again."
        );
        assert_eq!(joined.leave("a", 0).unwrap().vcpus("D").0, 4);
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
            usage = usage
                .enter(flow, &place(flow, size, compute), &eight, "lab", 0)
                .unwrap();
        }
        assert_eq!(usage.vcpus("D").0, 6);
        // On a compute resource that is there it needs no more.
        usage.enter("f", &place("f", d4, "c1"), &eight, "lab", 0).unwrap();
        let texts = [
            usage.enter("g", &place("g", d4, "c5"), &eight, "lab", 0),
            usage.enter("h", &place("h", "Standard_NC4as_T4_v3", "c6"), &eight, "lab", 0),
            Usage::default().enter("i", &place("i", "Standard_D16s_v5", "c7"), &eight, "lab", 0),
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

    fn daily(most: Millis) -> Quota {
        Quota {
            daily: Some(most),
            ..quota(None, &[])
        }
    }

    #[test]
    fn the_time_of_a_day_is_that_of_all_sessions_together_and_begins_anew() {
        let (hour, hours) = (3_600_000, daily(4 * 3_600_000));
        let enter = |usage: &Usage, flow: &str, now| usage.enter(flow, &place(flow, "local", "c1"), &hours, "lab", now);
        // From 22:00 on.
        let from = DAY - 2 * hour;
        let one = enter(&Usage::default(), "a", from).unwrap();
        assert_eq!(
            one.daily_due(&hours, from),
            Some(DAY + 4 * hour),
            "that of the day is enough"
        );
        let two = enter(&one, "b", from + hour / 2).unwrap();
        let now = from + hour;
        assert_eq!(
            (two.lived(now), two.daily_due(&hours, now)),
            (3 * hour / 2, Some(DAY + 2 * hour))
        );
        assert_eq!(
            enter(&two, "a", now).unwrap().sessions["a"].since,
            Some(from),
            "entering twice is once"
        );
        let left = two.leave("a", now).unwrap();
        assert_eq!(left.lived(now + hour / 2), 2 * hour);
        assert_eq!(left.lived(DAY), 0, "a day begins");
        assert_eq!(left.lived(DAY + hour), hour);
        // Its own day is enough for a session alone; so is one of 24 hours.
        assert_eq!(left.daily_due(&daily(DAY), DAY), None);
        assert_eq!(
            left.leave("b", DAY).unwrap().daily_due(&hours, DAY),
            None,
            "nothing lives"
        );
        let over = enter(&left, "c", DAY + 4 * hour).unwrap_err();
        expect_test::expect!["Session.DailyTimeUsedUp: Your sessions may live for 4 h a day in the workspace lab, all of them together, and have lived for 4 h today. The time begins anew at 1970-01-03 00:00 UTC. Start the session then, or ask an owner of the workspace for more."].assert_eq(&over.to_string());
        assert_eq!(date(951_782_400_000), "2000-02-29");
        assert_eq!(date(4_107_542_400_000), "2100-03-01");
    }

    #[test]
    fn sessions_are_warned_of_the_end_of_the_day_and_stopped_until_all_have_left() {
        let most = daily(100_000);
        let one = Usage::default()
            .enter("a", &place("a", "local", "c1"), &most, "lab", 0)
            .unwrap();
        assert_eq!((one.due, one.look(&most, 74_999)), (Some(75_000), None));
        let (warned, what) = one.look(&most, 75_000).unwrap();
        assert_eq!(
            (what, warned.due, warned.revision),
            (Daily::Warn { due: 100_000 }, Some(100_000), 2)
        );
        // A second session brings the end nearer, and is warned of that.
        let two = warned
            .enter("b", &place("b", "local", "c1"), &most, "lab", 80_000)
            .unwrap();
        assert_eq!(two.look(&most, 80_000).unwrap().1, Daily::Warn { due: 90_000 });
        let (stopped, what) = two.look(&most, 90_000).unwrap();
        assert_eq!(what, Daily::Stop { until: DAY });
        let again = 90_000 + deadlines::COMPUTE_RETRY;
        assert_eq!(
            (stopped.due, stopped.look(&most, again).unwrap().1),
            (Some(again), what)
        );
        let none = stopped.leave("a", 91_000).unwrap().leave("b", 91_000).unwrap();
        let (none, what) = none.look(&most, again).unwrap();
        assert_eq!((what, none.due), (Daily::Wait, None));
        // One that has left puts the end off, also after a warning; and so does more time.
        let put_off = two.leave("a", 85_000).unwrap();
        assert_eq!(put_off.look(&most, 87_500).unwrap().1, Daily::Warn { due: 95_000 });
        assert_eq!(two.look(&daily(1_000_000), 90_000).unwrap().1, Daily::Wait);
        assert_eq!(two.look(&quota(None, &[]), 90_000).unwrap().0.due, None);
    }

    #[test]
    fn what_a_user_has_is_counted_once_in_each_span_of_time() {
        let one = Usage::default()
            .enter("a", &place("a", "local", "c1"), &quota(None, &[]), "lab", 310_000)
            .unwrap();
        assert_eq!(Usage::default().due_at(0), None);
        assert_eq!(one.due_at(310_000), Some(600_000));
        let (counted, live) = one.count(600_500).unwrap();
        let first = Live {
            users: 1,
            sessions: 1,
            instances: 0,
            lived: 290_500,
        };
        assert_eq!((live, counted.due_at(600_500)), (first, Some(900_000)));
        assert_eq!(counted.count(899_999), None);
        // What comes and goes between leaves the time as it is; what has lived on this day counts
        // on.
        let left = counted.leave("a", 899_000).unwrap();
        assert_eq!(left.due_at(899_000), Some(900_000));
        let (last, live) = left.count(901_000).unwrap();
        let second = Live {
            lived: 589_000,
            ..Live::default()
        };
        assert_eq!(live, second);
        assert_eq!((last.due_at(DAY), last.count(DAY)), (None, None));
    }
}
