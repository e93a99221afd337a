//! Provably 1-Lipschitz, gradient-norm-preserving convolutional networks on candle.
//!
//! A [`NetworkSpec`] is a network as data; a [`Network`] gives it free parameters; [`Network::materialize`]
//! turns those into a [`PlainNetwork`], an immutable list of plain layers with rigorous Lipschitz bounds,
//! which is what inference, certification, attacks and export use. A [`Trainer`] trains. For a network of one's own inside
//! candle the layers are modules in [`nn`].
//!
//! # Example
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use lipconv::{ImageShape, Methods, Network, NetworkSpec};
//!
//! # fn main() -> Result<(), lipconv::Error> {
//! let spec = NetworkSpec::small(ImageShape::new(1, 28, 28), 10, Methods::BCOP);
//! let network = Network::new(&spec, DType::F64, &Device::Cpu, 0)?;
//! let plain = network.materialize()?;
//! let images = Tensor::zeros((2, 1, 28, 28), DType::F64, &Device::Cpu)?;
//! assert_eq!(plain.forward(&images)?.dims(), [2, 10]);
//! // rigorous: every layer's bound accounts for rounding
//! assert!(plain.lipschitz_bound()?.value() < 1.0 + 1e-9);
//! // an image of another size is an error that names the shapes
//! assert!(plain.forward(&images.narrow(3, 0, 14)?).is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # What this crate does not do
//! It knows no data sets, prints nothing, and reads and writes no files but checkpoints. Certificates and
//! attacks are in `certify`.
// a library returns values and calls back: it neither prints nor reads a clock
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_types)]

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod activation;
mod bounds;
pub mod checkpoint;
mod cpu_op;
mod element;
mod engine;
mod error;
mod finite;
#[cfg(feature = "gan")]
pub mod gan;
#[cfg(feature = "gan")]
pub mod generator;
mod inference;
pub mod json;
mod kernels;
pub mod loss;
mod methods;
mod network;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod output;
mod plain;
mod plain_file;
mod shape;
mod spec;
mod store;
pub mod train;
pub mod wide;

pub use activation::Activation;
pub use element::Element;
#[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
pub use engine::cuda;
pub use error::{Error, Result};
pub use inference::{Recording, roundings_in_blocks};
pub use loss::{CrossEntropy, Loss, TrainingRadius};
pub use methods::{ConvMethod, LinearMethod, Method, Sizes, Weight};
pub use network::Network;
pub use optim::{AdamConfig, Averaging, NAdamConfig, Optimizer, RmsPropConfig, Schedule};
pub use plain::{
    Boundary, CyclicConv, Dense, Node, PaddedConv, PlainLayer, PlainNetwork, Unrolled, Window,
};
pub use projectors::LipschitzBound;
pub use shape::{ImageShape, SignalShape};
pub use spec::{LayerSpec, Methods, ModuleKind, NetworkSpec};
pub use train::{
    Batch, BatchSource, EpochReport, InMemory, Observer, Outcome, ResidentImages, Sample,
    StepReport, TrainConfig, Trainer,
};
pub use wide::WideNetwork;
