//! Buffers of an evaluation in f64, and who watches the signals that go through them.

use std::collections::BTreeMap;

/// What [`WideNetwork::run`](super::WideNetwork::run) reports of a chunk of images while it passes through the network.
pub trait SignalObserver: Default {
    /// An input of [node](crate::Node) `idx`: features x images. A node that joins has two.
    fn input(&mut self, idx: usize, signal: &[f64], n_images: usize);
    /// The output of node `idx`, before its activation.
    fn output(&mut self, idx: usize, signal: &[f64], n_images: usize);
}

/// Observes nothing.
#[derive(Debug, Default)]
pub(super) struct Nothing;

impl SignalObserver for Nothing {
    fn input(&mut self, _: usize, _: &[f64], _: usize) {}
    fn output(&mut self, _: usize, _: &[f64], _: usize) {}
}

/// Buffers of an evaluation, which later ones reuse: the second of one network allocates nothing.
#[derive(Debug, Default)]
pub struct WideWorkspace {
    pub(super) signal: Vec<f64>,
    pub(super) next: Vec<f64>,
    pub(super) columns: Vec<f64>,
    pub(super) record: Vec<u8>,
    /// Signals that later layers recall, by their positions.
    pub(super) kept: BTreeMap<usize, Vec<f64>>,
    pub(super) logits: Vec<f64>,
}

impl WideWorkspace {
    /// The logits (images x n_classes) of the last evaluation.
    #[must_use]
    pub fn logits(&self) -> &[f64] {
        &self.logits
    }
}

/// A chunk of images after the network.
#[derive(Debug)]
pub struct ChunkOutput<O> {
    /// Number of images.
    pub n_images: usize,
    /// images x n_classes.
    pub logits: Vec<f64>,
    /// What was reported on the way.
    pub observed: O,
}
