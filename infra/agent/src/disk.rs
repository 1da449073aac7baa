//! The room on the disk: how much a session may take, and what is kept for everybody else.
//!
//! Every agent looks at the free room, and measures its own session when that shrinks. Where the
//! free room falls below the reserve, the session that grew most lately has to give way: its runs
//! end, and if that is not enough, the session does. Its files go with it.
//!
//! * Decision: a watch, which works for every user, on every file system and for all folders of a
//!   session. It does not keep a session from filling the disk within a moment; so the host starts,
//!   stops and keeps leases on a full disk (see `ballast.rs` in `infra/local`). `show` says so.
//! * Rejected: project quotas, which hold at once, but need a mount option that few machines have.
//!   Rejected: an image file for each session, which needs root and 20 ms of `mkfs` in each start.
//!   Rejected: `/tmp` in memory, which takes memory for what builds unpack, and forgets at each
//!   install what a flow keeps there.

use contract::{Code, Failure};
use sandbox::beneath::{Folder, Limits};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// The most that a session's files may have together, and the most of the disk.
const MOST: u64 = 16 << 30;
const MOST_OF_DISK: u64 = 2;
/// The room to keep free: a part of the disk, and no more than this.
const RESERVE: u64 = 1 << 30;
const RESERVE_OF_DISK: u64 = 20;
/// With less than this nothing can be written that is not there already.
const NO_ROOM: u64 = 256 << 10;
/// Room for small files on a full disk, in the state folder. The host makes it again.
pub const SPARE: &str = "room-for-small-files";
/// The part of it that is given up for one small file: others may take what the file leaves of it.
const PART_OF_SPARE: u64 = 16 << 10;
/// The words of `show` for it.
pub(crate) const NOT_HELD: &str = "room on the disk (watched: what takes too much is stopped)";
/// The times between two looks at the free room: of a session with a run, and of one without.
const BUSY: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_secs(2);
/// The longest time between two measurements of a session that runs something.
const MEASURED_FOR: Duration = Duration::from_secs(30);
/// Measuring may take a part of the time.
const REST: u32 = 20;
/// The time that counts as lately.
const LATELY: Duration = Duration::from_secs(600);
/// The largest age of another agent's word that counts.
const FRESH: Duration = Duration::from_secs(10);
/// The most entries to count. More is too much, if the room is needed.
const COUNTED: Limits = Limits {
    depth: 250,
    entries: 2_000_000,
    bytes: u64::MAX,
};
/// The file in a session's folder with what its agent says of the disk. It has its full size from
/// the beginning: on a full disk it can be written.
const SAID: &str = "disk.json";
const SAID_BYTES: usize = 4096;

/// The room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// For others than root.
    pub free: u64,
    pub total: u64,
}

impl Room {
    /// The room of the file system that `path` lies on.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn of(path: &Path) -> io::Result<Self> {
        let about = rustix::fs::statvfs(path)?;
        Ok(Self {
            free: about.f_bavail.saturating_mul(about.f_frsize),
            total: about.f_blocks.saturating_mul(about.f_frsize),
        })
    }

    /// The room to keep free.
    pub fn reserve(&self) -> u64 {
        RESERVE.min(self.total / RESERVE_OF_DISK)
    }

    pub fn is_short(&self) -> bool {
        self.free < self.reserve()
    }
}

/// Writes a small file that has to be there, on a full disk in the place of a part of the room that
/// is kept for it.
///
/// # Errors
///
/// Those of `write`.
pub fn write_at_any_rate(state: &Path, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && give_up_part(&state.join(SPARE)) => {}
            written => return written,
        }
    }
}

/// Makes a file shorter. Returns whether there was anything left to give.
fn give_up_part(spare: &Path) -> bool {
    let shorten = || {
        let file = fs::OpenOptions::new().write(true).open(spare)?;
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(PART_OF_SPARE))?;
        Ok::<_, io::Error>(length > 0)
    };
    shorten().unwrap_or(false)
}

/// The use of the disk by an agent's session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Said {
    /// Of which flow.
    folder: String,
    used: u64,
    /// Of that, lately.
    grown: u64,
    /// The reason for the session's end.
    #[serde(default)]
    ended: Option<Failure>,
}

fn read(session: &Path) -> Option<Said> {
    serde_json::from_slice(fs::read(session.join(SAID)).ok()?.trim_ascii_end()).ok()
}

fn write(file: &fs::File, said: &Said) {
    let mut text = serde_json::to_vec(said).unwrap_or_default();
    text.resize(SAID_BYTES.max(text.len()), b' ');
    if let Err(error) = file.write_all_at(&text, 0) {
        tracing::warn!(%error, "what the session takes of the disk cannot be said");
    }
}

