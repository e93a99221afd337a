//! Ctrl-C, and the polite request to end that a system sends; and the watch that every training keeps.
//!
//! Definition: while a [`Deferred`] lives, the first request only sets a flag, so that the work can save and stop between two
//! steps; a second one, or a request at any other time, ends the program at once with status 130. Files are replaced atomically,
//! so that an end at any moment leaves none half-written.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Exit status of an interrupted program.
pub const STATUS: u8 = 130;

static DEFERRED: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Requests are noted rather than obeyed as long as this lives.
#[derive(Debug)]
pub struct Deferred(());

/// Takes over the handling of requests; to be called once, at the start.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        let first = !REQUESTED.swap(true, Ordering::SeqCst);
        if first && DEFERRED.load(Ordering::SeqCst) {
            eprintln!("interrupted: saving (once more ends at once)");
        } else {
            end_now();
        }
    })
    .context("cannot handle interruptions")
}

/// Ends the program without the libraries' clean-up, which would take OpenBLAS away from threads that are computing.
fn end_now() -> ! {
    signal_hook::low_level::exit(i32::from(STATUS))
}

/// Asks this process to end as a signal would, once: where requests are deferred, a further one changes nothing.
pub fn request() {
    REQUESTED.store(true, Ordering::SeqCst);
    if !DEFERRED.load(Ordering::SeqCst) {
        end_now();
    }
}

/// Whether there was a request, deferred or not.
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

impl Deferred {
    /// From now on the first request is only noted.
    #[must_use]
    pub fn begin() -> Self {
        DEFERRED.store(true, Ordering::SeqCst);
        Self(())
    }

    /// Whether there was a request.
    #[must_use]
    pub fn requested(&self) -> bool {
        REQUESTED.load(Ordering::SeqCst)
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        DEFERRED.store(false, Ordering::SeqCst);
    }
}

/// Between two steps of a training: whether a checkpoint is due, whether to stop, and what went wrong.
#[derive(Debug)]
pub struct Watch {
    deferred: Deferred,
    checkpoint_every: Duration,
    last_save: Instant,
    /// The trainer's own error type has no place for what observing it may cause.
    failure: Option<anyhow::Error>,
}

impl Watch {
    /// Requests to stop are deferred from now on, as long as this lives.
    #[must_use]
    pub fn begin(checkpoint_every: Duration) -> Self {
        let deferred = Deferred::begin();
        Self { deferred, checkpoint_every, last_save: Instant::now(), failure: None }
    }

    #[must_use]
    pub fn is_save_due(&self) -> bool {
        self.last_save.elapsed() >= self.checkpoint_every
    }

    pub fn saved(&mut self) {
        self.last_save = Instant::now();
    }

    /// Whether training goes on: not after an error, which is kept, and not after a request to stop.
    pub fn decide(&mut self, outcome: Result<()>) -> ControlFlow<()> {
        match outcome {
            Ok(()) if self.deferred.requested() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    /// The error that stopped the training, if one did.
    pub fn check(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }
}
