//! Networks with zero-padded convolutions, as the field outside of orthogonal convolutions trains them: for attacks
//! on networks that are not ours.
//!
//! Definition, for pixels in [0, 1] with channel means μ_c and one scale σ: `x'_c = (x_c - μ_c) / σ`, then the layers of
//! a [`ZeroPaddedSpec`] in turn: a cross-correlation with the OIHW weight on an input with `padding` zeros on every
//! side, read at every `stride`-th position,
//!
//! ```text
//! z[o, y, x] = b[o] + Σ_{c,i,j} W[o, c, i, j] · a[c, y·stride + i - padding, x·stride + j - padding],
//! ```
//!
//! a product `z = W a + b` with the image flattened row-major, or ReLU. The tensors of a file are called
//! `conv1.weight`, `conv1.bias`, … `linear1.weight` …, counted by kind, as PyTorch writes them.
//!
//! Shapes: images b x c x h x w, logits b x n_classes, weights c_out x c_in x k x k and n_out x n_in, f32 or f64.
//!
//! Cost: two matrix products for each layer and chunk of images (forward and input gradient), chunks in parallel. Results
//! do not depend on the number of threads.
//!
//! Errors: [`Error::ModelFile`] for a file that is not what the spec describes, [`Error::MissingTensor`],
//! [`Error::UnexpectedTensor`], [`Error::TensorShape`]; [`Error::ShapeMismatch`] and [`Error::DTypeMismatch`] for images.
//!
//! Source: the networks of Wong and Kolter 2018 and Wong et al. 2018 ("KW" in Table 3 of Li et al. 2019).
//!
//! Not here: certificates. A zero-padded convolution is not orthogonal, and nothing is claimed about its norm.

mod file;
mod pass;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lipconv::ImageShape;
use rayon::prelude::*;

use crate::classifier::{Classifier, Objective, logit_gradient};
use crate::error::{Error, Result};
use crate::tensor::{Pixel, check_images};
use file::Tensors;
use pass::{Program, Tape};

/// A network as data: what a file of weights does not say.
#[derive(Debug, Clone, PartialEq)]
pub struct ZeroPaddedSpec {
    /// Shape of an image.
    pub input: ImageShape,
    /// μ: mean of each channel.
    pub mean: Vec<f64>,
    /// σ: the scale of all channels, positive.
    pub scale: f64,
    /// The layers, first to last.
    pub layers: Vec<ZeroPaddedLayer>,
}

/// A layer of a [`ZeroPaddedSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroPaddedLayer {
    /// A convolution; channels and kernel are those of its weight.
    Conv {
        /// Distance of the positions at which it is evaluated, at least 1.
        stride: usize,
        /// Zeros on every side.
        padding: usize,
    },
    /// A matrix product; before the first one the image is flattened.
    Dense,
    /// max(x, 0).
    Relu,
}

impl ZeroPaddedSpec {
    /// The "Small" CIFAR-10 network of Wong et al. 2018: convolutions k4 s2 with one zero of padding, two dense layers.
    #[must_use]
    pub fn kw_small() -> Self {
        use ZeroPaddedLayer::{Conv, Dense, Relu};
        let conv = Conv { stride: 2, padding: 1 };
        Self {
            input: ImageShape::new(3, 32, 32),
            mean: vec![0.485, 0.456, 0.406],
            scale: 0.225,
            layers: vec![conv, Relu, conv, Relu, Dense, Relu, Dense],
        }
    }
}

/// A network with zero-padded convolutions, on the CPU.
#[derive(Debug)]
pub struct ZeroPaddedNetwork {
    weights: Weights,
    n_classes: usize,
}

#[derive(Debug)]
enum Weights {
    F32(Program<f32>),
    F64(Program<f64>),
}

/// Does the same for both element types.
macro_rules! with_program {
    ($weights:expr, $program:ident => $body:expr) => {
        match $weights {
            Weights::F32($program) => $body,
            Weights::F64($program) => $body,
        }
    };
}

