//! A bound of a Lipschitz constant that knows how far it can be trusted.
//!
//! [`LipschitzBound`] is a finite number >= 0 of one of three kinds. `Exact`: the constant itself. `UpperBound`:
//! proven to be at or above it, rounding included. `Estimate`: near it as far as one knows, proving nothing. Combining
//! bounds gives the weakest kind among them, `UpperBound` at best except for a maximum, and every combination is rounded
//! up, so a rigorous bound stays rigorous.
//!
//! Maps in series multiply, block-diagonal maps take the maximum, summed maps (residual branches) add.

use crate::error::{Error, Result};
use crate::rounding;

/// How far a bound can be trusted, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum BoundKind {
    /// The Lipschitz constant itself.
    Exact,
    /// Proven to be at or above the constant.
    UpperBound,
    /// Close to the constant as far as one knows.
    Estimate,
}

impl std::fmt::Display for BoundKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Exact => "exact",
            Self::UpperBound => "upper bound",
            Self::Estimate => "estimate",
        })
    }
}

/// A finite bound >= 0 of a Lipschitz constant, with its kind.
///
/// ```
/// use projectors::LipschitzBound;
/// let layer = LipschitzBound::upper_bound(1.0000001)?;
/// let activation = LipschitzBound::exact(1.0)?;
/// assert_eq!(layer.in_series(&activation).rigorous(), Some(1.0000001));
/// let guessed = LipschitzBound::estimate(0.9)?;
/// assert_eq!(layer.in_series(&guessed).rigorous(), None);
/// assert!(LipschitzBound::exact(-1.0).is_err());
/// # Ok::<(), projectors::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked", into = "Unchecked"))]
pub struct LipschitzBound {
    value: f64,
    kind: BoundKind,
}

/// The serialised form, checked on the way in.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    value: f64,
    kind: BoundKind,
}

impl LipschitzBound {
    /// The constant of an isometry, of the identity and of an activation such as MaxMin.
    pub const ONE: Self = Self { value: 1.0, kind: BoundKind::Exact };

    /// The constant itself.
    ///
    /// # Errors
    /// [`Error::InvalidBound`] if `value` is negative, infinite or NaN.
    pub fn exact(value: f64) -> Result<Self> {
        Self::new(value, BoundKind::Exact)
    }

    /// A number proven to be at or above the constant.
    ///
    /// # Errors
    /// [`Error::InvalidBound`] if `value` is negative, infinite or NaN.
    pub fn upper_bound(value: f64) -> Result<Self> {
        Self::new(value, BoundKind::UpperBound)
    }

    /// A number near the constant.
    ///
    /// # Errors
    /// [`Error::InvalidBound`] if `value` is negative, infinite or NaN.
    pub fn estimate(value: f64) -> Result<Self> {
        Self::new(value, BoundKind::Estimate)
    }

    fn new(value: f64, kind: BoundKind) -> Result<Self> {
        if value.is_finite() && value >= 0.0 {
            Ok(Self { value: value.abs(), kind })
        } else {
            Err(Error::InvalidBound { value })
        }
    }

    /// The number, whatever its kind.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// How far it can be trusted.
    #[must_use]
    pub fn kind(&self) -> BoundKind {
        self.kind
    }

    /// True unless the bound is an estimate.
    #[must_use]
    pub fn is_rigorous(&self) -> bool {
        self.kind < BoundKind::Estimate
    }

    /// The number if it is proven, `None` for an estimate.
    #[must_use]
    pub fn rigorous(&self) -> Option<f64> {
        self.is_rigorous().then_some(self.value)
    }

    /// The bound of one map after the other: the product, rounded up.
    ///
    /// The constant of a composition may be smaller than the product of the constants, so the result is at best an
    /// upper bound. A product that overflows is the largest finite number and an estimate, which proves nothing.
    #[must_use]
    pub fn in_series(&self, other: &Self) -> Self {
        self.combine(other, rounding::mul_up(self.value, other.value))
    }

    /// The bound of maps side by side on separate inputs and outputs (block diagonal): the maximum.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self { value: self.value.max(other.value), kind: self.kind.max(other.kind) }
    }

    /// The bound of a sum of maps on the same input (a residual branch): the sum, rounded up.
    #[must_use]
    pub fn sum(&self, other: &Self) -> Self {
        self.combine(other, rounding::add_up(self.value, other.value))
    }

    /// A combined value, at best an upper bound; finite in any case.
    fn combine(&self, other: &Self, value: f64) -> Self {
        if value.is_finite() {
            Self { value, kind: self.kind.max(other.kind).max(BoundKind::UpperBound) }
        } else {
            Self { value: f64::MAX, kind: BoundKind::Estimate }
        }
    }
}

impl std::fmt::Display for LipschitzBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.value, self.kind)
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for LipschitzBound {
    type Error = Error;

    fn try_from(raw: Unchecked) -> Result<Self> {
        Self::new(raw.value, raw.kind)
    }
}

#[cfg(feature = "serde")]
impl From<LipschitzBound> for Unchecked {
    fn from(bound: LipschitzBound) -> Self {
        Self { value: bound.value, kind: bound.kind }
    }
}
