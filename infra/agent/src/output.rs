//! The output of one operation or run, on its way to who reads it: redacted, numbered, in batches, and whole in a file.

use contract::agent::{AgentReport, LineKind, OutputLine};
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
/// How many lines, or bytes of them, are enough to send at once.
const ENOUGH: (usize, usize) = (1_000, 48 << 10);
/// How many of the last lines are kept at hand.
const TAIL: usize = 20;
/// How long a line waits for others.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where the lines go.
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
    /// What is the beginning of a line that goes on, by its kind.
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
    /// What the file system says.
    pub(crate) fn begin(of: &str, path: PathBuf, reports: UnboundedSender<AgentReport>) -> io::Result<Rc<Self>> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let inner = RefCell::new(Inner {
            file: fs::File::create(&path)?,
            next: 0,
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

    /// Takes a line, or a part of one. The file gets all of it; of a line in parts, the first is reported.
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
        inner.tail.push_back(cut(&text, &self.path));
        if inner.next > MOST_LINES {
            return;
        }
        let text = match inner.next {
            MOST_LINES => format!("there is more; all of it is in {}", self.path.display()),
            _ => cut(&text, &self.path),
        };
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let seq = inner.next;
        inner.next += 1;
        inner.bytes += text.len();
        inner.pending.push(OutputLine { seq, at, kind, text });
        let (count, bytes) = (inner.pending.len(), inner.bytes);
        drop(inner);
        if count >= ENOUGH.0 || bytes >= ENOUGH.1 {
            self.flush();
        } else if count == 1 {
            let output = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(PATIENCE).await;
                output.flush();
            });
        }
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.inner.borrow().tail.iter().cloned().collect()
    }

    /// How many lines were or will be reported.
    pub(crate) fn count(&self) -> u64 {
        self.inner.borrow().next
    }

    /// Sends what waits.
    pub(crate) fn flush(&self) {
        let mut inner = self.inner.borrow_mut();
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

/// A line as it is reported: a long one ends with where the whole of it is.
fn cut(text: &str, file: &Path) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}… (cut here; the whole line is in {})", &text[..at], file.display()),
        None => text.to_owned(),
    }
}
