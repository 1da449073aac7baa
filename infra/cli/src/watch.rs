//! Waiting for the end of an operation or a run, and showing what goes on meanwhile.
//!
//! One read waits for the end. What is shown comes from other reads beside it, which begin only
//! when the end is not there soon: what takes some milliseconds costs one request, and what takes
//! minutes is seen.

use crate::{
    client::Client,
    pieces::Heard,
    progress::Progress,
    request::LONGEST_WAIT,
    terminal::{self, Text},
    trouble::{FAILED, Trouble},
};
use contract::{
    Code, Phase,
    agent::{Chunk, LineKind, OutputLine},
    http::{Output, SessionView},
    route::{Route, Target},
    row::{OperationRow, OperationStatus, RunRow},
};
use serde::de::DeserializeOwned;
use std::{
    sync::{
        Arc, Mutex,
        mpsc::{RecvTimeoutError, Sender, TryRecvError, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// An operation that ends sooner is not watched.
const SOON: Duration = Duration::from_millis(150);
/// The time that a look at the output waits for the next line before it looks at the session again.
const LOOK: Duration = Duration::from_millis(300);
/// Between two reads that a service did not wait with.
const PAUSE: Duration = Duration::from_millis(10);
/// The same at most, of one that answers at once.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest time that lines may come after the end of what said them.
const STRAGGLERS: Duration = Duration::from_secs(10);
/// A page with fewer lines or entries is the last: the service gives hundreds, or a megabyte.
pub(crate) const SHORTEST_PAGE: usize = 50;
/// The longest time that a command may be in the queue before somebody takes it up.
const ADMISSION: Duration = Duration::from_secs(60);

/// Something that ends: an operation or a run.
pub(crate) trait Ends: DeserializeOwned {
    fn route(id: &str) -> Route<'_>;
    fn has_ended(&self) -> bool;
}

impl Ends for OperationRow {
    fn route(id: &str) -> Route<'_> {
        Route::Operation(id)
    }

    fn has_ended(&self) -> bool {
        self.status != OperationStatus::InProgress
    }
}

impl Ends for RunRow {
    fn route(id: &str) -> Route<'_> {
        Route::Run(id)
    }

    fn has_ended(&self) -> bool {
        self.status.is_final()
    }
}

/// Waits for the end of an operation on the session with this key.
///
/// # Errors
///
/// When the service is not there, or never takes the command up. That the operation failed is no
/// error here.
pub(crate) fn operation(client: &Arc<Client>, key: &str, id: &str) -> Result<OperationRow, Box<Trouble>> {
    let watch = Watch::begin(client, key, None, Lines::Log);
    let mut row: OperationRow = until_end(client, id)?;
    while let (OperationStatus::Joined, Some(other)) = (row.status, &row.joined) {
        row = until_end(client, other)?;
    }
    watch.end(row.status == OperationStatus::Succeeded);
    Ok(row)
}

/// Waits for the end of a run in the session with this key, and shows its log.
///
/// # Errors
///
/// Likewise.
///
/// * `digest`: of the command that wants it. Another run of that name is none of its sender's.
pub(crate) fn run(
    client: &Arc<Client>,
    key: &str,
    id: &str,
    digest: &str,
    lines: Lines,
) -> Result<RunRow, Box<Trouble>> {
    let watch = Watch::begin(client, key, Some(id), lines);
    let row: RunRow = until_end_at(client, id, &Route::Run(id).with("wish", digest))?;
    if row.started.is_some() {
        let said = row.result.as_ref().and_then(|result| result.said);
        // Of a log, what has come by now will do.
        watch.rest_of_log(id, said.filter(|_| lines != Lines::Log).unwrap_or(0))?;
    }
    watch.end(row.failure.is_none());
    Ok(row)
}

/// Whether the run of this command is there already.
///
/// # Errors
///
/// `Run.NameTaken`, final, if another run has its name.
pub(crate) fn run_of(client: &Client, id: &str, digest: &str) -> Result<bool, Box<Trouble>> {
    let found = client.find::<RunRow>(Route::Run(id).with("wish", digest).with("wait", 0))?;
    Ok(found.is_some())
}

fn not_taken_up(id: &str) -> Box<Trouble> {
    let message = format!(
        "The command {id} is in the queue, and nothing took it up within {} s",
        ADMISSION.as_secs()
    );
    Trouble::new(FAILED, Code::ServiceNotTakenUp, message).next("see the service's log; the command is not lost")
}

/// Waits for the end of the operation or the run of this id.
///
/// # Errors
///
/// When the service is not there, or never takes the command up.
pub(crate) fn until_end<T: Ends>(client: &Client, id: &str) -> Result<T, Box<Trouble>> {
    until_end_at(client, id, &T::route(id).into())
}

fn until_end_at<T: Ends>(client: &Client, id: &str, target: &Target) -> Result<T, Box<Trouble>> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match client.find::<T>(target.clone().with("wait", LONGEST_WAIT.as_millis()))? {
            Some(row) if row.has_ended() => return Ok(row),
            // It is accepted a moment after it was sent, and neither is a service bound to wait as
            // long as it was asked to.
            None if begun.elapsed() > ADMISSION => return Err(not_taken_up(id)),
            _ => {
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Reads lines of output after `after`, waiting for one.
pub(crate) fn output(
    client: &Client,
    of: &str,
    after: Option<u64>,
    wait: Duration,
) -> Result<Option<Output>, Box<Trouble>> {
    let target = Target::from(Route::Output(of)).with_any("after", after);
    client.find(target.with("wait", wait.as_millis()))
}

/// The receiver of a run's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    /// They are a log: faint, on standard error.
    Log,
    /// As they were said: on standard output or standard error.
    AsSaid,
    /// As they were said, on standard error.
    Aside,
    /// They are a log; and pieces of the output are shown on standard error.
    Pieces,
}

/// Waits for the end of a run, and takes the lines of its output meanwhile, each once and in their
/// order.
///
/// # Errors
///
/// When the service is not there, or never takes the command up.
pub(crate) fn listen(
    client: &Arc<Client>,
    id: &str,
    mut take: impl FnMut(&OutputLine),
) -> Result<RunRow, Box<Trouble>> {
    let (teller, ended) = channel();
    let (asked, name) = (Arc::clone(client), id.to_owned());
    thread::spawn(move || drop(teller.send(until_end::<RunRow>(&asked, &name))));
    let (mut after, mut row): (Option<u64>, Option<RunRow>) = (None, None);
    let mut until = Instant::now();
    loop {
        if row.is_none() {
            row = match ended.try_recv() {
                Ok(ended) => Some(ended?),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return Err(not_taken_up(id)),
            };
            until = Instant::now() + STRAGGLERS;
        }
        let wait = if row.is_some() { Duration::ZERO } else { LOOK };
        // What cannot be read now is read later; the read that waits for the end says what is
        // wrong.
        let found = output(client, id, after, wait).ok().flatten();
        let before = after;
        for line in in_order(found.as_ref().map_or(&[], |found| &found.lines), after) {
            take(line);
            after = Some(line.seq);
        }
        if let Some(row) = &row {
            let said = row.result.as_ref().and_then(|result| result.said).unwrap_or(0);
            if after.map_or(0, |seq| seq + 1) >= said || Instant::now() > until {
                return Ok(row.clone());
            }
        }
        if after == before {
            thread::sleep(if found.is_some() { PAUSE } else { LONGEST_PAUSE });
        }
    }
}

/// The lines after one, up to the first that has not come yet.
fn in_order(lines: &[OutputLine], after: Option<u64>) -> impl Iterator<Item = &OutputLine> {
    let first = after.map_or(0, |seq| seq + 1);
    let expected = move |(at, line): &(usize, &OutputLine)| line.seq == first + *at as u64;
    new_lines(lines, after)
        .enumerate()
        .take_while(expected)
        .map(|(_, line)| line)
}

/// The progress that is shown.
struct Watch {
    client: Arc<Client>,
    shown: Arc<Mutex<Shown>>,
    stop: Sender<()>,
}

struct Shown {
    progress: Progress,
    /// Of which operation or run the output is shown, and up to which line.
    of: String,
    after: Option<u64>,
    ended: bool,
    lines: Lines,
    heard: Heard,
}

impl Watch {
    fn begin(client: &Arc<Client>, key: &str, run: Option<&str>, lines: Lines) -> Self {
        let shown = Arc::new(Mutex::new(Shown {
            progress: Progress::new(),
            of: String::new(),
            after: None,
            ended: false,
            lines,
            heard: Heard::default(),
        }));
        let (stop, stopped) = channel();
        let (client, key, run) = (client.clone(), key.to_owned(), run.map(str::to_owned));
        let watch = Self {
            client: client.clone(),
            shown: shown.clone(),
            stop,
        };
        thread::spawn(move || {
            let begun = Instant::now();
            let mut pause = SOON;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // What cannot be shown now is shown later; the read that waits for the end says
                // what is wrong.
                pause = match look(&client, &shown, &key, run.as_deref(), begun) {
                    Ok(true) => Duration::ZERO,
                    Ok(false) | Err(_) => Duration::from_millis(50),
                };
            }
        });
        watch
    }

    /// Shows the lines of a run's log that were not shown yet, and waits a while for those that
    /// must still come.
    ///
    /// * `said`: how many there are at least.
    fn rest_of_log(&self, run: &str, said: u64) -> Result<(), Box<Trouble>> {
        let mut shown = self.shown.lock().expect("nobody panics with it");
        shown.turn_to(run);
        let until = Instant::now() + STRAGGLERS;
        while let Some(output) = output(&self.client, run, shown.after, Duration::ZERO)? {
            let before = shown.after;
            shown.take(&output.lines, true);
            let is_late = Instant::now() > until;
            let all = shown.after.map_or(0, |seq| seq + 1) >= said || is_late;
            let is_last = output.ended && output.lines.len() < SHORTEST_PAGE;
            if all && (is_last || output.lines.is_empty()) {
                break;
            }
            if shown.after == before {
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn end(&self, well: bool) {
        let mut shown = self.shown.lock().expect("nobody panics with it");
        shown.ended = true;
        let _ = self.stop.send(());
        if well {
            shown.progress.end()
        } else {
            shown.progress.fail()
        }
    }
}

impl Shown {
    fn turn_to(&mut self, of: &str) {
        if self.of != of {
            self.of = of.into();
            self.after = None;
        }
    }

    /// Shows lines: the stages of an operation, and the whole log of a run.
    fn take(&mut self, lines: &[OutputLine], is_run: bool) {
        // What was said is shown in its order, also when reports come in another; a log that is
        // whole later may have gaps meanwhile.
        let in_order = is_run && self.lines != Lines::Log;
        let mut next = self.after.map_or(0, |seq| seq + 1);
        for line in new_lines(lines, self.after) {
            if in_order && line.seq != next {
                break;
            }
            next = line.seq + 1;
            match line.kind {
                LineKind::Stage => self.progress.detail(&line.text),
                LineKind::Stdout if is_run && self.lines == Lines::AsSaid => self.progress.out(&line.text),
                LineKind::Chunk if is_run && self.lines == Lines::Pieces => self.show_piece(line),
                LineKind::Stdout | LineKind::Stderr if is_run && !self.lines.is_log() => {
                    self.progress.line(&terminal::line_of_session(&line.text))
                }
                LineKind::Stdout | LineKind::Stderr if is_run => self.progress.line(&Text::painted(&line.text, "2")),
                LineKind::Stdout | LineKind::Stderr | LineKind::Chunk => {}
            }
        }
        self.after = next.checked_sub(1);
    }

    /// Shows a piece of the output, with the output's name where there are several.
    fn show_piece(&mut self, line: &OutputLine) {
        if let Some(Chunk::GoesOn { name, texts }) = self.heard.take(line) {
            let is_one = self.heard.names.as_ref().is_none_or(|names| names.len() == 1);
            if !is_one && self.heard.turn_to(&name) {
                self.progress.line(&Text::painted(&format!("{name}:"), "2"));
            }
            self.progress.piece(&texts.concat());
        }
    }
}

impl Lines {
    fn is_log(self) -> bool {
        matches!(self, Self::Log | Self::Pieces)
    }
}

/// The lines that were not shown: two that read at once may have read the same.
fn new_lines(lines: &[OutputLine], after: Option<u64>) -> impl Iterator<Item = &OutputLine> {
    lines
        .iter()
        .filter(move |line| after.is_none_or(|after| line.seq > after))
}

/// Shows the session's phase and the output that is new. Gives back whether it waited for output,
/// and so need not be slowed down.
fn look(
    client: &Client,
    shown: &Mutex<Shown>,
    key: &str,
    run: Option<&str>,
    begun: Instant,
) -> Result<bool, Box<Trouble>> {
    let session: Option<SessionView> = client.find(Route::Session(key))?;
    let session = session.as_ref();
    let operation = session.and_then(|session| session.current.as_ref());
    let is_live = session.is_some_and(|session| session.phase.is_live());
    let (of, doing) = match (session, operation, run) {
        (Some(session), Some(operation), _) => (operation.id.as_str(), is_live.then(|| session.phase.word())),
        (Some(session), None, Some(run)) if session.phase == Phase::Ready => (run, Some("running")),
        _ => ("", None),
    };
    let after = {
        let mut shown = shown.lock().expect("nobody panics with it");
        if shown.ended {
            return Ok(false);
        }
        let first = !shown.progress.has_begun();
        let well = session.is_none_or(|session| session.failure.is_none());
        // Between two phases nothing is said.
        if let Some(doing) = doing.or(first.then_some("accepted")) {
            shown
                .progress
                .doing(doing, well, if first { begun.elapsed() } else { Duration::ZERO });
        }
        shown.turn_to(of);
        shown.after
    };
    if of.is_empty() {
        return Ok(false);
    }
    let output = output(client, of, after, LOOK)?;
    let mut shown = shown.lock().expect("nobody panics with it");
    match output {
        // What was read may be shown already by the thread that saw the end.
        Some(output) if !shown.ended && shown.of == of => {
            shown.take(&output.lines, run == Some(of));
            Ok(!output.ended)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_line_that_was_read_twice_is_shown_once() {
        let lines: Vec<_> = (0..4)
            .map(|seq| OutputLine {
                seq,
                at: 0,
                kind: LineKind::Stdout,
                text: String::new(),
            })
            .collect();
        let seen = |after| new_lines(&lines, after).map(|line| line.seq).collect::<Vec<_>>();
        assert_eq!(
            (seen(None), seen(Some(1)), seen(Some(3))),
            (vec![0, 1, 2, 3], vec![2, 3], vec![])
        );
    }

    #[test]
    fn a_command_that_nothing_takes_up_is_said_not_to_be_lost() {
        expect![[r#"
            error: The command install-1 is in the queue, and nothing took it up within 60 s [Service.NotTakenUp]
              next: see the service's log; the command is not lost"#]]
        .assert_eq(&not_taken_up("install-1").to_string());
    }
}
