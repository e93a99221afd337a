//! What can go wrong in block convolution algebra.
//!
//! Every variant names the argument, its shape or value, and what was expected, so that a caller can match on the
//! failure and a person can act on the message.

use std::fmt;

use crate::components::Label1;

/// The error of every fallible function of this crate.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array without elements where at least one tap and one channel are needed.
    #[error("{what} is empty: its shape is {}, every extent must be at least 1", Extents(.shape))]
    Empty {
        /// The argument.
        what: &'static str,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A matrix that must be square is not.
    #[error("{what} must have square blocks, got {rows} x {cols}")]
    NonSquareBlocks {
        /// The argument.
        what: &'static str,
        /// Rows of one block.
        rows: usize,
        /// Columns of one block.
        cols: usize,
    },
    /// An array whose shape does not fit the others.
    #[error("{what} has shape {}, expected {}", Extents(.got), Extents(.expected))]
    ShapeMismatch {
        /// The argument.
        what: &'static str,
        /// The shape that would fit.
        expected: Vec<usize>,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// A number of matrices from which no square kernel can be assembled.
    #[error("{what}: {count} given, but a k x k kernel needs {needed}")]
    FactorCount {
        /// The argument.
        what: &'static str,
        /// How many matrices were given.
        count: usize,
        /// The admissible numbers, in words.
        needed: &'static str,
    },
    /// NaN or an infinity.
    #[error("{what} contains NaN or an infinity")]
    NonFinite {
        /// The argument.
        what: &'static str,
    },
    /// A cyclic convolution whose kernel would wrap onto itself.
    #[error("a kernel of size {} does not fit into an image of size {}: a cyclic convolution needs the image at least as large as the kernel", Extents(.kernel), Extents(.image))]
    KernelExceedsImage {
        /// Spatial extents of the kernel.
        kernel: Vec<usize>,
        /// Spatial extents of the image or signal.
        image: Vec<usize>,
    },
    /// A kernel that was expected to be orthogonal.
    #[error(
        "the kernel is not orthogonal: its autocorrelation defect is {defect:.3e}, allowed is {tolerance:.3e}"
    )]
    NotOrthogonal {
        /// The measured defect, see [`Kernel2::orthogonality_defect`](crate::Kernel2::orthogonality_defect).
        defect: f64,
        /// The largest defect that would have been accepted.
        tolerance: f64,
    },
    /// A matrix that is not a product of two half-rank reflections.
    #[error(
        "the {rows} x {columns} matrix has {reason}, expected a rotation of an even number of coordinates"
    )]
    NoRotation {
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
        /// What it has instead.
        reason: &'static str,
    },
    /// A degree of a determinant that no orthogonal kernel of this size has.
    #[error(
        "degree {degree} is outside 0..={}, the degrees of orthogonal kernels of size {k} with {n} channels",
        (k - 1) * n
    )]
    DegreeOutOfRange {
        /// The degree asked for.
        degree: usize,
        /// Size of the kernel.
        k: usize,
        /// Rows and columns of its blocks.
        n: usize,
    },
    /// Two kernels that lie in different components.
    #[error(
        "the kernels have labels {left} and {right}, expected equal (sign, degree): no path of orthogonal kernels joins them"
    )]
    LabelsDiffer {
        /// Label of the first kernel.
        left: Label1,
        /// Label of the second kernel.
        right: Label1,
    },
    /// A quantity too large for f64.
    #[error("{what} exceeds the range of f64")]
    Overflow {
        /// The quantity.
        what: &'static str,
    },
    /// One matrix of a parametrisation could not be orthonormalised or projected on.
    #[error("parameter matrix {index} of {count} ({role}): {source}")]
    Parameter {
        /// Position on the first axis of the parameters.
        index: usize,
        /// Extent of that axis.
        count: usize,
        /// What the matrix parametrises.
        role: &'static str,
        /// The reason.
        source: projectors::Error,
    },
    /// A failure of the layer below that concerns no single parameter.
    #[error(transparent)]
    Projectors(#[from] projectors::Error),
    /// A LAPACK routine that reported failure.
    #[error("{routine} failed at frequency ({row}, {col}): {message}")]
    Lapack {
        /// What was computed.
        routine: &'static str,
        /// Vertical frequency index.
        row: usize,
        /// Horizontal frequency index.
        col: usize,
        /// The routine's own words.
        message: String,
    },
}

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A shape in words: `2 x 3 x 4`.
struct Extents<'a>(&'a [usize]);

impl fmt::Display for Extents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "()");
        }
        for (i, extent) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { " x " };
            write!(f, "{separator}{extent}")?;
        }
        Ok(())
    }
}
