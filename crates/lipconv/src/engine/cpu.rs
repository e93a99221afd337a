//! The engine on the CPU.
//!
//! A [`Program`](program::Program) is a network's list of blocks with its numbers; convolutions run
//! [sample by sample](spatial), dense layers on [whole batches](dense). The backward pass is the reverse sweep of the same
//! list. Networks that are no list of blocks run as [graphs](graph), for their values and the gradient of the images.

pub(crate) mod dense;
pub(crate) mod graph;
pub(crate) mod plain;
pub(crate) mod program;
mod shifts;
pub(crate) mod spatial;
pub(crate) mod stepper;
pub(crate) mod training;
