//! A network being put together: layers with their weights in f64, in the order in which they will stand.
//!
//! Signals are numbered as in [`lipconv::PlainLayer::Recall`]. Batch normalisation, normalisation of inputs and constant factors are a scale and
//! a shift of each channel. They go into the convolution, the dense layer or the scale before them, where nothing else sees its output.

use candle_core::{DType, Device, Tensor};
use lipconv::{
    Boundary, CyclicConv, Dense, ImageShape, PaddedConv, PlainLayer, PlainNetwork, Window,
};

use crate::error::{Result, unsupported};
use crate::movement::n_values;

/// A layer.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Conv {
        weight: Vec<f64>,
        dims: [usize; 4],
        bias: Option<Vec<f64>>,
        window: Window,
    },
    /// n_out rows.
    Dense {
        weight: Vec<f64>,
        n_out: usize,
        bias: Option<Vec<f64>>,
    },
    /// `scale[c] x + shift[c]`.
    Channelwise {
        scale: Vec<f64>,
        shift: Vec<f64>,
    },
    Unshuffle(usize),
    Plain(PlainLayer),
}

/// The layers so far.
#[derive(Debug)]
pub(crate) struct Draft {
    pieces: Vec<Piece>,
    /// Sizes of every signal: three of an image, one of a vector.
    shapes: Vec<Vec<usize>>,
    /// Scales and shifts that went into other weights.
    pub(crate) n_folded: usize,
}

/// A vector that is scaled feature by feature becomes a diagonal matrix, of at most this side.
const LARGEST_DIAGONAL: usize = 4096;

impl Draft {
    pub(crate) fn new(input: ImageShape) -> Self {
        let shape = vec![input.channels, input.height, input.width];
        Self { pieces: Vec::new(), shapes: vec![shape], n_folded: 0 }
    }

    pub(crate) fn last(&self) -> usize {
        self.pieces.len()
    }

    pub(crate) fn shape(&self, signal: usize) -> &[usize] {
        &self.shapes[signal]
    }

    /// A layer on a signal; returns the number of its output.
    pub(crate) fn push(&mut self, from: usize, piece: Piece, shape: Vec<usize>) -> usize {
        if from != self.last() {
            let shape = self.shapes[from].clone();
            self.pieces.push(Piece::Plain(PlainLayer::Recall { from }));
            self.shapes.push(shape);
        }
        self.pieces.push(piece);
        self.shapes.push(shape);
        self.last()
    }

    pub(crate) fn plain(&mut self, from: usize, layer: PlainLayer) -> usize {
        let shape = match layer {
            PlainLayer::Flatten => vec![n_values(&self.shapes[from])],
            _ => self.shapes[from].clone(),
        };
        self.push(from, Piece::Plain(layer), shape)
    }

    /// The signal as a vector.
    pub(crate) fn flat(&mut self, signal: usize) -> usize {
        if self.shapes[signal].len() == 1 {
            return signal;
        }
        self.plain(signal, PlainLayer::Flatten)
    }

    /// The sum of two signals of one shape.
    pub(crate) fn add(&mut self, a: usize, b: usize) -> usize {
        let (earlier, current) = if a == self.last() { (b, a) } else { (a, b) };
        self.plain(current, PlainLayer::Add { from: earlier })
    }

    /// The channels of `a`, then those of `b`.
    pub(crate) fn concat(&mut self, a: usize, b: usize) -> usize {
        let mut shape = self.shapes[b].clone();
        shape[0] += self.shapes[a][0];
        self.push(b, Piece::Plain(PlainLayer::Concat { from: a }), shape)
    }

    /// `scale[c] x + shift[c]`; into the layer before it where `is_free` says that nothing else sees its output.
    pub(crate) fn channelwise(
        &mut self,
        signal: usize,
        (scale, shift): (Vec<f64>, Vec<f64>),
        is_free: bool,
    ) -> usize {
        let changes = scale.iter().any(|s| *s != 1.0) || shift.iter().any(|s| *s != 0.0);
        if !changes {
            return signal;
        }
        if is_free
            && signal == self.last()
            && let Some(last) = self.pieces.last_mut()
            && last.absorb(&scale, &shift)
        {
            self.n_folded += 1;
            return signal;
        }
        let shape = self.shapes[signal].clone();
        self.push(signal, Piece::Channelwise { scale, shift }, shape)
    }

    /// The network with weights in `dtype`.
    pub(crate) fn network(self, input: ImageShape, dtype: DType) -> Result<PlainNetwork> {
        let Self { pieces, shapes, .. } = self;
        let mut layers = Vec::with_capacity(pieces.len());
        // of every signal its number in the network
        let mut numbers = vec![0];
        let mut downsample = 1;
        for (idx, piece) in pieces.iter().enumerate() {
            let number = |from: usize| numbers[from];
            match piece {
                Piece::Unshuffle(factor) if fuses(&pieces, idx) => {
                    downsample = *factor;
                    // nothing goes back to it
                    numbers.push(layers.len());
                    continue;
                }
                Piece::Plain(PlainLayer::Recall { from }) => {
                    layers.push(PlainLayer::Recall { from: number(*from) });
                }
                Piece::Plain(PlainLayer::Add { from }) => {
                    layers.push(PlainLayer::Add { from: number(*from) });
                }
                Piece::Plain(PlainLayer::Concat { from }) => {
                    layers.push(PlainLayer::Concat { from: number(*from) });
                }
                piece => layers.push(piece.layer(&shapes[idx], dtype, downsample)?),
            }
            downsample = 1;
            numbers.push(layers.len());
        }
        Ok(PlainNetwork::new(input, layers)?)
    }
}

