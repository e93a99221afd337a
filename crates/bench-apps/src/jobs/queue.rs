//! Jobs one after another, or several at a time, on this machine.
//!
//! Definition: each job runs in a process of its own, `lipconv experiment run FOLDER`, so that a failure ends that job alone.
//! A worker reports progress on its standard output and logs to `worker.log`. It saves and stops when its standard input
//! closes, which also happens when this process dies.
//!
//! Guarantee: after an interruption every worker has saved before this returns. A job that another process holds is left to it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::job::Job;
use crate::interrupt::{self, Deferred};
use crate::progress::{Display, Progress, Report};

/// Exit status of a worker whose cell is held by another process.
pub const BUSY: u8 = 75;

#[derive(Debug, Clone)]
pub struct Task {
    pub folder: PathBuf,
    pub job: Job,
}

#[derive(Debug, Clone)]
pub struct Queue {
    /// Cells at a time, at least 1.
    pub jobs: usize,
    /// Arguments of every worker after `experiment run FOLDER`.
    pub arguments: Vec<OsString>,
    pub display: Display,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cells held by other processes.
    pub busy: Vec<String>,
    /// Cells that failed, with the reason.
    pub failed: Vec<(String, String)>,
    pub interrupted: bool,
}

enum Event {
    Progress { worker: usize, report: Report },
    Ended { worker: usize, status: std::io::Result<ExitStatus> },
}

/// A worker at work; its standard input stays open as long as this lives.
struct Worker {
    task: usize,
    stdin: Option<ChildStdin>,
    log: PathBuf,
    log_start: u64,
    fraction: f64,
}

/// Runs all tasks.
pub fn run(queue: &Queue, tasks: &[Task]) -> Result<Summary> {
    let _deferred = Deferred::begin();
    let (sender, events) = channel();
    let total: u64 = tasks.iter().map(|task| task.job.cost()).sum();
    let progress = Progress::new(queue.display, "cells", 0, total);
    let mut state = State {
        tasks,
        progress,
        workers: Vec::new(),
        next: 0,
        done: 0,
        summary: Summary::default(),
    };
    loop {
        if interrupt::requested() && !state.summary.interrupted {
            state.stop();
        }
        while !state.summary.interrupted
            && state.workers.len() < queue.jobs
            && state.next < tasks.len()
        {
            state.start(queue, &sender)?;
        }
        if state.workers.is_empty() {
            break;
        }
        state.wait(&events);
    }
    state.progress.finish();
    Ok(state.summary)
}

struct State<'a> {
    tasks: &'a [Task],
    progress: Progress,
    workers: Vec<Worker>,
    next: usize,
    /// Cost of the tasks that have ended.
    done: u64,
    summary: Summary,
}

impl State<'_> {
    /// Asks all workers to save and stop.
    fn stop(&mut self) {
        self.summary.interrupted = true;
        for worker in &mut self.workers {
            worker.stdin = None;
        }
    }

    fn start(&mut self, queue: &Queue, sender: &Sender<Event>) -> Result<()> {
        let (id, task) = (self.next, &self.tasks[self.next]);
        self.next += 1;
        let log = task.folder.join("worker.log");
        let (stderr, log_start) = log_end(&log);
        let threads = (rayon::current_num_threads() / queue.jobs).max(1).to_string();
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(["--threads", &threads, "experiment", "run"])
            .arg(&task.folder)
            .arg("--supervised")
            .args(&queue.arguments)
            // candle's own threads wait for each other by spinning, against the other workers
            .env("CANDLE_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .context("cannot start a worker")?;
        let stdin = child.stdin.take();
        let sender = sender.clone();
        thread::spawn(move || listen(id, child, &sender));
        self.workers.push(Worker { task: id, stdin, log, log_start, fraction: 0.0 });
        Ok(())
    }

    fn wait(&mut self, events: &Receiver<Event>) {
        match events.recv_timeout(Duration::from_millis(200)) {
            Ok(Event::Progress { worker, report }) => {
                if let Some(worker) = self.workers.iter_mut().find(|w| w.task == worker) {
                    worker.fraction =
                        self.tasks[worker.task].job.fraction(&report).max(worker.fraction);
                }
                self.show(&report);
            }
            Ok(Event::Ended { worker, status }) => {
                if let Some(position) = self.workers.iter().position(|w| w.task == worker) {
                    let worker = self.workers.remove(position);
                    self.end(&worker, status);
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    fn show(&mut self, report: &Report) {
        let running =
            self.workers.iter().map(|w| (w.fraction * self.tasks[w.task].job.cost() as f64) as u64);
        let done = self.done + running.sum::<u64>();
        let ended = self.next - self.workers.len();
        let names: Vec<String> = self.workers.iter().map(|w| self.tasks[w.task].job.id()).collect();
        let message = format!(
            "{ended} of {} cells, {}: {} {}",
            self.tasks.len(),
            names.join(" and "),
            report.label,
            report.message
        );
        self.progress.update(done, &message);
    }

    fn end(&mut self, worker: &Worker, status: std::io::Result<ExitStatus>) {
        let task = &self.tasks[worker.task];
        let id = task.job.id();
        self.done += task.job.cost();
        let code = status.as_ref().ok().and_then(ExitStatus::code);
        match code {
            Some(0) => {
                let result = task.job.result(&task.folder).ok().flatten();
                let line = result.map_or_else(|| "finished".into(), |result| result.headline());
                self.progress.note(&format!("{id}: {line}"));
            }
            // Ctrl-C reaches the workers too, and may have ended them before it was seen here
            Some(code) if code == i32::from(interrupt::STATUS) && interrupt::requested() => {}
            Some(code) if code == i32::from(BUSY) => {
                self.progress.note(&format!("{id} is being run by another process"));
                self.summary.busy.push(id);
            }
            _ => {
                let reason = last_error(worker).unwrap_or_else(|| match &status {
                    Ok(status) => format!("the worker ended with {status}"),
                    Err(error) => error.to_string(),
                });
                self.progress.note(&format!("{id} failed: {reason}"));
                self.summary.failed.push((id, reason));
            }
        }
    }
}

/// The log for adding to, and its length; nowhere where it cannot be written.
fn log_end(path: &Path) -> (Stdio, u64) {
    match OpenOptions::new().create(true).append(true).open(path) {
        Ok(file) => {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            (file.into(), length)
        }
        Err(_) => (Stdio::null(), 0),
    }
}

/// The error that a worker ended with, from its log.
fn last_error(worker: &Worker) -> Option<String> {
    let mut file = File::open(&worker.log).ok()?;
    file.seek(SeekFrom::Start(worker.log_start)).ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.lines().rev().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned)
}

/// Forwards a worker's reports until it ends.
fn listen(worker: usize, mut child: Child, sender: &Sender<Event>) {
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
            if let Some(report) = Report::parse(&line) {
                // the queue has ended: nobody listens
                let _ = sender.send(Event::Progress { worker, report });
            }
        }
    }
    let _ = sender.send(Event::Ended { worker, status: child.wait() });
}
