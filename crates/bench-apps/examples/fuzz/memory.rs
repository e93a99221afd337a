//! An allocator that counts, and refuses what exceeds a limit.
//!
//! Definition: the system's allocator. A request that would take the memory in use beyond the limit fails, which ends the process
//! ("memory allocation of … bytes failed").

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[derive(Debug)]
pub(crate) struct Counting {
    in_use: AtomicUsize,
    /// In use when the count began.
    base: AtomicUsize,
    peak: AtomicUsize,
    limit: AtomicUsize,
}

impl Counting {
    pub(crate) const fn new() -> Self {
        let [in_use, base, peak] = [const { AtomicUsize::new(0) }; 3];
        Self { in_use, base, peak, limit: AtomicUsize::new(usize::MAX) }
    }

    /// Begins to count: from now on, at most `most` bytes more than are in use now.
    pub(crate) fn begin(&self, most: usize) {
        let now = self.in_use.load(Relaxed);
        self.base.store(now, Relaxed);
        self.peak.store(now, Relaxed);
        self.limit.store(now.saturating_add(most), Relaxed);
    }

    /// The most bytes that were in use at a time since the count began, beyond those before it.
    pub(crate) fn used(&self) -> usize {
        self.peak.load(Relaxed).saturating_sub(self.base.load(Relaxed))
    }

    /// Whether so much more may be in use.
    fn grow(&self, bytes: usize) -> bool {
        let now = self.in_use.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if now > self.limit.load(Relaxed) {
            self.in_use.fetch_sub(bytes, Relaxed);
            return false;
        }
        self.peak.fetch_max(now, Relaxed);
        true
    }
}

#[expect(
    unsafe_code,
    reason = "an allocator: every call is handed on to the system's with the arguments it came with"
)]
// SAFETY: memory comes from System alone and goes back there with its layout; where a request fails nothing was allocated
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !self.grow(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises about `layout` are handed on
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !self.grow(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as in `alloc`
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.in_use.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are handed on
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.grow(size.saturating_sub(layout.size())) {
            return std::ptr::null_mut();
        }
        self.in_use.fetch_sub(layout.size().saturating_sub(size), Relaxed);
        // SAFETY: the caller's promises are handed on
        unsafe { System.realloc(memory, layout, size) }
    }
}
