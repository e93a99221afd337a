//! AOL: almost orthogonal layers, a kernel whose channels are divided by a bound from its autocorrelation.
//!
//! Definition. With K the parameter and C_τ = Σ_a K_aᵗ K_{a+τ} the correlation of the kernel with itself, (2k-1)² taps of
//! c_in x c_in, let D_i = Σ_{j,τ} |C_τ|_ij. The weight is K with input channel i divided by √D_i. Where c_out < c_in, the same for
//! the output channels with Σ_a K_a K_{a+τ}ᵗ. A channel with D_i ≤ 1e-30 counts as zero and stays so.
//!
//! Guarantee. With J the operator of K, D - JᵗJ is symmetric and diagonally dominant: in row i the entries of JᵗJ are sums of
//! entries (C_τ)_ij, whose absolute values add up to at most D_i. So JᵗJ <= D and ‖J D^(-1/2)‖ <= 1, for every image size
//! and with zeros for padding, where the operator is a compression of that of a larger image. The computed quotient has norm at
//! most 1 up to rounding, so that it is frozen as it is. It is orthogonal only where C is diagonal.
//!
//! Shapes. Parameter and weight OIHW; the parameter starts as RKO's.
//!
//! Pullback. With G the gradient in the weight and r_i = D_i^(-1/2), the gradient in D_i is δ_i = -½ r_i³ Σ G K over
//! channel i, and K_a has the gradient G_a r + Σ_τ K_{a+τ} S_τᵗ with (S_τ)_ij = (δ_i + δ_j) sgn (C_τ)_ij. At a kink the
//! slope counts as 0.
//!
//! Cost. k⁴ / 2 products c_out x c_in x c_in, and three times as many for the pullback: they do not depend on the image.
//!
//! Source. Prach and Lampert (2022), arXiv 2208.03160.

use candle_core::Tensor;
use ndarray::{Array2, Array4, ArrayD, ArrayViewD, Axis, Ix4};
use projectors::gemm;
use rand_chacha::ChaCha8Rng;

use super::arrays::{finite, ranked};
use super::rko::Rko;
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::Result;

/// Sums below this are those of a zero channel.
const SMALLEST_SUM: f64 = 1e-30;

/// Almost orthogonal layers.
#[derive(Debug)]
pub(super) struct Aol;

impl Parametrisation for Aol {
    fn name(&self) -> &'static str {
        "aol"
    }

    fn title(&self) -> &'static str {
        "AOL"
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        Rko.draw(sizes, rng)
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn weight(&self, sizes: &Sizes, parameter: &Tensor, _: Option<&Tensor>) -> Result<Weight> {
        let by_output = sizes.n_out < sizes.n_in;
        // taps first, then the side that is not rescaled
        let order = if by_output { (2, 3, 1, 0) } else { (2, 3, 0, 1) };
        let taps = parameter.permute(order)?.contiguous()?;
        let sums = channel_sums(&taps, None)?;
        let is_nonzero = sums.detach().gt(SMALLEST_SUM)?.to_dtype(sums.dtype())?;
        let factors = (sums.maximum(SMALLEST_SUM)?.sqrt()?.recip()? * is_nonzero)?;
        let factors = match by_output {
            true => factors.reshape((sizes.n_out, 1, 1, 1))?,
            false => factors.reshape((1, sizes.n_in, 1, 1))?,
        };
        Ok(parameter.broadcast_mul(&factors)?.into())
    }
}

/// Σ_{j,τ} |C_τ|_ij v_j of taps k x k x p x q over the last axis, with ones for v where it is not given.
pub(crate) fn channel_sums(taps: &Tensor, v: Option<&Tensor>) -> Result<Tensor> {
    let sums = |matrix: Tensor| -> Result<Tensor> {
        let matrix = match v {
            Some(v) => matrix.broadcast_mul(&v.reshape((1, ()))?)?,
            None => matrix,
        };
        Ok(matrix.sum(1)?)
    };
    let (k, _, _, q) = taps.dims4()?;
    let mut total: Option<Tensor> = None;
    for (dy, dx) in half_of_the_shifts(k) {
        let (rows, columns) = (k - dy, k - dx.unsigned_abs());
        let (left, right) = if dx < 0 { (dx.unsigned_abs(), 0) } else { (0, dx.unsigned_abs()) };
        let part = |y: usize, x: usize| -> Result<Tensor> {
            let part = taps.narrow(0, y, rows)?.narrow(1, x, columns)?.contiguous()?;
            Ok(part.reshape(((), q))?)
        };
        let correlation = part(0, left)?.t()?.matmul(&part(dy, right)?)?.abs()?;
        let mut sum = sums(correlation.clone())?;
        if (dy, dx) != (0, 0) {
            // the opposite shift has the transposed matrix
            sum = (sum + sums(correlation.t()?.contiguous()?)?)?;
        }
        total = Some(match total {
            Some(total) => (total + sum)?,
            None => sum,
        });
    }
    Ok(total.expect("the shift 0 is among them"))
}

/// 0 and one of each pair of opposite shifts of a k x k kernel.
fn half_of_the_shifts(k: usize) -> impl Iterator<Item = (usize, isize)> {
    let reach = k as isize - 1;
    (0..k).flat_map(move |dy| (if dy == 0 { 0 } else { -reach }..=reach).map(move |dx| (dy, dx)))
}

impl<T: Element> CpuParametrisation<T> for Aol {
    fn assemble(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        _: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        finite(layer, &parameter)?;
        Ok(Box::new(Rescaled::new(parameter)))
    }
}

