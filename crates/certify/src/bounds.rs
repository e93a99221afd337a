//! Layer bounds: what a certificate needs to know of the stored weights, whatever they were made from.
//!
//! Definition, for an affine layer `z = W a + b` with W the linear map of the whole layer (a cyclic convolution
//! included):
//! * `K ≥ ‖W‖₂`, the layer's Lipschitz constant;
//! * `A ≥ ‖|W|‖₂`, the norm of the matrix of absolute values, which multiplies rounding errors only;
//! * `B ≥ ‖b‖₂`, with the bias repeated for every pixel;
//! * `n`, the length of its dot products, and `m`, the number of its outputs.
//!
//! A leaky ReLU counts as an affine layer with K = A = max(1, |slope|), B = 0 and n = 0; a sum of two signals has K = A = 1 for each
//! of them, B = 0 and n = 1; a concatenation K = 1 and A = B = n = 0, for it rounds nothing.
//!
//! For a head (a dense layer that produces the logits), and each pair of classes t, j: `‖w_t - w_j‖₂`, which
//! bounds how fast the difference of the two logits moves, and `‖|w_t| + |w_j|‖₂`.
//!
//! The absolute norm of a cyclic convolution is that of its frequency 0: for a non-negative kernel every
//! entry of another frequency's matrix is at most that of frequency 0 in modulus, and the spectral norm
//! of a matrix is at most that of its entrywise modulus, which is monotone in the entries. So
//! `‖|W|‖₂ = ‖Σ_{i,j} |W[:, :, i, j]|‖₂`, for every image size.
//!
//! A padded convolution is bounded by kernels of stride 1 on a torus ([`lipconv::PaddedConv::unrolled`]), and so is that of its absolute
//! values; groups see disjoint channels, so that the largest counts.
//!
//! K of a cyclic convolution is the smaller of a bound for every image size, which is tight for orthogonal kernels, and one for the
//! size at hand, which is tight for all; the latter is left out where `‖W‖_F² / min(c_out, c_in)`, the mean square of the
//! singular values, shows that it could gain nothing.
//!
//! Guarantee: rigorous upper bounds for the stored numbers, computed in f64 with directed rounding.
//!
//! Cost: one spectral norm bound for each weight and each matrix of absolute values, once per network.
//!
//! Errors: [`Error::Network`] or [`Error::Norm`] where a weight is not finite, [`Error::NotRigorous`] where a
//! layer's Lipschitz constant is only an estimate.
//!
//! Not here: how K is computed, see `projectors::norms` and `blockconv::bounds`.

use blockconv::bounds::cyclic_norm_bound_on;
use lipconv::wide::{Affine, WideNetwork};
use lipconv::{Node, PlainLayer, PlainNetwork, SignalShape};
use ndarray::{Array2, ArrayView1, Axis};
use projectors::LipschitzBound;
use projectors::norms::spectral_norm_bound;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::upper::{Upper, norm_up};

/// The bounds of one affine layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerBound {
    /// The layer's name in the network.
    pub name: String,
    /// K: rigorous bound of the spectral norm.
    pub lipschitz: f64,
    /// A: bound of the norm of the matrix of absolute values.
    pub absolute_norm: f64,
    /// B: bound of the norm of the bias, over all outputs.
    pub bias_norm: f64,
    /// n: length of the dot products, without the bias.
    pub dot_length: usize,
    /// m: number of outputs.
    pub n_outputs: usize,
}

/// The bounds of all layers that compute or join, and that of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkBounds {
    layers: Vec<LayerBound>,
    joints: Vec<Joint>,
    is_own: bool,
    lipschitz: f64,
    head: Option<Head>,
}

/// How the inputs of a layer come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joint {
    /// One input; None for the image.
    Single(Option<usize>),
    /// The sum of two.
    Sum([Option<usize>; 2]),
    /// Two side by side.
    Concat([Option<usize>; 2]),
}

/// Bounds for pairs of rows of the last weight.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    n_classes: usize,
    difference: Vec<f64>,
    absolute_sum: Vec<f64>,
    bias: Vec<f64>,
}

