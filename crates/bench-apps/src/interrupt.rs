//! Ctrl-C, and the polite request to end that a system sends; and the watch that every training keeps.
//!
//! Definition: while a [`Deferred`] lives, the first request only sets a flag, so that the work can save and stop between two
//! steps; a second one, or a request at any other time, ends the program at once with status 130. Files are replaced atomically,
//! so that an end at any moment leaves none half-written.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::stdout::errln;

/// Exit status of an interrupted program.
pub const STATUS: u8 = 130;

static DEFERRED: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Requests are noted rather than obeyed as long as this lives.
#[derive(Debug)]
pub struct Deferred(());

/// Takes over the handling of requests; to be called once, at the start.
///
/// A request that the process was started to ignore, as `nohup` does with the end of the terminal, is still ignored.
pub fn install() -> Result<()> {
    let handled = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal));
    let mut signals = Signals::new(handled).context("cannot handle interruptions")?;
    let handle = move || {
        for _ in signals.forever() {
            let first = !REQUESTED.swap(true, Ordering::SeqCst);
            if first && DEFERRED.load(Ordering::SeqCst) {
                errln!("interrupted: saving (once more ends at once)");
            } else {
                end_now();
            }
        }
    };
    std::thread::Builder::new().spawn(handle).map(drop).context("cannot handle interruptions")
}

/// Whether the process that started this one asked to ignore a signal.
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    #[expect(unsafe_code, reason = "asks for the present handling, and changes nothing")]
    // the action is read only where the call says that it was written
    let found = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    };
    found
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
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

impl Deferred {
    /// From now on the first request is only noted.
    pub fn begin() -> Self {
        DEFERRED.store(true, Ordering::SeqCst);
        Self(())
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
    _deferred: Deferred,
    checkpoint_every: Duration,
    last_save: Instant,
    /// The trainer's own error type has no place for what observing it may cause.
    failure: Option<anyhow::Error>,
}

impl Watch {
    /// Requests to stop are deferred from now on, as long as this lives.
    pub fn begin(checkpoint_every: Duration) -> Self {
        let (_deferred, last_save) = (Deferred::begin(), Instant::now());
        Self { _deferred, checkpoint_every, last_save, failure: None }
    }
    pub fn is_save_due(&self) -> bool {
        self.last_save.elapsed() >= self.checkpoint_every
    }

    pub fn saved(&mut self) {
        self.last_save = Instant::now();
    }

    /// Whether training goes on: not after an error, which is kept, and not after a request to stop.
    pub fn decide(&mut self, outcome: Result<()>) -> ControlFlow<()> {
        match outcome {
            Ok(()) if requested() => ControlFlow::Break(()),
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