/// The failure that ended a session's agent, if it was for the disk.
pub fn recorded_end(session: &Path) -> Option<Failure> {
    read(session)?.ended
}

/// The failure of a start below `state`, if its disk is as good as full, with the use of the disk.
pub fn refusal(state: &Path) -> Option<Failure> {
    let room = Room::of(state).ok().filter(Room::is_short)?;
    let (full, what_to_do) = whose(state, room);
    let kept = bytes(room.reserve());
    let message = format!("{full} {kept} is kept for what runs already. {what_to_do}, and start again.");
    Some(Failure::new(Code::SessionDiskFull, message))
}

/// The failure of the service, if the disk of `state` has no room at all, with the use of the disk.
pub fn failure_of_full(state: &Path) -> Option<Failure> {
    let room = Room::of(state).ok().filter(|room| room.free < NO_ROOM)?;
    Some(full(state, room))
}

/// The failure of a run whose folder cannot be written.
pub(crate) fn io_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::StorageFull {
        let message = format!("There is no room for the run's folder ({error}). Make room, and run again.");
        return Failure::new(Code::RunDiskFull, message);
    }
    Failure::new(
        Code::RunFailed,
        format!("The run's folder cannot be written: {error}. Put that right, and run again."),
    )
}

/// A run's failure, with how full the disk is and whose it is, if it is for want of room.
pub(crate) fn name_full_disk(state: &Path, failure: Failure) -> Failure {
    let is_bare = failure.error == Code::RunDiskFull && failure.message.starts_with("There is no room");
    match Room::of(state).ok().filter(Room::is_short) {
        Some(room) if is_bare => {
            let (full, what_to_do) = whose(state, room);
            Failure::new(Code::RunDiskFull, format!("{full} {what_to_do}, and run again."))
        }
        _ => failure,
    }
}

fn full(state: &Path, room: Room) -> Failure {
    let (full, what_to_do) = whose(state, room);
    Failure::new(Code::ServiceDiskFull, format!("{full} {what_to_do}, and try again."))
}

/// The use of a disk, and the advice about it.
fn whose(state: &Path, room: Room) -> (String, &'static str) {
    let mut sessions: Vec<Said> = sessions(state).iter().filter_map(|session| read(session)).collect();
    sessions.sort_by_key(|said| std::cmp::Reverse(said.used));
    let used: u64 = sessions.iter().map(|said| said.used).sum();
    let (of_sessions, what_to_do) = match sessions.first() {
        Some(said) => (
            format!(
                "Sessions have {} of it, most of that {} with {};",
                bytes(used),
                said.folder,
                bytes(said.used)
            ),
            "Stop or reset it, or make room",
        ),
        None => ("No session has any of it;".to_owned(), "Make room"),
    };
    let full = format!(
        "The disk of {} has {} free of {}. {of_sessions} other files have {}.",
        state.display(),
        bytes(room.free),
        bytes(room.total),
        bytes(room.total.saturating_sub(room.free).saturating_sub(used))
    );
    (full, what_to_do)
}

fn sessions(state: &Path) -> Vec<PathBuf> {
    let inside = |folder: PathBuf| {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    inside(state.join("sessions")).flat_map(inside).collect()
}

fn bytes(count: u64) -> String {
    match count >> 30 {
        0 => format!("{} MiB", count >> 20),
        1..10 => format!("{:.1} GiB", count as f64 / f64::from(1 << 30)),
        whole => format!("{whole} GiB"),
    }
}

/// The verdict of the watch, and the failure of the session's runs.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The session has more than it may.
    TooMuch(Failure),
    /// The disk is as good as full, and this session is why.
    Full(Failure),
}

impl Verdict {
    pub(crate) fn failure(&self) -> &Failure {
        let (Self::TooMuch(failure) | Self::Full(failure)) = self;
        failure
    }
}

/// One session and the disk that it lies on.
pub(crate) struct Watch {
    state: PathBuf,
    session: PathBuf,
    file: fs::File,
    said: Said,
    /// The time of the session's measurement, and the free room of the disk then.
    measured: Option<(Instant, u64)>,
    took: Duration,
    /// Its use, and when it was measured.
    history: Vec<(Instant, u64)>,
    /// Since when there is too little room.
    short: Option<Instant>,
}