/// How the change of a difference of two logits is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogitBound {
    /// By `√2 Π K_i`, the same for every pair of classes.
    Global,
    /// By the smaller of that and `‖w_t - w_j‖ Π_{i<L} K_i`.
    #[default]
    Pairwise,
}

impl NetworkBounds {
    /// The bounds of `network`.
    ///
    /// # Errors
    /// [`Error::Network`] or [`Error::Norm`] where a weight is not finite; [`Error::DTypeMismatch`] for weights
    /// that are neither f32 nor f64.
    pub fn new(network: &PlainNetwork) -> Result<Self> {
        Self::of_engine(network, &WideNetwork::new(network)?)
    }

    pub(crate) fn of_engine(network: &PlainNetwork, engine: &WideNetwork) -> Result<Self> {
        let mut affine = engine.affine_layers();
        let bound = |(idx, node): (usize, &Node)| {
            let layer = &network.layers()[node.layer];
            let shape = network.shapes()[node.layer];
            match layer.parameters().and_then(|_| affine.next()) {
                Some(affine) => affine_bound(layer, shape, affine),
                None => Ok(joining_bound(layer, engine.node_size(idx))),
            }
        };
        let layers = network.nodes().iter().enumerate().map(bound).collect::<Result<Vec<_>>>()?;
        let joints: Vec<Joint> =
            network.nodes().iter().map(|node| joint(&network.layers()[node.layer], node)).collect();
        let lipschitz = last_slope(&layers, &joints);
        let (is_own, head) = (is_own(network), engine.head().map(Head::new));
        Ok(Self { layers, joints, is_own, lipschitz, head })
    }

    /// The same with K and A of every layer with weights or a slope multiplied by `factor`.
    pub(crate) fn raised(mut self, factor: Upper) -> Self {
        for (layer, joint) in self.layers.iter_mut().zip(&self.joints) {
            if matches!(joint, Joint::Single(_)) {
                layer.lipschitz = (Upper::new(layer.lipschitz) * factor).value();
                layer.absolute_norm = (Upper::new(layer.absolute_norm) * factor).value();
            }
        }
        self.lipschitz = last_slope(&self.layers, &self.joints);
        self
    }

    /// Whether all layers are of a kind that this project trains to a norm of 1.
    pub(crate) fn is_own(&self) -> bool {
        self.is_own
    }

    /// How the inputs of each layer come together.
    pub(crate) fn joints(&self) -> &[Joint] {
        &self.joints
    }

    /// For each layer how fast its input and its output move with the image.
    pub(crate) fn slopes(&self) -> Vec<(Upper, Upper)> {
        slopes(&self.layers, &self.joints)
    }

    /// The layers that compute or join, first to last.
    #[must_use]
    pub fn layers(&self) -> &[LayerBound] {
        &self.layers
    }

    /// Bound of the Lipschitz constant of the network: for a list of layers the product of theirs, rounded up.
    #[must_use]
    pub fn lipschitz(&self) -> f64 {
        self.lipschitz
    }

    /// Bound of `‖w_t - w_j‖₂` for two rows of the head; None where the last layer is not dense or the
    /// classes do not exist.
    #[must_use]
    pub fn pair_norm(&self, t: usize, j: usize) -> Option<f64> {
        let head = self.head.as_ref()?;
        (t < head.n_classes && j < head.n_classes).then(|| head.difference(t, j).value())
    }

    pub(crate) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }
}