/// Whether the downsampling at `idx` is followed by a cyclic convolution that takes it in, and seen by nothing else.
fn fuses(pieces: &[Piece], idx: usize) -> bool {
    let is_seen = pieces.iter().any(|piece| match piece {
        Piece::Plain(layer) => layer.earlier() == Some(idx + 1),
        _ => false,
    });
    let next = pieces.get(idx + 1);
    !is_seen
        && next.is_some_and(
            |next| matches!(next, Piece::Conv { dims, window, .. } if is_own(*dims, *window)),
        )
}

/// Whether a convolution is one of [`CyclicConv`]'s.
fn is_own([_, _, kh, kw]: [usize; 4], window: Window) -> bool {
    let expected = Window {
        before: [kh / 2; 2],
        after: [(kh - 1) / 2; 2],
        boundary: Boundary::Cyclic,
        ..Window::default()
    };
    // a kernel of one pixel has no boundary
    let one = Window { boundary: Boundary::Zeros, ..expected };
    kh == kw && (window == expected || (kh == 1 && window == one))
}

impl Piece {
    /// Takes a scale and a shift of its outputs in.
    fn absorb(&mut self, scale: &[f64], shift: &[f64]) -> bool {
        let (weight, n_out, bias) = match self {
            Self::Conv { weight, dims, bias, .. } => (weight, dims[0], bias),
            Self::Dense { weight, n_out, bias } => (weight, *n_out, bias),
            Self::Channelwise { scale: own, shift: offset } => {
                for ((own, offset), (s, t)) in
                    own.iter_mut().zip(offset).zip(scale.iter().zip(shift))
                {
                    (*own, *offset) = (*own * s, *offset * s + t);
                }
                return true;
            }
            _ => return false,
        };
        let terms = weight.len() / n_out;
        for (row, s) in weight.chunks_exact_mut(terms).zip(scale) {
            row.iter_mut().for_each(|w| *w *= s);
        }
        let bias = bias.get_or_insert_with(|| vec![0.0; n_out]);
        bias.iter_mut().zip(scale.iter().zip(shift)).for_each(|(b, (s, t))| *b = *b * s + t);
        if bias.iter().all(|b| *b == 0.0) && shift.iter().all(|t| *t == 0.0) {
            self.drop_bias();
        }
        true
    }

    fn drop_bias(&mut self) {
        if let Self::Conv { bias, .. } | Self::Dense { bias, .. } = self {
            *bias = None;
        }
    }

    /// The plain layer on a signal of this shape.
    fn layer(&self, input: &[usize], dtype: DType, downsample: usize) -> Result<PlainLayer> {
        let tensor = |values: &[f64], dims: &[usize]| -> Result<Tensor> {
            let held =
                |v: &f64| if dtype == DType::F32 { (*v as f32).is_finite() } else { v.is_finite() };
            if let Some(value) = values.iter().find(|v| !held(v)) {
                let name = dtype.as_str();
                return unsupported("a weight", format!("{value} is no finite number in {name}"));
            }
            Ok(Tensor::from_slice(values, dims, &Device::Cpu)?.to_dtype(dtype)?)
        };
        let vector = |values: &Option<Vec<f64>>| {
            values.as_ref().map(|values| tensor(values, &[values.len()])).transpose()
        };
        Ok(match self {
            Self::Conv { weight, dims, bias, window } => {
                let (weight, bias) = (tensor(weight, dims)?, vector(bias)?);
                if is_own(*dims, *window) {
                    PlainLayer::CyclicConv(CyclicConv::new(weight, bias, downsample)?)
                } else {
                    PlainLayer::PaddedConv(PaddedConv::new(weight, bias, *window)?)
                }
            }
            Self::Dense { weight, n_out, bias } => {
                let dims = [*n_out, weight.len() / n_out];
                PlainLayer::Dense(Dense::new(tensor(weight, &dims)?, vector(bias)?)?)
            }
            Self::Channelwise { scale, shift } if input.len() == 1 => {
                let n = scale.len();
                if n > LARGEST_DIAGONAL {
                    return unsupported(
                        "a scale of each feature",
                        format!("there are {n}, expected at most {LARGEST_DIAGONAL} on a vector"),
                    );
                }
                let entry = |at: usize| if at / n == at % n { scale[at / n] } else { 0.0 };
                let weight: Vec<f64> = (0..n * n).map(entry).collect();
                let weight = tensor(&weight, &[n, n])?;
                PlainLayer::Dense(Dense::new(weight, Some(tensor(shift, &[n])?))?)
            }
            Self::Channelwise { scale, shift } => {
                let n = scale.len();
                let window = Window { groups: n, ..Window::default() };
                let weight = tensor(scale, &[n, 1, 1, 1])?;
                PlainLayer::PaddedConv(PaddedConv::new(weight, Some(tensor(shift, &[n])?), window)?)
            }
            Self::Unshuffle(s) => {
                let (channels, area) = (input[0], s * s);
                let entry = |at: usize| if at / area % area == at % area { 1.0 } else { 0.0 };
                let weight: Vec<f64> = (0..channels * area * area).map(entry).collect();
                let weight = tensor(&weight, &[channels * area, 1, *s, *s])?;
                let window = Window { stride: [*s; 2], groups: channels, ..Window::default() };
                PlainLayer::PaddedConv(PaddedConv::new(weight, None, window)?)
            }
            Self::Plain(layer) => layer.clone(),
        })
    }
}
