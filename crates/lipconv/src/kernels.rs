//! CPU kernels on plain slices: what a training step spends its time in.
//!
//! Nothing here knows tensors or starts threads; the [engine](crate::engine) gives every thread its own samples and scratch memory.

pub(crate) mod conv;
pub(crate) mod lanes;
pub(crate) mod registers;
mod sums;
mod transposition;