impl Head {
    fn new(affine: &Affine) -> Self {
        let weight = affine.weight();
        let rows = || weight.rows().into_iter();
        let pairs = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            rows().flat_map(|t| rows().map(move |j| pair_norm(t, j, f).value())).collect()
        };
        let difference = pairs(&|a, b| if a == b { 0.0 } else { (a - b).abs().next_up() });
        let absolute_sum = pairs(&|a, b| (a.abs() + b.abs()).next_up());
        let n_classes = affine.weight().nrows();
        let bias = affine.bias().iter().map(|b| b.abs()).chain(std::iter::repeat(0.0));
        Self { n_classes, difference, absolute_sum, bias: bias.take(n_classes).collect() }
    }

    /// At least `‖w_t - w_j‖₂`.
    pub(crate) fn difference(&self, t: usize, j: usize) -> Upper {
        Upper::new(self.difference[t * self.n_classes + j])
    }

    /// At least `‖|w_t| + |w_j|‖₂`.
    pub(crate) fn absolute_sum(&self, t: usize, j: usize) -> Upper {
        Upper::new(self.absolute_sum[t * self.n_classes + j])
    }

    /// `|b_t| + |b_j|`, rounded up.
    pub(crate) fn bias(&self, t: usize, j: usize) -> Upper {
        Upper::new(self.bias[t]) + Upper::new(self.bias[j])
    }
}

impl Joint {
    /// What is known of the inputs, put together; `image` for the image itself.
    pub(crate) fn of<T: Copy>(
        self,
        of: impl Fn(usize) -> T,
        image: T,
        sum: impl Fn(T, T) -> T,
        quadrature: impl Fn(T, T) -> T,
    ) -> T {
        let one = |input: Option<usize>| input.map_or(image, &of);
        match self {
            Self::Single(input) => one(input),
            Self::Sum([a, b]) => sum(one(a), one(b)),
            Self::Concat([a, b]) => quadrature(one(a), one(b)),
        }
    }
}

/// Whether all layers are of a kind that this project trains to a norm of 1.
pub(crate) fn is_own(network: &PlainNetwork) -> bool {
    let foreign = |layer: &PlainLayer| {
        matches!(layer, PlainLayer::PaddedConv(_) | PlainLayer::LeakyRelu { .. })
    };
    network.is_sequence() && !network.layers().iter().any(foreign)
}

/// √(a² + b²), rounded up.
pub(crate) fn quadrature(a: Upper, b: Upper) -> Upper {
    (a * a + b * b).sqrt()
}

fn joint(layer: &PlainLayer, node: &Node) -> Joint {
    match (layer, &node.inputs[..]) {
        (PlainLayer::Concat { .. }, &[a, b]) => Joint::Concat([a, b]),
        (_, &[a, b]) => Joint::Sum([a, b]),
        (_, inputs) => Joint::Single(inputs.first().copied().flatten()),
    }
}

/// Input and output of each layer: the product of the constants before it, sums and concatenations counted, rounded up.
fn slopes(layers: &[LayerBound], joints: &[Joint]) -> Vec<(Upper, Upper)> {
    let mut slopes: Vec<(Upper, Upper)> = Vec::with_capacity(layers.len());
    for (layer, joint) in layers.iter().zip(joints) {
        let before = joint.of(|i| slopes[i].1, Upper::ONE, |a, b| a + b, quadrature);
        slopes.push((before, before * Upper::new(layer.lipschitz)));
    }
    slopes
}

fn last_slope(layers: &[LayerBound], joints: &[Joint]) -> f64 {
    slopes(layers, joints).last().map_or(Upper::ONE, |(_, slope)| *slope).value()
}

fn pair_norm(t: ArrayView1<'_, f64>, j: ArrayView1<'_, f64>, f: &dyn Fn(f64, f64) -> f64) -> Upper {
    norm_up(t.iter().zip(j).map(|(&a, &b)| f(a, b)))
}

fn affine_bound(layer: &PlainLayer, shape: SignalShape, affine: &Affine) -> Result<LayerBound> {
    let name = affine.name();
    let bound = rigorous(name, &layer.lipschitz_bound_on(shape, name)?)?;
    match (layer, shape) {
        (PlainLayer::PaddedConv(conv), SignalShape::Image(image)) => {
            let kernels = conv.unrolled(image, name)?.kernels;
            let taps = kernels.iter().map(|kernel| {
                let terms = kernel.map_axis(Axis(3), |row| {
                    row.iter().copied().map(f64::abs).map(Upper::new).sum::<Upper>()
                });
                terms.map_axis(Axis(2), |column| column.iter().copied().sum::<Upper>().value())
            });
            layer_bound(affine, bound, taps)
        }
        _ => layer_bound(affine, on_this_size(affine, bound)?, [absolute_taps(affine)]),
    }
}