impl ZeroPaddedNetwork {
    /// Reads the weights of `spec` from a safetensors file that holds them and nothing else; f32 or f64 throughout.
    ///
    /// # Errors
    /// [`Error::ModelFile`] for a file that is not what the spec describes, [`Error::MissingTensor`],
    /// [`Error::UnexpectedTensor`], [`Error::TensorShape`].
    pub fn load(path: &Path, spec: &ZeroPaddedSpec) -> Result<Self> {
        let mut tensors = Tensors::read(path)?;
        projectors::gemm::single_threaded_blas();
        let weights = match tensors.dtype()? {
            DType::F64 => Weights::F64(Program::new(spec, &mut tensors)?),
            _ => Weights::F32(Program::new(spec, &mut tensors)?),
        };
        tensors.finish()?;
        let n_classes = with_program!(&weights, program => program.n_classes());
        Ok(Self { weights, n_classes })
    }

    fn input(&self) -> ImageShape {
        with_program!(&self.weights, program => program.input())
    }

    fn check(&self, images: &Tensor) -> Result<usize> {
        let n = check_images(images, self.input())?;
        if images.dtype() != self.dtype() {
            return Err(Error::DTypeMismatch {
                what: "batch of images",
                expected: self.dtype().as_str().into(),
                got: images.dtype().as_str().into(),
            });
        }
        Ok(n)
    }
}

impl Classifier for ZeroPaddedNetwork {
    fn n_classes(&self) -> usize {
        self.n_classes
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn dtype(&self) -> DType {
        match &self.weights {
            Weights::F32(_) => DType::F32,
            Weights::F64(_) => DType::F64,
        }
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let n = self.check(images)?;
        with_program!(&self.weights, program => {
            let passes = forward(program, &images.flatten_all()?.to_vec1()?, false);
            logit_tensor(passes, n, self.n_classes).map(|(logits, _)| logits)
        })
    }

    fn logits_and_input_gradient(
        &self,
        images: &Tensor,
        objective: &Objective<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let n = self.check(images)?;
        with_program!(&self.weights, program => {
            let passes = forward(program, &images.flatten_all()?.to_vec1()?, true);
            let (logits, tapes) = logit_tensor(passes, n, self.n_classes)?;
            let d_logits = logit_gradient(&logits, objective)?.flatten_all()?.to_vec1()?;
            let gradient = backward(program, &d_logits, &tapes);
            Ok((logits, Tensor::from_vec(gradient, images.shape(), &Device::Cpu)?))
        })
    }
}

/// Images in a chunk: one matrix product's worth that stays in a core's cache.
const CHUNK: usize = 32;

/// Logits (row-major) and tape of every chunk, in order.
fn forward<T: Pixel>(program: &Program<T>, images: &[T], record: bool) -> Vec<(Vec<T>, Tape<T>)> {
    let chunks = images.par_chunks(CHUNK * program.input().n_values());
    chunks.map(|chunk| program.forward(chunk, record)).collect()
}

fn backward<T: Pixel>(program: &Program<T>, d_logits: &[T], tapes: &[Tape<T>]) -> Vec<T> {
    let chunks = d_logits.par_chunks(CHUNK * program.n_classes()).zip(tapes);
    let gradients: Vec<Vec<T>> =
        chunks.map(|(d_logits, tape)| program.backward(d_logits, tape)).collect();
    gradients.concat()
}

fn logit_tensor<T: Pixel>(
    passes: Vec<(Vec<T>, Tape<T>)>,
    n: usize,
    n_classes: usize,
) -> Result<(Tensor, Vec<Tape<T>>)> {
    let (logits, tapes): (Vec<Vec<T>>, Vec<Tape<T>>) = passes.into_iter().unzip();
    Ok((Tensor::from_vec(logits.concat(), (n, n_classes), &Device::Cpu)?, tapes))
}
