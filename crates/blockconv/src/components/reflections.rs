//! Rotations as products of two half-rank reflections: what (I - 2P)(I - 2Q) reaches.
//!
//! Theorem. For even n the products (I - 2P)(I - 2Q) of projectors of rank n/2 are exactly SO(n).
//!
//! Proof. det (I - 2P) = (-1)^(n/2), so a product has determinant 1. Conversely R in SO(n) is, in some orthonormal basis, a sum of
//! rotations of planes by θ and of eigenvalues 1 and -1; there is an even number of -1 because det R = 1, hence of 1, and pairs of
//! them are planes with θ = 0 and π. In a plane with basis (u, w), R u = cos θ u + sin θ w, the rotation is the product of two
//! reflections with one eigenvalue -1 each: I - 2 q qᵗ with q = w after I - 2 p pᵗ with p = cos(θ/2) w - sin(θ/2) u. The p of the n/2
//! planes span the range of P, the q that of Q.
//!
//! Consequence. A parametrisation of the 1 x 1 factor of a kernel by (I - 2P)(I - 2Q), as AOC's publication has it, reaches one of the
//! two components of O(n); a free orthogonal factor H reaches both.
//!
//! Method. If u is an eigenvector of (R + Rᵗ) / 2, the plane of u and R u is invariant. Planes are split off in the order of
//! growing |cos θ|, until all that is left is ±1 to √eps.
//!
//! Guarantee. |(I - 2P)(I - 2Q) - R| is of rounding size unless R has small angles (or angles near π) that √eps does not resolve, and
//! √eps in any case. Cost: n / 2 eigendecompositions.
//!
//! Errors. [`Error::NotOrthogonal`], [`Error::NoRotation`] for an odd n or determinant -1.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use ndarray_linalg::{Eigh, UPLO};
use projectors::{Projector, gemm};

use super::rotation::determinant_of_orthogonal;
use crate::error::{Error, Result};

/// Largest |RᵗR - I| of a matrix that counts as orthogonal.
const TOLERANCE: f64 = 1e-10;
/// Sines below this are those of eigenvalues ±1.
const SMALL_SINE: f64 = 1.5e-8;

/// P and Q of rank n/2 with (I - 2P)(I - 2Q) = R.
///
/// # Errors
/// See the module.
///
/// ```
/// use blockconv::components::reflections;
/// // minus the identity of the plane: reflections in two perpendicular lines
/// let (p, q) = reflections(ndarray::array![[-1.0, 0.0], [0.0, -1.0]].view())?;
/// assert_eq!((p.rank(), q.rank()), (1, 1));
/// // one reflection is no rotation
/// assert!(reflections(ndarray::array![[1.0, 0.0], [0.0, -1.0]].view()).is_err());
/// # Ok::<(), blockconv::Error>(())
/// ```
pub fn reflections(r: ArrayView2<'_, f64>) -> Result<(Projector<f64>, Projector<f64>)> {
    check_rotation(r)?;
    let n = r.nrows();
    let mut basis = Array2::eye(n);
    let (mut ps, mut qs) = (Vec::new(), Vec::new());
    let mut add = |u: Array1<f64>, w: Array1<f64>, angle: f64| {
        let (sin, cos) = (angle / 2.0).sin_cos();
        ps.push(&w * cos - &u * sin);
        qs.push(w);
    };
    while basis.ncols() > 0 {
        let inner = basis.t().dot(&r).dot(&basis);
        let (cosines, vectors) = eigen(&inner)?;
        let place =
            (0..cosines.len()).min_by(|&a, &b| cosines[a].abs().total_cmp(&cosines[b].abs()));
        let place = place.expect("a basis that is not empty");
        let u = vectors.column(place).to_owned();
        let image = inner.dot(&u);
        let across = &image - &(&u * u.dot(&image));
        let sine = across.dot(&across).sqrt();
        if sine < SMALL_SINE {
            // cosines ascend: those of -1 first, an even number of each
            let vectors = basis.dot(&vectors);
            for pair in 0..cosines.len() / 2 {
                let angle = if cosines[2 * pair] < 0.0 { std::f64::consts::PI } else { 0.0 };
                let column = |index: usize| vectors.column(index).to_owned();
                add(column(2 * pair), column(2 * pair + 1), angle);
            }
            break;
        }
        let w = across / sine;
        add(basis.dot(&u), basis.dot(&w), sine.atan2(u.dot(&image)));
        basis = basis.dot(&complement(&u, &w)?);
    }
    Ok((projector(&ps, n)?, projector(&qs, n)?))
}

fn check_rotation(r: ArrayView2<'_, f64>) -> Result<()> {
    let (rows, columns) = r.dim();
    if rows != columns || rows == 0 || !rows.is_multiple_of(2) {
        return Err(Error::NoRotation {
            rows,
            columns,
            reason: "no even number of rows and columns",
        });
    }
    let defect = r.t().dot(&r) - Array2::<f64>::eye(rows);
    let defect = defect.iter().map(|x| x * x).sum::<f64>().sqrt();
    if defect.is_nan() || defect > TOLERANCE {
        return Err(Error::NotOrthogonal { defect, tolerance: TOLERANCE });
    }
    if determinant_of_orthogonal(r.to_owned()) < 0.0 {
        return Err(Error::NoRotation { rows, columns, reason: "determinant -1" });
    }
    Ok(())
}

/// Eigenvalues in ascending order and eigenvectors of the symmetric part.
fn eigen(matrix: &Array2<f64>) -> Result<(Array1<f64>, Array2<f64>)> {
    gemm::single_threaded_blas();
    let symmetric = (matrix + &matrix.t()) / 2.0;
    symmetric.eigh(UPLO::Lower).map_err(|error| Error::Lapack {
        routine: "eigenvalues",
        row: 0,
        col: 0,
        message: error.to_string(),
    })
}

/// An orthonormal basis of what is perpendicular to u and w: the eigenvectors of their projector with the eigenvalue 0.
fn complement(u: &Array1<f64>, w: &Array1<f64>) -> Result<Array2<f64>> {
    let outer = |x: &Array1<f64>| {
        let column = x.view().insert_axis(Axis(1));
        column.dot(&column.t())
    };
    let (_, vectors) = eigen(&(outer(u) + outer(w)))?;
    Ok(vectors.slice(s![.., ..u.len() - 2]).to_owned())
}

fn projector(vectors: &[Array1<f64>], n: usize) -> Result<Projector<f64>> {
    let basis = Array2::from_shape_fn((n, vectors.len()), |(i, j)| vectors[j][i]);
    Ok(Projector::from_range(basis.view())?)
}
