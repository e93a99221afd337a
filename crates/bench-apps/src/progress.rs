//! Progress display: a bar on a terminal, a line every few seconds elsewhere.
//!
//! Both go to standard error; results go to standard output. Not here: what is being done.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    Bar,
    /// A line every few seconds.
    Lines,
    /// Lines for a program, on standard output; see [`Report`].
    Reports,
    Silent,
}

impl Display {
    /// A bar where standard error is a terminal that can move its cursor, lines elsewhere.
    pub fn detect() -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if std::io::stderr().is_terminal() && !is_dumb { Self::Bar } else { Self::Lines }
    }
}

/// One long piece of work.
#[derive(Debug)]
pub struct Progress {
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { lines: PlainLines, start: Instant },
    Reports { report: Report, last: Option<Instant> },
    Silent,
}

impl Progress {
    /// Begins `label`, of which `done` of `total` units are done already.
    pub fn new(display: Display, label: &str, done: u64, total: u64) -> Self {
        let shown = match display {
            Display::Bar => Shown::Bar(bar(label, done, total)),
            Display::Lines => {
                Shown::Lines { lines: PlainLines::new(label, done, total), start: Instant::now() }
            }
            Display::Reports => {
                let report = Report { label: label.into(), done, total, message: String::new() };
                Shown::Reports { report, last: None }
            }
            Display::Silent => Shown::Silent,
        };
        Self { shown }
    }

    /// `done` units are done; `message` says how it goes, as in "loss 0.12, accuracy 95.1 %".
    pub fn update(&mut self, done: u64, message: &str) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_message(message.to_owned());
                bar.set_position(done);
            }
            Shown::Lines { lines, start } => {
                if let Some(line) = lines.update(start.elapsed(), done, message) {
                    crate::stdout::errln!("{line}");
                }
            }
            Shown::Reports { report, last } => {
                if last.is_none_or(|last| last.elapsed() >= Report::EVERY) {
                    *last = Some(Instant::now());
                    (report.done, report.message) = (done, message.to_owned());
                    // the listener may be gone, which is no reason to end before the work is saved
                    let _ = writeln!(std::io::stdout(), "{report}");
                }
            }
            Shown::Silent => {}
        }
    }

    /// A line of its own, above the bar.
    pub fn note(&self, line: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| crate::stdout::errln!("{line}")),
            Shown::Lines { .. } | Shown::Reports { .. } => crate::stdout::errln!("{line}"),
            Shown::Silent => {}
        }
    }

    /// Ends the work: the bar disappears.
    pub fn finish(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }
}

/// A display for each of several pieces of work, one after another.
#[derive(Debug)]
pub struct Stages {
    display: Display,
    shown: Option<(String, Progress)>,
}

impl Stages {
    pub fn new(display: Display) -> Self {
        Self { display, shown: None }
    }

    /// `done` of `total` units of `label` are done; another label than before begins another piece.
    pub fn show(&mut self, label: &str, done: u64, total: u64, message: &str) {
        if self.shown.as_ref().is_none_or(|(shown, _)| shown != label) {
            let next = (label.to_owned(), Progress::new(self.display, label, done, total));
            if let Some((_, finished)) = self.shown.replace(next) {
                finished.finish();
            }
        }
        if let Some((_, bar)) = &mut self.shown {
            bar.update(done, message);
        }
    }

    pub fn finish(self) {
        if let Some((_, bar)) = self.shown {
            bar.finish();
        }
    }
}

/// Progress as one process tells it to another: fields between tabs, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub label: String,
    pub done: u64,
    pub total: u64,
    pub message: String,
}

impl Report {
    /// Time between lines, at least.
    pub const EVERY: Duration = Duration::from_millis(500);

    /// The report in a line; `None` for any other line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.strip_prefix("progress\t")?.splitn(4, '\t');
        Some(Self {
            label: fields.next()?.to_owned(),
            done: fields.next()?.parse().ok()?,
            total: fields.next()?.parse().ok()?,
            message: fields.next()?.to_owned(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "progress\t{}\t{}\t{}\t{}", self.label, self.done, self.total, self.message)
    }
}

fn bar(label: &str, done: u64, total: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix} {bar:28.cyan/blue} {pos}/{len} {msg} {eta} left")
            .expect("a valid template")
            .progress_chars("━━╌");
    let bar =
        ProgressBar::new(total).with_style(style).with_prefix(label.to_owned()).with_position(done);
    bar.reset_eta();
    bar
}

/// The lines, as a function of the time since the start.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainLines {
    label: String,
    start: u64,
    total: u64,
    next: Duration,
    ended: bool,
}

impl PlainLines {
    /// Time between lines.
    pub const EVERY: Duration = Duration::from_secs(5);

    /// Lines for `label`, of which `done` of `total` units are done already.
    pub fn new(label: &str, done: u64, total: u64) -> Self {
        Self { label: label.to_owned(), start: done, total, next: Self::EVERY, ended: false }
    }

    /// The line to print at time `now`, where one is due: five seconds after the last one, and once at the end.
    pub fn update(&mut self, now: Duration, done: u64, message: &str) -> Option<String> {
        let ends = done >= self.total;
        if self.ended || (now < self.next && !ends) {
            return None;
        }
        self.ended = ends;
        self.next = now + Self::EVERY;
        let percent = 100 * done.min(self.total) / self.total.max(1);
        let time = match done.saturating_sub(self.start) {
            _ if ends => format!("{} in all", spoken(now)),
            0 => "time left unknown".into(),
            fresh => {
                let left = now.as_secs_f64() * (self.total - done) as f64 / fresh as f64;
                format!("{} left", spoken_seconds(left))
            }
        };
        let message = if message.is_empty() { String::new() } else { format!(", {message}") };
        Some(format!("{}: {done}/{} ({percent} %){message}, {time}", self.label, self.total))
    }
}

/// A duration as a person says it: "48 s", "3 min 20 s", "2 h 5 min".
pub fn spoken(duration: Duration) -> String {
    spoken_seconds(duration.as_secs_f64())
}

/// As [`spoken`], of a number that may come from a file: a negative number or NaN counts as 0.
pub fn spoken_seconds(seconds: f64) -> String {
    // the cast saturates
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}