impl Watch {
    /// # Errors
    ///
    /// Those of the file system.
    pub(crate) fn begin(state: &Path, session: &Path, folder: &str) -> io::Result<Self> {
        let file = fs::File::create(session.join(SAID))?;
        let said = Said {
            // The rest has room beside it.
            folder: folder.chars().take(500).collect(),
            ..Said::default()
        };
        write(&file, &said);
        Ok(Self {
            state: state.to_owned(),
            session: session.to_owned(),
            file,
            said,
            measured: None,
            took: Duration::ZERO,
            history: vec![(Instant::now(), 0)],
            short: None,
        })
    }

    /// The time to wait before the next look.
    pub(crate) fn pause(&self, has_runs: bool) -> Duration {
        if has_runs { BUSY } else { IDLE }
    }

    /// Looks at the disk, and at the session if there is reason to.
    ///
    /// * `runner`: process 1 of its sandbox, if it has one.
    pub(crate) fn look(&mut self, runner: Option<i32>, has_runs: bool) -> Option<Verdict> {
        let room = Room::of(&self.session).ok()?;
        let short = room.is_short();
        self.short = self.short.filter(|_| short).or(short.then(Instant::now));
        let bound = MOST.min(room.total / MOST_OF_DISK);
        let is_due = match self.measured {
            None => short || has_runs,
            Some((at, _)) if at.elapsed() < self.took * REST => false,
            Some((at, free)) => {
                short || free.saturating_sub(room.free) > bound / 16 || has_runs && at.elapsed() > MEASURED_FOR
            }
        };
        if !is_due {
            return None;
        }
        let begun = Instant::now();
        let (used, is_all) = measure(&self.session, runner);
        self.took = begun.elapsed();
        self.measured = Some((begun, room.free));
        self.said.used = used;
        self.said.grown = if is_all { self.grown(used) } else { u64::MAX };
        write(&self.file, &self.said);
        // Others have said how much they have grown by the second look.
        let is_seen = self.short.is_some_and(|since| since.elapsed() >= BUSY);
        let is_why = short && is_seen && self.said.grown >= room.reserve() / 4 && !self.is_another_larger();
        if !is_why {
            let too_much = || {
                Verdict::TooMuch(Failure::new(
                    Code::RunDiskFull,
                    format!(
                        "The session's files have {}, and those of one session may have {} together. Have the flow write less, or reset the session, and \
                     run again",
                        bytes(used),
                        bytes(bound)
                    ),
                ))
            };
            return (used > bound).then(too_much);
        }
        Some(Verdict::Full(Failure::new(
            Code::RunDiskFull,
            format!(
                "The disk of {} has {} free of {}, and this session has written the most of late: it has {} there now. Have the flow write less, or \
                 make room, and run again",
                self.state.display(),
                bytes(room.free),
                bytes(room.total),
                bytes(used)
            ),
        )))
    }

    /// Writes down why the session ends. It did not give way by the end of its runs.
    pub(crate) fn end(&mut self, why: &Failure) -> Failure {
        let (what, _) = why.message.split_once(". ").unwrap_or((&why.message, ""));
        let message =
            format!("{what}. The session was ended, and its files are removed. Make room, and start it again.");
        let failure = Failure::new(Code::SessionDiskFull, message);
        self.said.ended = Some(failure.clone());
        write(&self.file, &self.said);
        failure
    }

    /// By how much it has grown lately.
    fn grown(&mut self, used: u64) -> u64 {
        let now = Instant::now();
        // What it had at the beginning of the time that counts stays known.
        while self
            .history
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) > LATELY)
        {
            self.history.remove(0);
        }
        let least = self.history.iter().map(|(_, used)| *used).min().unwrap_or(0);
        if self
            .history
            .last()
            .is_none_or(|(at, _)| now.duration_since(*at) > LATELY / 60)
        {
            self.history.push((now, used));
        }
        used.saturating_sub(least)
    }

    fn is_another_larger(&self) -> bool {
        let is_fresh = |session: &PathBuf| {
            let written = fs::metadata(session.join(SAID)).and_then(|about| about.modified());
            written.is_ok_and(|at| SystemTime::now().duration_since(at).unwrap_or_default() < FRESH)
        };
        let others = sessions(&self.state).into_iter().filter(|other| *other != self.session);
        let mut others = others.filter(is_fresh).filter_map(|other| Some((read(&other)?, other)));
        others
            .any(|(said, other)| said.ended.is_none() && (said.grown, other) > (self.said.grown, self.session.clone()))
    }
}