/// The factors of the channels of one kernel.
#[derive(Debug)]
struct Rescaled {
    by_output: bool,
    /// D_i^(-1/2), or 0 for a zero channel.
    factors: Vec<f64>,
}

/// The kernel as matrices, taps in row-major order; the columns are the channels that are rescaled.
struct Taps<T> {
    side: usize,
    matrices: Vec<Array2<T>>,
}

impl<T: Element> Taps<T> {
    fn new(kernel: ArrayViewD<'_, T>, by_output: bool) -> Self {
        let kernel = ranked::<T, Ix4>(kernel);
        let side = kernel.dim().2;
        let tap = |index: usize| {
            let matrix = kernel.index_axis(Axis(2), index / side);
            let matrix = matrix.index_axis(Axis(2), index % side);
            // in row-major order, as the products expect
            let matrix = if by_output { matrix.reversed_axes() } else { matrix };
            matrix.as_standard_layout().into_owned()
        };
        Self { side, matrices: (0..side * side).map(tap).collect() }
    }

    /// The pairs of taps that a shift brings together.
    fn pairs(&self, (dy, dx): (usize, isize)) -> impl Iterator<Item = (usize, usize)> {
        let side = self.side;
        (0..side - dy).flat_map(move |y| {
            let columns = (0..side).filter_map(move |x| Some((x, x.checked_add_signed(dx)?)));
            let columns = columns.filter(move |(_, other)| *other < side);
            columns.map(move |(x, other)| (y * side + x, (y + dy) * side + other))
        })
    }

    /// C_τ.
    fn correlation(&self, shift: (usize, isize)) -> Array2<T> {
        let n = self.matrices[0].ncols();
        let mut sum = Array2::zeros((n, n));
        for (a, b) in self.pairs(shift) {
            let (a, b) = (self.matrices[a].t(), self.matrices[b].view());
            gemm::matmul_into(T::one(), a, b, T::one(), sum.view_mut());
        }
        sum
    }

    fn into_kernel(self, by_output: bool) -> Array4<T> {
        let (side, (p, q)) = (self.side, self.matrices[0].dim());
        let (c_out, c_in) = if by_output { (q, p) } else { (p, q) };
        Array4::from_shape_fn((c_out, c_in, side, side), |(o, i, y, x)| {
            let place = if by_output { [i, o] } else { [o, i] };
            self.matrices[y * side + x][place]
        })
    }
}

impl Rescaled {
    fn new<T: Element>(parameter: ArrayViewD<'_, T>) -> Self {
        let by_output = parameter.shape()[0] < parameter.shape()[1];
        let taps = Taps::new(parameter, by_output);
        let mut sums = vec![0.0; taps.matrices[0].ncols()];
        for shift in half_of_the_shifts(taps.side) {
            for ((i, j), value) in taps.correlation(shift).indexed_iter() {
                sums[i] += value.as_f64().abs();
                if shift != (0, 0) {
                    sums[j] += value.as_f64().abs();
                }
            }
        }
        let factor = |&sum: &f64| if sum > SMALLEST_SUM { 1.0 / sum.sqrt() } else { 0.0 };
        Self { by_output, factors: sums.iter().map(factor).collect() }
    }

    fn axis(&self) -> Axis {
        Axis(usize::from(!self.by_output))
    }

    /// The factor of every channel, from its values.
    fn scaled<T: Element>(&self, mut kernel: ArrayD<T>) -> ArrayD<T> {
        for (mut channel, &factor) in kernel.axis_iter_mut(self.axis()).zip(&self.factors) {
            channel.mapv_inplace(|x| T::of(x.as_f64() * factor));
        }
        kernel
    }
}

impl<T: Element> Assembled<T> for Rescaled {
    fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T> {
        self.scaled(parameter.to_owned())
    }

    fn pullback(
        &self,
        _: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        let channels = d_weight.axis_iter(self.axis()).zip(parameter.axis_iter(self.axis()));
        let inner = channels
            .map(|(d, k)| d.iter().zip(&k).map(|(d, k)| d.as_f64() * k.as_f64()).sum::<f64>());
        // the gradients in the sums D_i
        let delta = inner.zip(&self.factors).map(|(inner, r)| -0.5 * r.powi(3) * inner);
        let delta = delta.collect::<Vec<_>>();
        let taps = Taps::new(parameter, self.by_output);
        let mut gradient = Taps::new(self.scaled(d_weight).view(), self.by_output);
        for shift in half_of_the_shifts(taps.side) {
            let mut slopes = taps.correlation(shift);
            for ((i, j), value) in slopes.indexed_iter_mut() {
                let slope = delta[i] + delta[j];
                *value = match *value {
                    x if x > T::zero() => T::of(slope),
                    x if x < T::zero() => T::of(-slope),
                    _ => T::zero(),
                };
            }
            for (a, b) in taps.pairs(shift) {
                let mut add = |to: usize, from: usize, slopes: ndarray::ArrayView2<'_, T>| {
                    let target = gradient.matrices[to].view_mut();
                    gemm::matmul_into(
                        T::one(),
                        taps.matrices[from].view(),
                        slopes,
                        T::one(),
                        target,
                    );
                };
                add(a, b, slopes.t());
                if shift != (0, 0) {
                    add(b, a, slopes.view());
                }
            }
        }
        Ok(gradient.into_kernel(self.by_output).into_dyn())
    }
}
