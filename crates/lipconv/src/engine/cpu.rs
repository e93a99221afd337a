//! The engine on the CPU.
//!
//! A [`Program`](program::Program) is a network's list of blocks with its numbers; convolutions run
//! [sample by sample](spatial), dense layers on [whole batches](dense). The backward pass is the reverse sweep of the same
//! list.

pub(crate) mod dense;
pub(crate) mod plain;
pub(crate) mod program;
pub(crate) mod spatial;
pub(crate) mod stepper;
pub(crate) mod training;
