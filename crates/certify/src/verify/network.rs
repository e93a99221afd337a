//! A network as the verifier has it: layers, and which signals they take.
//!
//! Every affine layer is a table: output pixel p of row o is `b[o] + Σ_t w[o, t] · input[source(p, t)]`. Downsampling,
//! padding and flattening are in `source`, so that they cost nothing and round nothing; the position behind the last value of the input
//! stands for 0. The rows of a convolution with groups have a table for each group.

use serde::Deserialize;

use super::failure::Failure;

/// The network.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) input: Shape,
    pub(super) n_classes: usize,
    pub(super) layers: Vec<Layer>,
    /// Whether weights are stored in f64.
    pub(super) stored_in_f64: bool,
}

/// A layer.
#[derive(Debug)]
pub(super) enum Layer {
    Affine(Affine),
    MaxMin,
    GroupSort {
        group: usize,
        n_pixels: usize,
    },
    Relu,
    Flatten,
    Recall {
        from: usize,
    },
    /// x, or slope·x where x is negative.
    Leaky {
        node: Joining,
        slope: f64,
    },
    /// The sum of an earlier signal and the current one.
    Add {
        node: Joining,
        from: usize,
    },
    /// An earlier signal, then the current one.
    Concat {
        node: Joining,
        from: usize,
    },
}

impl Layer {
    /// The name of a layer that computes or joins.
    pub(super) fn node_name(&self) -> Option<&str> {
        match self {
            Self::Affine(affine) => Some(&affine.name),
            Self::Leaky { node, .. } | Self::Add { node, .. } | Self::Concat { node, .. } => {
                Some(&node.name)
            }
            _ => None,
        }
    }
}

/// What certificates say of a layer without weights that computes or joins.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) name: String,
    pub(super) n_outputs: usize,
}

/// How the inputs of a layer come together; None is the image.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inputs {
    One(Option<usize>),
    Sum(Option<usize>, Option<usize>),
    SideBySide(Option<usize>, Option<usize>),
}

/// A convolution or a dense layer.
#[derive(Debug)]
pub(super) struct Affine {
    pub(super) name: String,
    /// Rows of the weight: output channels or features.
    pub(super) n_rows: usize,
    /// Terms of a dot product.
    pub(super) n_terms: usize,
    /// n_rows x n_terms.
    pub(super) weight: Vec<f64>,
    /// One for each row, zeros where the layer has none.
    pub(super) bias: Vec<f64>,
    /// n_groups x n_pixels x n_terms positions in the input.
    pub(super) source: Vec<u32>,
    pub(super) n_groups: usize,
    pub(super) n_pixels: usize,
    /// The geometry of a convolution.
    pub(super) torus: Option<Torus>,
}

/// A stride-1 cyclic convolution on height x width pixels, whose norm is at least that of a convolution's group.
#[derive(Debug, Clone)]
pub(super) struct Torus {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Its input channels.
    pub(super) n_columns: usize,
    /// Taps of the kernel: no channel has more terms.
    pub(super) n_taps: usize,
    /// Of each term its input channel, and its shift.
    pub(super) places: Vec<(usize, usize, usize)>,
}

impl Torus {
    /// A k x k kernel on `channels` of an image.
    pub(super) fn cyclic(k: usize, channels: usize, (height, width): (usize, usize)) -> Self {
        let places = (0..channels)
            .flat_map(|c| (0..k).flat_map(move |i| (0..k).map(move |j| (c, i, j))))
            .collect();
        Self { height, width, n_columns: channels, n_taps: k * k, places }
    }
}

/// Channels, height, width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Shape {
    pub(super) fn n_values(self) -> usize {
        self.channels.saturating_mul(self.height).saturating_mul(self.width)
    }
}

impl Model {
    /// The layers that compute.
    pub(super) fn affine(&self) -> impl Iterator<Item = &Affine> {
        self.layers.iter().filter_map(|layer| match layer {
            Layer::Affine(affine) => Some(affine),
            _ => None,
        })
    }

    /// The last layer, where it is dense and nothing follows it.
    pub(super) fn head(&self) -> Option<&Affine> {
        match self.layers.last() {
            Some(Layer::Affine(affine)) if affine.torus.is_none() => Some(affine),
            _ => None,
        }
    }

    /// The inputs of every layer that computes or joins, by positions among these, and where the logits come from.
    pub(super) fn graph(&self) -> (Vec<Inputs>, Option<usize>) {
        let mut nodes = Vec::new();
        let mut origins: Vec<Option<usize>> = vec![None];
        for layer in &self.layers {
            let current = origins[origins.len() - 1];
            let node = match layer {
                Layer::Affine(_) | Layer::Leaky { .. } => Inputs::One(current),
                Layer::Add { from, .. } => Inputs::Sum(origins[*from], current),
                Layer::Concat { from, .. } => Inputs::SideBySide(origins[*from], current),
                Layer::Recall { from } => {
                    origins.push(origins[*from]);
                    continue;
                }
                _ => {
                    origins.push(current);
                    continue;
                }
            };
            nodes.push(node);
            origins.push(Some(nodes.len() - 1));
        }
        (nodes, origins[origins.len() - 1])
    }

    /// The signals that layers go back to.
    pub(super) fn recalled(&self) -> Vec<usize> {
        let from = |layer: &Layer| match layer {
            Layer::Recall { from } | Layer::Add { from, .. } | Layer::Concat { from, .. } => {
                Some(*from)
            }
            _ => None,
        };
        self.layers.iter().filter_map(from).collect()
    }
}

const CLAIM: &str = "model";

pub(super) fn refuse(reason: impl Into<String>) -> Failure {
    Failure::new(CLAIM, reason)
}
