//! The output of one operation or run, on its way to who reads it: redacted, numbered, in batches,
//! and whole in a file.

use contract::agent::{AgentReport, Chunk, LineKind, OutputLine};
use std::{
    cell::RefCell,
    collections::VecDeque,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::mpsc::UnboundedSender;

/// The most lines of one operation or run that are reported; the file has all.
const MOST_LINES: u64 = 5_000;
/// The most characters of a line that are reported.
const LONGEST: usize = 2_000;
/// The number of lines, or of their bytes, that is sent at once.
const ENOUGH: (usize, usize) = (1_000, 48 << 10);
/// The number of last lines that are kept at hand.
const TAIL: usize = 20;
/// The time that a line waits for others.
const LINE_DELAY: Duration = Duration::from_millis(100);

/// The receiver of the lines.
pub(crate) struct Output {
    of: String,
    /// The file with all of it.
    pub(crate) path: PathBuf,
    inner: RefCell<Inner>,
    reports: UnboundedSender<AgentReport>,
}

struct Inner {
    file: fs::File,
    next: u64,
    /// The number of them that are lines, and not pieces of an output.
    lines: u64,
    /// Pieces of an output that come to be one line.
    chunk: Option<Chunk>,
    /// The kinds whose line is begun and goes on.
    begun: Vec<LineKind>,
    pending: Vec<OutputLine>,
    bytes: usize,
    tail: VecDeque<String>,
}

impl Output {
    /// Begins the output of `of`, in a new file at `path`.
    ///
    /// # Errors
    ///
    /// An error of the file system.
    pub(crate) fn begin(of: &str, path: PathBuf, reports: UnboundedSender<AgentReport>) -> io::Result<Rc<Self>> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let inner = RefCell::new(Inner {
            file: fs::File::create(&path)?,
            next: 0,
            lines: 0,
            chunk: None,
            begun: Vec::new(),
            pending: Vec::new(),
            bytes: 0,
            tail: VecDeque::new(),
        });
        Ok(Rc::new(Self {
            of: of.to_owned(),
            path,
            inner,
            reports,
        }))
    }

    /// Takes lines; the last of them goes on in the next ones if `goes_on`.
    pub(crate) fn say_lines(self: &Rc<Self>, kind: LineKind, lines: &[String], goes_on: bool) {
        for (index, line) in lines.iter().enumerate() {
            self.say_part(kind, line, goes_on && index + 1 == lines.len());
        }
    }

    /// Takes a line.
    pub(crate) fn say(self: &Rc<Self>, kind: LineKind, text: &str) {
        self.say_part(kind, text, false);
    }

    /// Takes a line, or a part of one. The file gets all of it; of a line in parts, the first is
    /// reported.
    fn say_part(self: &Rc<Self>, kind: LineKind, text: &str, goes_on: bool) {
        let text = flow::redact(text);
        let mut inner = self.inner.borrow_mut();
        // A disk that is full must not end the run that fills it: its lines are still reported.
        let _ = write!(inner.file, "{text}{}", if goes_on { "" } else { "\n" });
        let is_rest = inner.begun.contains(&kind);
        inner.begun.retain(|begun| *begun != kind);
        if goes_on {
            inner.begun.push(kind);
        }
        if is_rest {
            return;
        }
        if inner.tail.len() == TAIL {
            inner.tail.pop_front();
        }
        inner.tail.push_back(cut_line(&text, &self.path));
        if inner.lines > MOST_LINES {
            return;
        }
        let text = match inner.lines {
            MOST_LINES => format!("there is more; all of it is in {}", self.path.display()),
            _ => cut_line(&text, &self.path),
        };
        let waits = inner.waits();
        inner.settle();
        inner.lines += 1;
        inner.push(kind, text);
        drop(inner);
        self.send_soon(waits);
    }

    /// Takes a piece of a run's output, whose number is bounded where it comes from. The file has
    /// none of it: the run's outputs have all.
    pub(crate) fn say_chunk(self: &Rc<Self>, chunk: Chunk) {
        let mut inner = self.inner.borrow_mut();
        let waits = inner.waits();
        match (&mut inner.chunk, chunk) {
            (Some(Chunk::GoesOn { name, texts }), Chunk::GoesOn { name: of, texts: more }) if *name == of => {
                texts.extend(more);
            }
            (_, chunk) => {
                inner.settle();
                inner.chunk = Some(chunk);
            }
        }
        if let Some(Chunk::GoesOn { texts, .. }) = &inner.chunk {
            // Together they are bounded as one piece is, which is long enough.
            if texts.iter().map(|text| text.len() + 8).sum::<usize>() >= LONGEST {
                inner.settle();
            }
        }
        drop(inner);
        self.send_soon(waits);
    }

    /// Sends what waits if it is enough, or else a little later; that was arranged already if some
    /// `waited` before.
    fn send_soon(self: &Rc<Self>, waited: bool) {
        let (count, bytes) = {
            let inner = self.inner.borrow();
            (inner.pending.len(), inner.bytes)
        };
        if count >= ENOUGH.0 || bytes >= ENOUGH.1 {
            self.flush();
        } else if !waited {
            let output = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(LINE_DELAY).await;
                output.flush();
            });
        }
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.inner.borrow().tail.iter().cloned().collect()
    }

    /// The number of lines that were or will be reported, if no more come.
    pub(crate) fn count(&self) -> u64 {
        let inner = self.inner.borrow();
        inner.next + u64::from(inner.chunk.is_some())
    }

    /// Sends what waits.
    pub(crate) fn flush(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.settle();
        inner.bytes = 0;
        let lines = std::mem::take(&mut inner.pending);
        if !lines.is_empty() {
            // Nobody takes reports any more only when the agent ends.
            let _ = self.reports.send(AgentReport::Output {
                of: self.of.clone(),
                lines,
            });
        }
    }
}

impl Inner {
    /// Whether something waits to be sent.
    fn waits(&self) -> bool {
        !self.pending.is_empty() || self.chunk.is_some()
    }

    /// Makes a line of the pieces that came so far.
    fn settle(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.push(LineKind::Chunk, serde_json::to_string(&chunk).unwrap_or_default());
        }
    }

    fn push(&mut self, kind: LineKind, text: String) {
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let seq = self.next;
        self.next += 1;
        self.bytes += text.len();
        self.pending.push(OutputLine { seq, at, kind, text });
    }
}

/// A line as it is reported: a long one ends with where the whole of it is.
fn cut_line(text: &str, file: &Path) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}… (cut here; the whole line is in {})", &text[..at], file.display()),
        None => text.to_owned(),
    }
}
