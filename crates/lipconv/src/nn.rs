//! Layers as candle modules: for a network of one's own inside candle.
//!
//! Each layer follows candle-nn: `FooConfig` with a `Default`, `Foo` with `impl Module`, and a constructor `foo(…, config, vb)`
//! that takes its parameters from a `VarBuilder`. The names of the parameters are the contract of the file that
//! `VarMap::save` writes. Any optimizer of candle's trains them: weights are computed from the parameters in every forward
//! pass, and their gradients are closed-form.
//!
//! Start. A parameter that the `VarBuilder` does not hold yet is drawn from a generator that is seeded by the seed of the layer's
//! configuration and the parameter's full name. Equal seeds so give equal networks, and layers of one network differ.
//!
//! Inference and certificates. [`Materialize::materialize`] turns a layer into [plain layers](crate::PlainLayer) for inputs of one
//! shape, and [`Sequential::network`] a whole network into a [`PlainNetwork`](crate::PlainNetwork): weights by value, with
//! rigorous bounds. Nothing is cached before that. A layer without a plain form is refused by name
//! ([`Error::NoPlainForm`](crate::Error::NoPlainForm)); some of candle's own layers have one.
//!
//! # Example
//! ```
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_nn::{VarBuilder, VarMap};
//! use lipconv::{Activation, ImageShape, nn};
//!
//! # fn main() -> lipconv::Result<()> {
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let config = nn::Conv2dConfig { stride: 2, ..Default::default() };
//! let network = nn::seq()
//!     .add(nn::conv2d(1, 8, 4, config, vb.pp("conv1"))?)
//!     .add(Activation::MaxMin)
//!     .add(nn::Flatten)
//!     .add(nn::linear(8 * 4 * 4, 10, nn::LinearConfig::default(), vb.pp("linear1"))?);
//! let images = Tensor::zeros((2, 1, 8, 8), DType::F32, &Device::Cpu)?;
//! let plain = network.network(ImageShape::new(1, 8, 8), DType::F32)?;
//! assert_eq!(network.forward(&images)?.to_vec2::<f32>()?.len(), 2);
//! assert!(plain.lipschitz_bound()?.value() < 1.0 + 1e-5);
//! # Ok(())
//! # }
//! ```

mod activation;
mod aoc;
mod branches;
mod cayley;
mod complex;
mod conv;
mod fold;
mod foreign;
mod linear;
mod materialize;
mod parameter;
mod pooling;
mod reflector;
mod resampling;
mod root;
mod sandwich;
mod sequential;
mod sll;
mod soc;
mod spectral;

pub use activation::{Abs, Householder, HouseholderConfig, householder};
pub use aoc::{
    AocConfig, AocConv2d, AocConvTranspose2d, Padding, aoc_conv_transpose2d, aoc_conv2d,
};
pub use branches::{Branches, Combination};
pub use conv::{Conv2d, Conv2dConfig, conv2d};
pub use linear::{Linear, LinearConfig, linear};
pub use materialize::Materialize;
pub use pooling::{AveragePool, Centring, NormPool};
pub use resampling::{Downsample, Flatten, Identity, Upsample};
pub use sandwich::{Sandwich, SandwichConfig, sandwich};
pub use sequential::{Sequential, seq};
pub use sll::{Sll, SllConfig, StepRule, sll};
pub use soc::{SocConfig, SocConv2d, soc_conv2d};
pub use spectral::{SpectralConfig, SpectralConv2d, SpectralMethod, spectral_conv2d};
