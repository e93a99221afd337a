//! The error of every fallible function of this crate.
//!
//! A variant carries the data a caller can act on: the name of the argument, what was measured and what was
//! allowed. Bad input is an error, never a panic.

/// What can go wrong in this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An entry is NaN or infinite.
    #[error("{what} has the value {value} at row {row}, column {column}, expected a finite number")]
    NonFinite {
        /// Name of the matrix.
        what: &'static str,
        /// Row of the first such entry.
        row: usize,
        /// Column of the first such entry.
        column: usize,
        /// The entry.
        value: f64,
    },
    /// A square matrix was expected.
    #[error("{what} is {rows} x {columns}, expected a square matrix")]
    NotSquare {
        /// Name of the matrix.
        what: &'static str,
        /// Number of rows.
        rows: usize,
        /// Number of columns.
        columns: usize,
    },
    /// A matrix has another shape than its partner demands.
    #[error("{what} is {} x {}, expected {} x {}", got.0, got.1, expected.0, expected.1)]
    ShapeMismatch {
        /// Name of the matrix.
        what: &'static str,
        /// The shape demanded.
        expected: (usize, usize),
        /// The shape found.
        got: (usize, usize),
    },
    /// A matrix without entries where at least one is needed.
    #[error("{what} is {rows} x {columns}, expected at least one row and one column")]
    Empty {
        /// Name of the matrix.
        what: &'static str,
        /// Number of rows.
        rows: usize,
        /// Number of columns.
        columns: usize,
    },
    /// A matrix that is not symmetric and idempotent.
    #[error(
        "matrix is not a symmetric projector: |P - P^T|_F = {asymmetry:.3e} and |P^2 - P|_F = {idempotence:.3e}, \
         expected at most {tolerance:.3e}"
    )]
    NotAProjector {
        /// Frobenius norm of `P - P^T`.
        asymmetry: f64,
        /// Frobenius norm of `P^2 - P`.
        idempotence: f64,
        /// What was allowed for each.
        tolerance: f64,
    },
    /// A matrix that is not symmetric.
    #[error(
        "{what} is not symmetric: |A - A^T|_F = {asymmetry:.3e}, expected at most {tolerance:.3e}"
    )]
    NotSymmetric {
        /// Name of the matrix.
        what: &'static str,
        /// Frobenius norm of `A - A^T`.
        asymmetry: f64,
        /// What was allowed.
        tolerance: f64,
    },
    /// Columns that are not orthonormal.
    #[error(
        "columns of {what} are not orthonormal: |B^T B - I|_F = {defect:.3e}, expected at most {tolerance:.3e}"
    )]
    NotOrthonormal {
        /// Name of the matrix.
        what: &'static str,
        /// Frobenius norm of `B^T B - I`.
        defect: f64,
        /// What was allowed.
        tolerance: f64,
    },
    /// A matrix whose rank is too small for the result to exist.
    #[error("{what} has numerical rank {rank}, expected full rank {expected}")]
    RankDeficient {
        /// Name of the matrix.
        what: &'static str,
        /// Number of singular values above rounding.
        rank: usize,
        /// The rank demanded.
        expected: usize,
    },
    /// A rank outside of what the size allows.
    #[error("rank {rank} is outside 0..={n}, the ranks of projectors on a space of dimension {n}")]
    RankOutOfRange {
        /// The rank asked for.
        rank: usize,
        /// The dimension.
        n: usize,
    },
    /// Two projectors that lie in different components.
    #[error(
        "projectors have ranks {left} and {right}, expected equal ranks: no path joins two components"
    )]
    RanksDiffer {
        /// Rank of the first projector.
        left: usize,
        /// Rank of the second projector.
        right: usize,
    },
    /// An iteration that used up its steps.
    #[error(
        "{method} left a residual of {residual:.3e} after {iterations} iterations, expected at most {tolerance:.3e}"
    )]
    NotConverged {
        /// Name of the iteration.
        method: &'static str,
        /// Steps taken.
        iterations: usize,
        /// The residual measured at the end.
        residual: f64,
        /// The residual demanded.
        tolerance: f64,
    },
    /// A setting outside its domain.
    #[error("{name} = {value}, expected {expected}")]
    InvalidSetting {
        /// Name of the setting.
        name: &'static str,
        /// The value given.
        value: f64,
        /// Its domain, in words.
        expected: &'static str,
    },
    /// A Lipschitz bound that is not a finite number at or above zero.
    #[error("lipschitz bound is {value}, expected a finite number at or above zero")]
    InvalidBound {
        /// The value given.
        value: f64,
    },
    /// A LAPACK routine that failed on finite input.
    #[error("lapack {routine} failed: {reason}")]
    Lapack {
        /// The operation.
        routine: &'static str,
        /// What LAPACK said.
        reason: String,
    },
}

impl Error {
    /// Wraps a failure of the LAPACK layer.
    pub(crate) fn lapack(
        routine: &'static str,
    ) -> impl FnOnce(ndarray_linalg::error::LinalgError) -> Self {
        move |source| Self::Lapack { routine, reason: source.to_string() }
    }
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;
