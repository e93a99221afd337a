//! How networks run fast: a fixed program on reused buffers, no graph.
//!
//! A network has block form when it is a list of blocks, each one linear map and its activations; convolutions come before
//! dense layers. [`cpu`] runs such a list on the CPU, and evaluates networks that are not of this form there. What
//! [`ops`](crate::ops) does with tensors computes the same functions on any device, and is what an engine is tested against.

pub(crate) mod cpu;
#[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
pub mod cuda;

use crate::activation::Activation;

/// What the block form distinguishes in a list of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Linear,
    Activation(Activation),
    Flatten,
    /// What has no block form.
    Other,
}

/// Whether every activation directly follows a linear map or another activation, and can be recorded in bytes.
pub(crate) fn has_block_form(steps: impl IntoIterator<Item = Step>) -> bool {
    let mut after_linear = false;
    steps.into_iter().all(|step| {
        let fits = match step {
            Step::Activation(activation) => after_linear && activation.has_record(),
            Step::Linear | Step::Flatten => true,
            Step::Other => false,
        };
        after_linear = step != Step::Flatten;
        fits
    })
}
