//! Memory that one evaluation leaves for the next.
//!
//! An assembly needs the taps of every stage, Σ taps · min(c_out, c_in) · n numbers, and its pullback as much again. Fresh
//! memory of that size costs a page fault every 4 KiB. A [`Scratch`] keeps the buffers of evaluations that were
//! dropped and hands them to later ones; training holds one for all steps and all layers.

use std::sync::{Arc, Mutex, PoisonError};

/// Buffers kept at most; more than the stages of a 7 x 7 kernel on all panels never wait at the same time.
const MAX_SPARE: usize = 512;

/// A store of buffers, shared by its clones and by all threads.
#[derive(Debug)]
pub struct Scratch<T> {
    spare: Arc<Mutex<Vec<Vec<T>>>>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self { spare: Arc::default() }
    }
}

impl<T> Clone for Scratch<T> {
    fn clone(&self) -> Self {
        Self { spare: Arc::clone(&self.spare) }
    }
}

impl<T: Copy + num_traits::Zero> Scratch<T> {
    /// Buffers that wait for their next use, and the bytes they hold.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = spare.iter().map(|b| b.capacity() * size_of::<T>()).sum();
        (spare.len(), bytes)
    }

    /// A buffer of `len` numbers of any value: the smallest waiting one that is large enough, or a new one.
    pub(crate) fn take(&self, len: usize) -> Vec<T> {
        let mut buffer = {
            let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            let fitting = spare.iter().enumerate().filter(|(_, b)| b.capacity() >= len);
            let best = fitting.min_by_key(|(_, b)| b.capacity()).map(|(i, _)| i);
            best.map(|i| spare.swap_remove(i)).unwrap_or_default()
        };
        buffer.resize(len, T::zero());
        buffer
    }

    /// Takes a buffer back.
    pub(crate) fn give(&self, buffer: Vec<T>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() > 0 && spare.len() < MAX_SPARE {
            spare.push(buffer);
        }
    }
}
