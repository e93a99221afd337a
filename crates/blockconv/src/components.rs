//! Connected components of orthogonal kernels: labels from the determinant, kernels of every label, paths.
//!
//! Definition. For an orthogonal n x n block kernel let A(z) = Σ `X[i]` zⁱ (1-D) or A(y, z) = Σ `X[i, j]` yⁱ zʲ (2-D), unitary
//! for |y| = |z| = 1. Then det A is a polynomial of modulus 1 on the torus, and such a polynomial is a monomial:
//!
//! ```text
//! det A(z) = sign z^d,   0 <= d <= (k-1) n          det A(y, z) = sign y^a z^b,   0 <= a, b <= (k-1) n
//! ```
//!
//! with sign = det A(1) = ±1 for real kernels. (The adjugate gives A(z)⁻¹ = A(z)* = Σ `X[i]ᵗ` z^-i, so 1/det A is a Laurent
//! polynomial too, and only monomials are units among those.) The degrees are winding numbers of det A on circles.
//!
//! Theorem 1. The label ([`Sign`], d) does not change along a path of orthogonal kernels: it is continuous and discrete.
//! All 2(k-1)n + 2 labels occur ([`representative_1d`]), and two kernels of one label are joined by a path ([`path`]). So
//! the labels are the components. For factors H, P_j of equation (4), sign = det H and d = Σ (n - rank P_j): the rank
//! of a single projector can change along a path, their sum cannot.
//!
//! Theorem 2. For k x k kernels in 2-D the labels ([`Sign`], a, b) give at least 2((k-1)n + 1)² components, 2(n+1)² for k = 2;
//! all occur ([`representative_2d`]). Kernels of one label need not be joined by a path.
//!
//! BCOP. It fixes every rank to n/2 (integer division), and with it a = b = (k-1)(n - n/2): one label for each sign.
//!
//! Errors. [`Error::DegreeOutOfRange`](crate::Error::DegreeOutOfRange) for labels that do not exist,
//! [`Error::LabelsDiffer`](crate::Error::LabelsDiffer) for paths that do not exist; [`Error::NotOrthogonal`](crate::Error::NotOrthogonal) and
//! [`Error::NonSquareBlocks`](crate::Error::NonSquareBlocks) for kernels without a label.
//!
//! Source. Li et al., section 3 and appendix, Theorems 1 and 2. The paper counts components by ranks; the determinant
//! finds them without factors.

mod label;
mod path;
mod reflections;
mod representatives;
mod rotation;
mod winding;

pub use label::{Label1, Label2, Sign, labels_1d, labels_2d};
pub use path::{Path, path};
pub use reflections::reflections;
pub use representatives::{random_1d, random_2d, representative_1d, representative_2d};
pub(crate) use winding::check_orthogonal2;
pub use winding::{Measured, label_1d, label_2d, measure_1d, measure_2d};
