//! Batch normalisation on the CPU: two passes for the statistics, one for the result, and an adjoint of two passes.
//!
//! With x̂ = (x - μ) / √(σ² + ε), N values in a channel and the gradient g of the result, the gradients are
//! `dβ = Σ g`, `dγ = Σ g x̂` and `dx = γ / √(σ² + ε) · (g - dβ/N - x̂ dγ/N)`. Sums are in f64, each channel's in the order of its values:
//! the same bits whatever the number of threads.

use candle_core::{CpuStorage, Shape, Tensor};
use rayon::prelude::*;

use crate::cpu_op::{Input, cpu_op};
use crate::element::{Element, cpu_slice, slice_of};
use crate::error::Result;
use crate::ops::BatchNormed;

/// Channels that one task sums up.
const CHANNELS: usize = 16;

/// b x c x s values.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    batch: usize,
    channels: usize,
    pixels: usize,
}

impl Geometry {
    fn new(shape: &Shape) -> Self {
        let dims = shape.dims();
        Self { batch: dims[0], channels: dims[1], pixels: dims[2..].iter().product() }
    }

    fn n_values(&self) -> f64 {
        (self.batch * self.pixels) as f64
    }

    /// For each channel, two sums over its values of a function of channel and index.
    fn sums(&self, f: impl Fn(usize, usize) -> [f64; 2] + Sync) -> Vec<[f64; 2]> {
        let sum = |channel: usize| {
            let mut sums = [0.0; 2];
            for sample in 0..self.batch {
                let start = (sample * self.channels + channel) * self.pixels;
                for index in start..start + self.pixels {
                    let [first, second] = f(channel, index);
                    sums[0] += first;
                    sums[1] += second;
                }
            }
            sums
        };
        (0..self.channels).into_par_iter().with_min_len(CHANNELS).map(sum).collect()
    }

    /// `a x + b y + c` for each value, with coefficients of its channel.
    fn combine<T: Element>(&self, x: &[T], y: &[T], coefficients: &[[T; 3]]) -> Vec<T> {
        let mut result = vec![T::zero(); x.len()];
        let sample = self.channels * self.pixels;
        let samples = result.par_chunks_mut(sample).zip(x.par_chunks(sample));
        samples.zip(y.par_chunks(sample)).for_each(|((result, x), y)| {
            let rows = result.chunks_exact_mut(self.pixels).zip(x.chunks_exact(self.pixels));
            let rows = rows.zip(y.chunks_exact(self.pixels)).zip(coefficients);
            for (((result, x), y), &[a, b, c]) in rows {
                let values = result.iter_mut().zip(x.iter().zip(y));
                values.for_each(|(result, (&x, &y))| *result = a * x + b * y + c);
            }
        });
        result
    }
}

/// Batch normalisation of contiguous tensors of one element type.
pub(super) fn batch_norm<T: Element>(
    x: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    epsilon: f64,
) -> Result<BatchNormed> {
    let geometry = Geometry::new(x.shape());
    let n = geometry.n_values();
    let (means, variances): (Vec<f64>, Vec<f64>) = {
        let (storage, layout) = x.storage_and_layout();
        let x = slice_of::<T>(&storage, layout)?;
        let means = geometry.sums(|_, index| [x[index].as_f64(), 0.0]);
        let means: Vec<f64> = means.into_iter().map(|[sum, _]| sum / n).collect();
        let squares = geometry.sums(|channel, index| {
            let centred = x[index].as_f64() - means[channel];
            [centred * centred, 0.0]
        });
        (means, squares.into_iter().map(|[sum, _]| sum / n).collect())
    };
    let tensor = |values: &[f64]| -> Result<Tensor> {
        let values: Vec<T> = values.iter().map(|&v| T::of(v)).collect();
        Ok(Tensor::from_vec(values, geometry.channels, x.device())?)
    };
    let (mean, variance) = (tensor(&means)?, tensor(&variances)?);
    let inverse = variances.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
    let output = x.apply_op3(scale, shift, BatchNormOp { means, inverse })?;
    Ok(BatchNormed { output, mean, variance })
}

/// x, scale and shift, all contiguous; the statistics of x are known.
struct BatchNormOp {
    means: Vec<f64>,
    /// 1 / √(σ² + ε).
    inverse: Vec<f64>,
}

impl BatchNormOp {
    /// γ / √(σ² + ε) of each channel.
    fn factors<T: Element>(&self, scale: &[T]) -> Vec<f64> {
        self.inverse.iter().zip(scale).map(|(inverse, scale)| inverse * scale.as_f64()).collect()
    }

    fn forward<T: Element>(
        &self,
        [x, scale, shift]: [Input<'_>; 3],
    ) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape().clone();
        let geometry = Geometry::new(x.1.shape());
        let (x, scale) = (cpu_slice::<T>(x.0, x.1)?, cpu_slice::<T>(scale.0, scale.1)?);
        let shift = cpu_slice::<T>(shift.0, shift.1)?;
        let factors = self.factors(scale).into_iter().zip(&self.means).zip(shift);
        let coefficients = factors.map(|((factor, mean), shift)| {
            [T::of(factor), T::zero(), T::of(shift.as_f64() - factor * mean)]
        });
        let coefficients: Vec<_> = coefficients.collect();
        Ok((T::to_cpu_storage_owned(geometry.combine(x, x, &coefficients)), shape))
    }

    fn backward<T: Element>(
        &self,
        [x, scale, _]: [&Tensor; 3],
        d_y: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let geometry = Geometry::new(x.shape());
        let d_y = d_y.contiguous()?;
        let guards = [x, scale, &d_y].map(Tensor::storage_and_layout);
        let [x_values, scale, d_values] = guards.each_ref().map(|(s, l)| slice_of::<T>(s, l));
        let (x_values, d_values) = (x_values?, d_values?);
        let sums = geometry.sums(|channel, index| {
            let normed = (x_values[index].as_f64() - self.means[channel]) * self.inverse[channel];
            let d = d_values[index].as_f64();
            [d, d * normed]
        });
        let n = geometry.n_values();
        let factors = self.factors(scale?).into_iter().zip(&sums);
        let statistics = self.means.iter().zip(&self.inverse);
        // dx = f (g - dβ/n - (x - μ) inverse dγ/n) as a combination of g and x
        let coefficients =
            factors.zip(statistics).map(|((f, [d_shift, d_scale]), (mean, inverse))| {
                let slope = f * inverse * d_scale / n;
                [T::of(f), T::of(-slope), T::of(slope * mean - f * d_shift / n)]
            });
        let coefficients: Vec<_> = coefficients.collect();
        let d_x = geometry.combine(d_values, x_values, &coefficients);
        let column = |k: usize| sums.iter().map(|sums| T::of(sums[k])).collect::<Vec<T>>();
        let (device, channels) = (x.device(), geometry.channels);
        Ok([
            Tensor::from_vec(d_x, x.shape(), device)?,
            Tensor::from_vec(column(1), channels, device)?,
            Tensor::from_vec(column(0), channels, device)?,
        ])
    }
}

cpu_op!(BatchNormOp, "batch-norm", 3);
