//! Networks that are no mere list: layers that go back to earlier signals.
//!
//! A network is a list of layers, each of which takes the signal of the layer before it. Signal 0 is the image, signal k the output of
//! layer k, counted from 1. [`PlainLayer::Recall`], [`PlainLayer::Add`] and [`PlainLayer::Concat`] name an earlier signal. That
//! is enough for any graph without circles, written in an order in which every layer comes after its inputs.
//!
//! [`Node`]s are the layers that compute or join, each with the nodes whose outputs it takes. Layers between them (activations, flattening,
//! recalls) only move and compare values. They do not increase norms or distances.
//!
//! Bounds. With P the Lipschitz constant of a signal as a function of the image: a layer multiplies it by its own, a sum has P_a + P_b, a
//! concatenation √(P_a² + P_b²).

use std::collections::BTreeMap;

use candle_core::DType;
use projectors::LipschitzBound;
use projectors::rounding::{add_up, mul_up, sqrt_up};

use super::{PlainLayer, PlainNetwork, order};
use crate::error::{Error, Result};
use crate::shape::{ImageShape, SignalShape};

/// A layer that computes or joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Position in [`PlainNetwork::layers`].
    pub layer: usize,
    /// The nodes that it takes its input from; None for the image. Two for a layer that joins, the earlier signal first.
    pub inputs: Vec<Option<usize>>,
}

impl PlainLayer {
    /// The earlier signal that the layer names.
    #[must_use]
    pub fn earlier(&self) -> Option<usize> {
        match self {
            Self::Recall { from } | Self::Add { from } | Self::Concat { from } => Some(*from),
            _ => None,
        }
    }

    fn is_node(&self) -> bool {
        let joins = matches!(self, Self::Add { .. } | Self::Concat { .. });
        joins || matches!(self, Self::LeakyRelu { .. }) || self.parameters().is_some()
    }
}

/// The shapes of all signals.
pub(super) fn shapes(
    input: ImageShape,
    layers: &[PlainLayer],
    names: &[String],
) -> Result<Vec<SignalShape>> {
    let mut shapes = vec![SignalShape::Image(input)];
    for (layer, name) in layers.iter().zip(names) {
        let current = shapes[shapes.len() - 1];
        let shape = match layer.earlier() {
            None => layer.output_shape(current, name)?,
            Some(from) => {
                let Some(&earlier) = shapes.get(from) else {
                    return Err(order(name, "its input", "it names a signal that comes later"));
                };
                joined(layer, earlier, current, name)?
            }
        };
        shape.check_size(|| format!("the output of {name}"))?;
        shapes.push(shape);
    }
    Ok(shapes)
}

fn joined(
    layer: &PlainLayer,
    earlier: SignalShape,
    current: SignalShape,
    name: &str,
) -> Result<SignalShape> {
    match (layer, earlier, current) {
        (PlainLayer::Recall { .. }, _, _) => Ok(earlier),
        (PlainLayer::Add { .. }, a, b) if a == b => Ok(a),
        (PlainLayer::Concat { .. }, SignalShape::Vector(a), SignalShape::Vector(b)) => {
            Ok(SignalShape::Vector(a.saturating_add(b)))
        }
        (PlainLayer::Concat { .. }, SignalShape::Image(a), SignalShape::Image(b))
            if (a.height, a.width) == (b.height, b.width) =>
        {
            let channels = a.channels.saturating_add(b.channels);
            Ok(SignalShape::Image(ImageShape { channels, ..a }))
        }
        _ => {
            let (expected, got) = (dims(earlier), dims(current));
            Err(Error::ShapeMismatch { what: format!("the input of {name}"), expected, got })
        }
    }
}

fn dims(shape: SignalShape) -> Vec<usize> {
    match shape {
        SignalShape::Image(image) => vec![image.channels, image.height, image.width],
        SignalShape::Vector(n) => vec![n],
    }
}

