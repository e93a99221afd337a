//! CPU kernels on plain slices: what a training step spends its time in.
//!
//! Nothing here allocates, knows tensors or starts threads; the [engine](crate::engine) gives every thread
//! its own samples and scratch memory. All matrix products go to BLAS.

pub(crate) mod conv;
