#![doc = include_str!("../README.md")]
// a library returns values and calls back: it neither prints nor reads a clock
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_types)]

pub mod bjorck;
mod dense;
mod eigen;
mod error;
pub mod gemm;
pub mod grassmann;
mod haar;
mod lanczos;
mod lapack;
pub mod lipschitz;
pub mod norms;
pub mod polar;
pub mod projector;
pub mod range;
mod real;
pub mod rounding;
mod syevd;
pub mod symmetric;
pub mod tolerance;
mod triangular;
pub mod unit_ball;

pub use error::{Error, Result};
pub use haar::{haar_frame, haar_orthogonal};
pub use lipschitz::{BoundKind, LipschitzBound};
pub use projector::Projector;
pub use real::Real;