/// The bytes of the disk that a session has, and whether all of it was counted.
fn measure(session: &Path, runner: Option<i32>) -> (u64, bool) {
    let mut all = 0_u64;
    let walked = Folder::open(session).and_then(|folder| {
        folder.walk(&COUNTED, |entry| {
            all = all.saturating_add((entry.stat.st_blocks as u64).saturating_mul(512));
            Ok(())
        })
    });
    let removed = runner.map_or(0, |runner| held_open(session, runner));
    // What goes away while it is looked at is no reason to think the worst.
    let is_all = !walked.is_err_and(|error| error.kind() == io::ErrorKind::QuotaExceeded);
    (all.saturating_add(removed), is_all)
}

/// The bytes of the files that a sandbox has removed and still holds open.
fn held_open(session: &Path, runner: i32) -> u64 {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let (Ok(session), Some(inside)) = (fs::metadata(session), namespace(&runner.to_string())) else {
        return 0;
    };
    if namespace("self").as_ref() == Some(&inside) {
        // It has none of its own, and it cannot be known what is the session's.
        return 0;
    }
    let mut files = BTreeMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter_map(|entry| entry.file_name().into_string().ok()) {
        if !process.starts_with(|first: char| first.is_ascii_digit()) || namespace(&process).as_ref() != Some(&inside) {
            continue;
        }
        for open in fs::read_dir(format!("/proc/{process}/fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            // Of what it stands for, not of the link.
            if let Ok(about) = fs::metadata(open.path())
                && about.nlink() == 0
                && about.dev() == session.dev()
            {
                files.insert(about.ino(), about.blocks() * 512);
            }
        }
    }
    files.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_measured_in_any_shape_and_says_more_than_can_be_counted() {
        let folder = tempfile::tempdir().unwrap();
        let session = folder.path().join("sessions/f/1");
        fs::create_dir_all(session.join("tmp")).unwrap();
        fs::write(session.join("tmp/file"), vec![1; 3 << 20]).unwrap();
        let (used, is_all) = measure(&session, None);
        assert!((3 << 20..4 << 20).contains(&used) && is_all, "{used}");
        let mut deep = session.join("tmp");
        for _ in 0..COUNTED.depth + 2 {
            deep.push("d");
            fs::create_dir(&deep).unwrap();
        }
        assert!(!measure(&session, None).1);
    }

    #[test]
    fn what_an_agent_says_of_the_disk_keeps_its_size_and_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let session = folder.path().join("sessions/f/1");
        fs::create_dir_all(&session).unwrap();
        let mut watch = Watch::begin(folder.path(), &session, "/flows/mine").unwrap();
        let size = || fs::metadata(session.join(SAID)).unwrap().len();
        assert_eq!((size(), recorded_end(&session)), (SAID_BYTES as u64, None));
        let failure = watch.end(&Failure::new(Code::RunDiskFull, "It is full. Make room"));
        assert_eq!(failure.error, Code::SessionDiskFull);
        assert!(
            failure.message.starts_with("It is full. The session was ended"),
            "{failure}"
        );
        assert_eq!((size(), recorded_end(&session)), (SAID_BYTES as u64, Some(failure)));
        // What it began with counts, also at a later look.
        assert_eq!((watch.grown(100), watch.grown(70), watch.grown(270)), (100, 70, 270));
        watch.history = vec![(Instant::now(), 200)];
        assert_eq!((watch.grown(270), watch.grown(100)), (70, 0));
    }

    #[test]
    fn a_reserve_is_a_part_of_a_small_disk_and_a_bounded_size_of_a_large_one() {
        let room = |free, total| Room { free, total };
        assert_eq!(room(0, 200 << 20).reserve(), 10 << 20);
        assert_eq!(room(0, 1 << 40).reserve(), 1 << 30);
        assert!(room((1 << 30) - 1, 1 << 40).is_short() && !room(1 << 30, 1 << 40).is_short());
    }

    #[test]
    fn a_full_disk_is_named_with_whose_it_is_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let room = Room {
            free: 0,
            total: 160 << 20,
        };
        let said = || {
            full(state, room)
                .to_string()
                .replace(&state.display().to_string(), "STATE")
        };
        expect_test::expect![
            "Service.DiskFull: The disk of STATE has 0 MiB free of 160 MiB. No session has any of it; other files have 160 MiB. Make room, and try again."
        ]
        .assert_eq(&said());
        let session = state.join("sessions/f/1");
        fs::create_dir_all(&session).unwrap();
        let mut watch = Watch::begin(state, &session, "/flows/mine").unwrap();
        watch.said.used = 100 << 20;
        write(&watch.file, &watch.said);
        expect_test::expect![
            "Service.DiskFull: The disk of STATE has 0 MiB free of 160 MiB. Sessions have 100 MiB of it, most of that /flows/mine with 100 MiB; other files have 60 MiB. Stop or reset it, or make room, and try again."
        ]
        .assert_eq(&said());
    }
}
