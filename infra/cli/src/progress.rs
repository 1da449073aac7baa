//! Progress, on standard error: on a terminal one line that moves, elsewhere a line for each thing
//! that is new.

use crate::{
    terminal::{self, Text, fit, note},
    text::{self, took},
};
use contract::Millis;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::{
    cell::Cell,
    fmt::Write,
    io::IsTerminal,
    time::{Duration, Instant},
};

/// The progress of one act.
pub(crate) struct Progress {
    moving: Option<ProgressBar>,
    doing: String,
    detail: String,
    since: Instant,
    /// Whether a piece was shown whose line goes on.
    open: Cell<bool>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            moving: terminal.then(moving_line),
            doing: String::new(),
            detail: String::new(),
            since: Instant::now(),
            open: Cell::new(false),
        }
    }

    /// Whether anything was said to go on.
    pub(crate) fn has_begun(&self) -> bool {
        !self.doing.is_empty()
    }

    /// Something else goes on now, since what went on has ended, well or not.
    ///
    /// * `after`: how long ago it began.
    pub(crate) fn doing(&mut self, what: &str, well: bool, after: Duration) {
        if self.doing == what {
            return;
        }
        if well {
            self.finish("✓", "32")
        } else {
            self.finish("✗", "31")
        }
        self.doing = what.into();
        self.detail.clear();
        self.since = Instant::now().checked_sub(after).unwrap_or_else(Instant::now);
        match &self.moving {
            Some(line) => {
                line.reset_elapsed();
                line.set_message("");
                line.set_prefix(fit(&self.doing).into_owned());
                line.enable_steady_tick(Duration::from_millis(80));
            }
            None => note!("{}", self.doing),
        }
    }

    /// Shows the step of the act.
    pub(crate) fn detail(&mut self, detail: &str) {
        if self.detail == detail {
            return;
        }
        self.detail = detail.into();
        match &self.moving {
            Some(line) => line.set_message(fit(&self.detail).into_owned()),
            None => note!("  {:>8}  {}", took(self.elapsed()), self.detail),
        }
    }

    /// A line that stays.
    pub(crate) fn line(&self, line: &Text) {
        self.close();
        match &self.moving {
            Some(moving) => moving.suspend(|| terminal::print(line)),
            None => terminal::print(line),
        }
    }

    /// A piece of a text that goes on, in the place of what moves.
    pub(crate) fn piece(&mut self, text: &str) {
        self.clear();
        terminal::print_piece(text);
        self.open
            .set(!text.ends_with('\n') && (self.open.get() || !text.is_empty()));
    }

    /// Ends the line of a piece.
    fn close(&self) {
        if self.open.replace(false) {
            terminal::print_piece("\n");
        }
    }

    /// A line that a session said, on standard output.
    pub(crate) fn out(&self, line: &str) {
        match &self.moving {
            Some(moving) => moving.suspend(|| text::out_as_said(line)),
            None => text::out_as_said(line),
        }
    }

    /// Ends the act: its line stays, with how long it took.
    pub(crate) fn finish(&mut self, mark: &str, colour: &'static str) {
        self.close();
        if !self.doing.is_empty() {
            match &self.moving {
                Some(_) => self.line(&Text::painted(mark, colour).and(&format!(
                    " {:<13} {}",
                    self.doing,
                    took(self.elapsed())
                ))),
                None => note!("{} took {}", self.doing, took(self.elapsed())),
            }
            self.doing.clear();
        }
    }

    /// Nothing goes on any more.
    pub(crate) fn end(&mut self) {
        self.finish("✓", "32");
        self.clear();
    }

    /// Nothing goes on any more, and what went on did not succeed.
    pub(crate) fn fail(&mut self) {
        self.finish("✗", "31");
        self.clear();
    }

    fn clear(&mut self) {
        if let Some(line) = self.moving.take() {
            line.finish_and_clear();
        }
    }

    fn elapsed(&self) -> Millis {
        self.since.elapsed().as_millis() as Millis
    }
}

fn moving_line() -> ProgressBar {
    let elapsed = |state: &ProgressState, line: &mut dyn Write| {
        let _ = write!(line, "{}", took(state.elapsed().as_millis() as Millis / 100 * 100));
    };
    let style = ProgressStyle::with_template("{spinner:.cyan} {prefix:13} {took:9} {wide_msg:.dim}")
        .expect("the template is right");
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(12));
    line.set_style(style.with_key("took", elapsed).tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    line
}