/// The bound of a layer without weights.
fn joining_bound(layer: &PlainLayer, (name, n_outputs): (&str, usize)) -> LayerBound {
    let (lipschitz, absolute_norm, dot_length) = match layer {
        PlainLayer::LeakyRelu { slope } => (slope.abs().max(1.0), slope.abs().max(1.0), 0),
        PlainLayer::Concat { .. } => (1.0, 0.0, 0),
        _ => (1.0, 1.0, 1),
    };
    let name = name.to_owned();
    LayerBound { name, lipschitz, absolute_norm, bias_norm: 0.0, dot_length, n_outputs }
}

/// `every_size`, or a smaller bound for the layer's own image size.
fn on_this_size(affine: &Affine, every_size: f64) -> Result<f64> {
    /// What the bound for one size exceeds the norm by, about.
    const EXCESS: f64 = 2e-5;
    let Some((kernel, image)) = affine.convolution() else { return Ok(every_size) };
    let weight = affine.weight();
    let (c_out, c_in) = (weight.nrows(), image.channels);
    let mean_square = weight.iter().map(|w| w * w).sum::<f64>() / c_out.min(c_in) as f64;
    if every_size <= mean_square.sqrt() * (1.0 + EXCESS) {
        return Ok(every_size);
    }
    let weight = weight.into_shape_with_order((c_out, c_in, kernel, kernel));
    let weight = weight.expect("a row of the weight is c_in x k x k");
    let name = affine.name();
    let bound = cyclic_norm_bound_on(weight, (image.height, image.width));
    let bound = bound.map_err(|source| {
        let layer = name.to_owned();
        Error::Network(lipconv::Error::Algebra { layer, source })
    })?;
    Ok(rigorous(name, &bound)?.min(every_size))
}

/// The value of a bound that may serve in a certificate.
pub(crate) fn rigorous(layer: &str, bound: &LipschitzBound) -> Result<f64> {
    let not_rigorous = || Error::NotRigorous { layer: layer.to_owned(), value: bound.value() };
    bound.rigorous().ok_or_else(not_rigorous)
}

/// `absolute`: for each group of channels the sums of the absolute values over the taps.
fn layer_bound(
    affine: &Affine,
    lipschitz: f64,
    absolute: impl IntoIterator<Item = Array2<f64>>,
) -> Result<LayerBound> {
    let name = affine.name().to_owned();
    let mut absolute_norm = 0.0f64;
    let mut last: Option<Array2<f64>> = None;
    for group in absolute {
        if last.as_ref() != Some(&group) {
            let norm = spectral_norm_bound(group.view());
            let norm =
                norm.map_err(|source| Error::Norm { what: format!("|{name}.weight|"), source })?;
            absolute_norm = absolute_norm.max(rigorous(&name, &norm)?);
        }
        last = Some(group);
    }
    let pixels = Upper::new(affine.n_pixels() as f64).sqrt();
    Ok(LayerBound {
        lipschitz,
        absolute_norm,
        bias_norm: (norm_up(affine.bias().iter().copied()) * pixels).value(),
        dot_length: affine.dot_length(),
        n_outputs: affine.weight().nrows() * affine.n_pixels(),
        name,
    })
}

