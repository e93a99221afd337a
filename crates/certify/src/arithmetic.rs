//! The arithmetics in which a network may be executed, and the constants of their rounding model.
//!
//! Model, for every elementary operation of a dot product: `fl(x ∘ y) = (x ∘ y)(1 + δ) + η` with |δ| ≤ u and
//! |η| at most the smallest positive normal number. It covers round-to-nearest, fused multiply-add,
//! every order of summation, gradual underflow and results flushed to zero. In `Tf32` alone both factors of a product may lose a part f
//! each first. It does not cover factors in f16 or bf16, nor convolution by FFT or Winograd transforms: switch those off.
//!
//! | arithmetic           | stored in | f of factors | u of products and sums | s of storing a layer's output |
//! |----------------------|-----------|--------------|------------------------|-------------------------------|
//! | `Tf32`               | f32       | 2^-10        | 2^-22                  | 0                             |
//! | `F32`                | f32       | 0            | 2^-24                  | 0                             |
//! | `F32Blocked`         | f32       | 0            | 2^-24                  | 0                             |
//! | `F32AccumulateF64`   | f32       | 0            | 2^-53                  | 2^-24                         |
//! | `F64`                | f64       | 0            | 2^-53                  | 0                             |
//!
//! They differ in q, the most roundings that a product passes through in a sum of n products and a bias.
//! In any order of summation q = n + 1. In `F32Blocked` blocks of at most 128 products are added up in any order, and then one after
//! another: `q = min(n, 128 + ⌈n / 128⌉) + 1` ([`lipconv::roundings_in_blocks`]). This is how the CPU engine of lipconv executes a network
//! in f32 ([`PlainNetwork::sums_in_blocks`]); other programs, PyTorch among them, promise no more than `F32`.
//!
//! In `F32AccumulateF64` a product of two stored numbers is exact in f64 (24 + 24 ≤ 53 bits, and its
//! exponent is in range); the sum is rounded to f32 once, when a layer's output is stored.
//!
//! `Tf32` is what PyTorch runs on a GPU with `torch.backends.cuda.matmul.allow_tf32` or `torch.backends.cudnn.allow_tf32`, the second of which is on
//! by default. A factor keeps 11 significant bits: f is 2^-11 where it is rounded and 2^-10 where its last bits are cut off, which is
//! what a tensor core does with numbers in f32. Products are exact then. A tensor core adds them up in blocks, in which each addend loses its bits below the last place
//! of the largest one, and cuts the result off: at most (k + 1) 2^-23 of the sum of absolute values for a block of k products, which u = 2^-22 for each
//! covers (measured by Fasi, Higham, Mikaitis and Pranesh 2021, PeerJ Computer Science 7:e330; NVIDIA promises no more than single precision).
//! Factors are taken for zero or normal numbers: what is lost of a subnormal one, at most 2^-126 times the other factor, is not in the bound.
//!
//! `F64` is also the way to execute weights that are stored in f32: converting them is exact.

use candle_core::DType;
use lipconv::PlainNetwork;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the network is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// As `F32`, with the factors of products cut to 11 significant bits: a GPU's tensor cores.
    Tf32,
    /// Every product, sum and stored value in f32, in any order of summation.
    F32,
    /// The same with blocked sums: blocks of at most 128 products in any order, then one block after another.
    F32Blocked,
    /// Values stored in f32, dot products accumulated in f64 and rounded to f32 once.
    F32AccumulateF64,
    /// Every product, sum and stored value in f64, in any order of summation.
    F64,
}

impl Arithmetic {
    /// All of them, cheapest first.
    pub const ALL: [Self; 5] =
        [Self::Tf32, Self::F32, Self::F32Blocked, Self::F32AccumulateF64, Self::F64];

