//! Every layer in candle's own operations: what runs on a GPU, and runs anywhere.
//!
//! On the CPU the rest of this crate computes the same functions faster, and the tests hold the two against each other on every
//! device at hand. Nothing here copies to the host: what a caller must know of a result, such as the defect of a polar
//! factor, is a tensor too. Products are candle's matrix products (cuBLAS on CUDA); convolutions are products with the
//! shifted views of the padded image, because candle's own convolution has a slow adjoint.

#[cfg(feature = "gan")]
mod batch_norm;
mod conv;
#[cfg(feature = "gan")]
mod conv_transpose;
mod polar;
mod weight;

#[cfg(feature = "gan")]
pub use batch_norm::batch_norm;
pub use conv::cyclic_conv;
pub(crate) use conv::{adjoint, adjoint_weight, reversed, turned};
#[cfg(feature = "gan")]
pub use conv_transpose::conv_transpose;
pub(crate) use polar::n_steps;
pub use polar::{Factor, polar};
pub use weight::weight;