/// `|W|`, for a convolution summed over its taps (rounded up): c_out x c_in.
fn absolute_taps(affine: &Affine) -> Array2<f64> {
    let n_taps = affine.n_taps();
    let weight = affine.weight();
    let shape = (weight.nrows(), weight.ncols() / n_taps);
    Array2::from_shape_fn(shape, |(o, c)| {
        let taps = weight.row(o);
        (0..n_taps).map(|tap| Upper::new(taps[c * n_taps + tap].abs())).sum::<Upper>().value()
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use lipconv::{CyclicConv, Dense, ImageShape, PlainLayer};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn estimates_are_refused() {
        let bound = LipschitzBound::estimate(0.5).unwrap();
        let text = rigorous("conv1", &bound).unwrap_err().to_string();
        assert!(text.starts_with("conv1: the Lipschitz constant 0.5 is an estimate"), "{text}");
        assert_eq!(rigorous("conv1", &LipschitzBound::upper_bound(0.5).unwrap()).unwrap(), 0.5);
    }

    /// The matrix of a cyclic convolution: its products with the unit images.
    fn dense_operator(conv: &PlainLayer, input: ImageShape) -> Array2<f64> {
        let n = input.n_values();
        let layers = vec![conv.clone(), PlainLayer::Flatten];
        let network = PlainNetwork::new(input, layers).unwrap();
        let eye = Tensor::eye(n, DType::F64, &Device::Cpu).unwrap();
        let units = eye.reshape((n, input.channels, input.height, input.width)).unwrap();
        let columns: Vec<Vec<f64>> = network.forward(&units).unwrap().to_vec2().unwrap();
        Array2::from_shape_fn((columns[0].len(), n), |(o, i)| columns[i][o])
    }

    #[test]
    fn bounds_of_a_convolution_are_those_of_its_dense_operator() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for (kernel, c_out, c_in) in [(1, 2, 3), (2, 3, 2), (3, 4, 1), (4, 1, 2)] {
            let shape = [c_out, c_in, kernel, kernel];
            let n = shape.iter().product();
            let values: Vec<f64> = (0..n).map(|_| rng.random_range(-1.0..=1.0)).collect();
            let weight = Tensor::from_vec(values, &shape, &Device::Cpu).unwrap();
            let bias = Tensor::ones(c_out, DType::F64, &Device::Cpu).unwrap();
            let conv = |bias| CyclicConv::new(weight.clone(), bias, 1).unwrap();
            let input = ImageShape::new(c_in, 4, 5);
            let operator = dense_operator(&PlainLayer::CyclicConv(conv(None)), input);
            let with_bias = PlainLayer::CyclicConv(conv(Some(bias)));
            let network = PlainNetwork::new(input, vec![with_bias, PlainLayer::Flatten]).unwrap();
            let bounds = NetworkBounds::new(&network).unwrap();
            let layer = &bounds.layers()[0];
            let norm = |m: &Array2<f64>| spectral_norm_bound(m.view()).unwrap().value();
            let (truth, absolute) = (norm(&operator), norm(&operator.mapv(f64::abs)));
            assert!(layer.lipschitz >= truth * (1.0 - 1e-4), "{} {truth}", layer.lipschitz);
            assert!((layer.absolute_norm / absolute - 1.0).abs() < 1e-3, "{kernel}");
            assert!((layer.bias_norm - ((c_out * 20) as f64).sqrt()).abs() < 1e-12);
            assert_eq!((layer.dot_length, layer.n_outputs), (c_in * kernel * kernel, c_out * 20));
            // no head: a convolution's output is not a list of logit directions
            assert_eq!(bounds.pair_norm(0, 1), None);
        }
    }

    #[test]
    fn pairs_of_rows_have_the_norm_of_their_difference() {
        let weight = Tensor::new(&[[3.0, 0.0], [0.0, -4.0], [3.0, 0.0]], &Device::Cpu).unwrap();
        let layers =
            vec![PlainLayer::Flatten, PlainLayer::Dense(Dense::new(weight, None).unwrap())];
        let network = PlainNetwork::new(ImageShape::new(1, 1, 2), layers).unwrap();
        let bounds = NetworkBounds::new(&network).unwrap();
        let pair = bounds.pair_norm(0, 1).unwrap();
        assert!((5.0..5.0 + 1e-14).contains(&pair), "{pair}");
        assert!(bounds.pair_norm(0, 2).unwrap() < 1e-100);
        assert_eq!(bounds.pair_norm(0, 3), None);
    }
}