    /// Its name in reports and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tf32 => "tf32",
            Self::F32 => "f32",
            Self::F32Blocked => "f32_blocked",
            Self::F32AccumulateF64 => "f32_accumulate_f64",
            Self::F64 => "f64",
        }
    }

    /// Whether it executes weights stored in `dtype` without changing them.
    #[must_use]
    pub fn holds(self, dtype: DType) -> bool {
        matches!((self, dtype), (_, DType::F32) | (Self::F64, DType::F64))
    }

    /// The plain arithmetic of a tensor library that computes in `dtype`.
    ///
    /// # Errors
    /// [`Error::DTypeMismatch`] for anything but f32 and f64.
    pub fn of_dtype(dtype: DType) -> Result<Self> {
        match dtype {
            DType::F32 => Ok(Self::F32),
            DType::F64 => Ok(Self::F64),
            other => Err(Error::DTypeMismatch {
                what: "network",
                expected: "f32 or f64".into(),
                got: other.as_str().into(),
            }),
        }
    }

    /// That in which [`PlainNetwork::forward`] executes `network`.
    ///
    /// # Errors
    /// [`Error::DTypeMismatch`] for weights that are neither f32 nor f64.
    pub fn of_network(network: &PlainNetwork) -> Result<Self> {
        match Self::of_dtype(network.dtype())? {
            Self::F32 if network.sums_in_blocks() => Ok(Self::F32Blocked),
            plain => Ok(plain),
        }
    }

    pub(crate) fn check_holds(self, dtype: DType) -> Result<()> {
        Self::of_dtype(dtype)?;
        if self.holds(dtype) {
            return Ok(());
        }
        Err(Error::UnsupportedArithmetic {
            arithmetic: self.name(),
            stored: dtype.as_str().into(),
            expected: "f64 arithmetic, or a network converted to f32 first",
        })
    }

    /// Element type of its input and output tensors.
    #[must_use]
    pub const fn storage(self) -> DType {
        match self {
            Self::Tf32 | Self::F32 | Self::F32Blocked | Self::F32AccumulateF64 => DType::F32,
            Self::F64 => DType::F64,
        }
    }

    /// f: what each factor of a product may lose first.
    pub(crate) const fn factor_roundoff(self) -> f64 {
        match self {
            Self::Tf32 => TF32_FACTOR,
            Self::F32 | Self::F32Blocked | Self::F32AccumulateF64 | Self::F64 => 0.0,
        }
    }

    /// Unit roundoff u of products and sums.
    pub(crate) const fn unit_roundoff(self) -> f64 {
        match self {
            Self::Tf32 => 4.0 * F32_UNIT,
            Self::F32 | Self::F32Blocked => F32_UNIT,
            Self::F32AccumulateF64 | Self::F64 => f64::EPSILON / 2.0,
        }
    }

    /// q: most roundings that a product passes through in a dot product of n products and a bias.
    pub(crate) const fn roundings(self, n: usize) -> usize {
        match self {
            Self::F32Blocked => lipconv::roundings_in_blocks(n),
            Self::Tf32 | Self::F32 | Self::F32AccumulateF64 | Self::F64 => n + 1,
        }
    }

    /// Unit roundoff s of storing the output of a layer, beyond that of the sum itself.
    pub(crate) const fn storage_roundoff(self) -> f64 {
        match self {
            Self::F32AccumulateF64 => F32_UNIT,
            Self::Tf32 | Self::F32 | Self::F32Blocked | Self::F64 => 0.0,
        }
    }

    /// Bound η of what one underflowing operation loses.
    pub(crate) fn underflow(self) -> f64 {
        match self {
            Self::F64 => f64::MIN_POSITIVE,
            _ => f64::from(f32::MIN_POSITIVE),
        }
    }

    /// The largest finite number of the narrowest format that a result passes through.
    pub(crate) fn largest(self) -> f64 {
        match self {
            Self::F64 => f64::MAX,
            _ => f64::from(f32::MAX),
        }
    }
}

/// 2^-24.
const F32_UNIT: f64 = (f32::EPSILON / 2.0) as f64;
/// 2^-10.
const TF32_FACTOR: f64 = 1.0 / 1024.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_f64_holds_weights_stored_in_f64() {
        for arithmetic in Arithmetic::ALL {
            assert!(arithmetic.holds(DType::F32));
            assert_eq!(arithmetic.holds(DType::F64), arithmetic == Arithmetic::F64);
            assert!(!arithmetic.holds(DType::BF16));
        }
        assert!(Arithmetic::of_dtype(DType::U8).is_err());
    }

    #[test]
    fn constants_are_powers_of_two() {
        assert_eq!(Arithmetic::F32.unit_roundoff(), 2f64.powi(-24));
        assert_eq!(Arithmetic::F64.unit_roundoff(), 2f64.powi(-53));
        assert_eq!(Arithmetic::F32AccumulateF64.storage_roundoff(), 2f64.powi(-24));
        assert_eq!(Arithmetic::F32.underflow(), 2f64.powi(-126));
    }
}
