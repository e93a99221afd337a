//! Ctrl-C, and the polite request to end that a system sends.
//!
//! Definition: while a [`Deferred`] lives, the first request only sets a flag, so that the work can save and stop between two
//! steps; a second one, or a request at any other time, ends the program at once with status 130. Files are replaced atomically,
//! so that an end at any moment leaves none half-written.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

/// Exit status of an interrupted program.
pub const STATUS: u8 = 130;

static DEFERRED: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Requests are noted rather than obeyed as long as this lives.
#[derive(Debug)]
pub struct Deferred(());

/// Takes over the handling of requests; to be called once, at the start.
///
/// # Errors
/// When the system refuses, or another handler is there.
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