/// The nodes; the last of them must be what the logits come from.
pub(super) fn nodes(layers: &[PlainLayer], names: &[String]) -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::new();
    // of every signal the node that it comes from
    let mut origins: Vec<Option<usize>> = vec![None];
    for (idx, layer) in layers.iter().enumerate() {
        let mut current = origins[origins.len() - 1];
        let earlier = layer.earlier().map(|from| origins[from]);
        if layer.is_node() {
            nodes.push(Node { layer: idx, inputs: earlier.into_iter().chain([current]).collect() });
            current = Some(nodes.len() - 1);
        } else if let Some(earlier) = earlier {
            current = earlier;
        }
        origins.push(current);
    }
    if nodes.is_empty() || origins.last() != Some(&Some(nodes.len() - 1)) {
        let last = nodes.last().map_or("the image", |node| names[node.layer].as_str());
        return Err(order(
            "the output",
            last,
            "the logits must come from the last layer that computes",
        ));
    }
    Ok(nodes)
}

/// `conv1`, `maxmin1`, `linear1` …: the kind and its count so far.
pub(super) fn layer_names(layers: &[PlainLayer]) -> Vec<String> {
    let kind = |layer: &PlainLayer| match layer {
        PlainLayer::CyclicConv(_) => "conv",
        PlainLayer::Dense(_) => "linear",
        PlainLayer::Activation(activation) => activation.name(),
        PlainLayer::Flatten => "flatten",
        PlainLayer::PaddedConv(_) => "conv",
        PlainLayer::LeakyRelu { slope } if *slope == -1.0 => "abs",
        PlainLayer::LeakyRelu { .. } => "leaky",
        PlainLayer::Recall { .. } => "recall",
        PlainLayer::Add { .. } => "add",
        PlainLayer::Concat { .. } => "concat",
    };
    let mut counts = BTreeMap::new();
    let name = |layer| {
        let count: &mut usize = counts.entry(kind(layer)).or_default();
        *count += 1;
        format!("{}{count}", kind(layer))
    };
    layers.iter().map(name).collect()
}

/// A slope must be what the arithmetic multiplies by.
pub(super) fn check_slope(layer: &PlainLayer, dtype: DType) -> Result<()> {
    let PlainLayer::LeakyRelu { slope } = layer else { return Ok(()) };
    let held = dtype != DType::F32 || f64::from(*slope as f32) == *slope;
    if slope.is_finite() && held {
        return Ok(());
    }
    let (name, expected) = ("slope", "a finite number that the weights' element type holds");
    Err(Error::InvalidSetting { name, value: slope.to_string(), expected })
}

impl PlainNetwork {
    /// The layers that compute or join, in order; the logits come from the last one.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Shapes of the signals: of the image, then of every layer's output.
    #[must_use]
    pub fn shapes(&self) -> &[SignalShape] {
        &self.shapes
    }

    /// Whether every layer takes the signal of the layer before it and no other.
    #[must_use]
    pub fn is_sequence(&self) -> bool {
        self.layers.iter().all(|layer| layer.earlier().is_none())
    }

    /// A rigorous bound of every signal's Lipschitz constant as a function of the image, in the order of [`PlainNetwork::shapes`].
    ///
    /// # Errors
    /// As for [`PlainLayer::lipschitz_bound`].
    pub fn signal_bounds(&self) -> Result<Vec<LipschitzBound>> {
        let bound = |source| Error::Orthonormalisation { layer: "the network".into(), source };
        let mut signals = vec![LipschitzBound::exact(1.0).map_err(bound)?];
        for (layer, own) in self.layers.iter().zip(self.lipschitz_bounds()?) {
            let current = signals[signals.len() - 1];
            let signal = match (layer, layer.earlier()) {
                (PlainLayer::Recall { .. }, Some(from)) => signals[from],
                (PlainLayer::Add { .. }, Some(from)) => signals[from].sum(&current),
                (_, Some(from)) => in_quadrature(&signals[from], &current).map_err(bound)?,
                (_, None) => current.in_series(&own),
            };
            signals.push(signal);
        }
        Ok(signals)
    }
}

/// √(a² + b²), rounded up; an estimate where one of them is.
fn in_quadrature(a: &LipschitzBound, b: &LipschitzBound) -> projectors::Result<LipschitzBound> {
    let root = sqrt_up(add_up(mul_up(a.value(), a.value()), mul_up(b.value(), b.value())));
    if a.is_rigorous() && b.is_rigorous() {
        LipschitzBound::upper_bound(root)
    } else {
        LipschitzBound::estimate(root)
    }
}
