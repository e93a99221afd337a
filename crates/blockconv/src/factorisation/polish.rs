//! Factors of a kernel improved one at a time, by least squares.
//!
//! Definition. With all factors but B(P) = [P  I-P] fixed, the kernel is L □ B(P) □ R, and as L and R are unitary on the
//! circle the squared distance to a kernel A is ‖C - B(P)‖² for C(z) = L(z)* A(z) R(z)*. Taps other than 0 and 1 of C do
//! not depend on P, so the best P of a given rank minimises ‖C[0] - P‖² + ‖C[1] - (I - P)‖²: it is the projector
//! nearest to the symmetric part of (C[0] + I - C[1]) / 2. The best H is the polar factor of A R*. Each update
//! lowers the distance.
//!
//! Why. Removing factors from the end leaves kernels that are orthogonal to rounding, but where two taps share rows of
//! length σ only, their row spaces may then meet at eps / σ from a right angle, and the next factor cannot fit both. The
//! remedy is a change of the earlier projectors by about as much, which a sweep over all of them finds.
//!
//! Cost. About k³ / 6 products of n x n matrices a sweep. None is made when the factors fit to rounding.

use ndarray::{Array2, Array3, Axis, s};
use projectors::grassmann::nearest_projector_of_rank;
use projectors::polar::polar;
use projectors::{Projector, Real, gemm};

use super::{Factors1, Fit, remove_last_factor};
use crate::error::Result;
use crate::kernel::Kernel1;

/// Sweeps after which the factors are taken as they are.
const MOST_SWEEPS: usize = 12;

/// Sweeps over the factors until they fit to `enough` or stop improving; keeps the best.
pub(super) fn polish<T: Real>(
    kernel: &Kernel1<T>,
    mut best: Fit<T>,
    enough: f64,
) -> Result<Factors1<T>> {
    for _ in 0..MOST_SWEEPS {
        if best.error <= enough {
            break;
        }
        let next = Fit::new(kernel, sweep(kernel, &best.factors)?)?;
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    Ok(best.factors)
}

fn sweep<T: Real>(kernel: &Kernel1<T>, factors: &Factors1<T>) -> Result<Factors1<T>> {
    let mut projectors = factors.projectors.clone();
    let mut rest = on_the_left(factors.h.t().to_owned(), &kernel.taps().to_owned());
    for j in 0..projectors.len() {
        let c = without_factors(rest.clone(), &projectors[j + 1..]);
        projectors[j] = best_projector(&c, projectors[j].rank())?;
        rest = remove_first_factor(&rest, &projectors[j]);
    }
    let last = without_factors(kernel.taps().to_owned(), &projectors);
    let h = polar(last.index_axis(Axis(0), 0))?.into_factor();
    Ok(Factors1 { h, projectors })
}

/// A □ B(P_m)* □ … □ B(P_1)*: the taps from 0 on that are complete.
fn without_factors<T: Real>(taps: Array3<T>, projectors: &[Projector<T>]) -> Array3<T> {
    projectors.iter().rev().fold(taps, |taps, p| remove_last_factor(taps.view(), p.matrix()))
}

/// B(P)* □ A: A'[i] = P X[i] + (I-P) X[i+1].
fn remove_first_factor<T: Real>(taps: &Array3<T>, p: &Projector<T>) -> Array3<T> {
    let tail = taps.slice(s![1.., .., ..]);
    let difference = &taps.slice(s![..-1, .., ..]) - &tail;
    on_the_left(p.matrix().to_owned(), &difference) + tail
}

fn on_the_left<T: Real>(matrix: Array2<T>, taps: &Array3<T>) -> Array3<T> {
    let mut product = Array3::zeros(taps.raw_dim());
    for (mut to, tap) in product.outer_iter_mut().zip(taps.outer_iter()) {
        gemm::matmul_into(T::one(), matrix.view(), tap, T::zero(), to.view_mut());
    }
    product
}

fn best_projector<T: Real>(c: &Array3<T>, rank: usize) -> Result<Projector<T>> {
    let mut middle = &c.index_axis(Axis(0), 0) - &c.index_axis(Axis(0), 1);
    middle.diag_mut().mapv_inplace(|x| x + T::one());
    let symmetric = (&middle + &middle.t()).mapv(|x| x * T::of(0.25));
    Ok(nearest_projector_of_rank(symmetric.view(), rank)?)
}
