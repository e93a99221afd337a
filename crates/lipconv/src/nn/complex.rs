//! Batches of complex matrices as pairs of real tensors, and the discrete Fourier transform of images.
//!
//! Definition. x̂[p, q] = Σ x[i, j] e^(-2πi (p i / h + q j / w)). Of a real image the columns q = 0 … ⌊w/2⌋ suffice; the rest are
//! conjugates. Frequencies are the leading axis, q slowest. All operations are candle's: differentiable, on every device.
//!
//! A complex matrix A + iB acts as the real matrix [A  -B; B  A] of twice the size; inverses and polar factors are taken of
//! that, because both keep the form.

use std::f64::consts::PI;

use candle_core::{D, DType, Device, Tensor};

use super::root::of_each;
use crate::error::Result;

/// f x m x n complex matrices.
#[derive(Debug, Clone)]
pub(super) struct Complex {
    pub(super) re: Tensor,
    pub(super) im: Tensor,
}

impl Complex {
    pub(super) fn matmul(&self, other: &Self) -> Result<Self> {
        let re = (self.re.matmul(&other.re)? - self.im.matmul(&other.im)?)?;
        let im = (self.re.matmul(&other.im)? + self.im.matmul(&other.re)?)?;
        Ok(Self { re, im })
    }

    pub(super) fn adjoint(&self) -> Result<Self> {
        let re = self.re.t()?.contiguous()?;
        Ok(Self { re, im: self.im.t()?.contiguous()?.neg()? })
    }

    pub(super) fn add(&self, other: &Self) -> Result<Self> {
        Ok(Self { re: (&self.re + &other.re)?, im: (&self.im + &other.im)? })
    }

    pub(super) fn subtract(&self, other: &Self) -> Result<Self> {
        Ok(Self { re: (&self.re - &other.re)?, im: (&self.im - &other.im)? })
    }

    pub(super) fn times(&self, factor: f64) -> Result<Self> {
        Ok(Self { re: (&self.re * factor)?, im: (&self.im * factor)? })
    }

    /// This plus a multiple of the identity, a number or a tensor of one element.
    pub(super) fn plus_identity(&self, factor: &Tensor) -> Result<Self> {
        let n = self.re.dim(D::Minus1)?;
        let eye = Tensor::eye(n, self.re.dtype(), self.re.device())?;
        let re = self.re.broadcast_add(&eye.broadcast_mul(factor)?)?;
        Ok(Self { re, im: self.im.clone() })
    }

    /// A part of the rows (axis 1) or columns (axis 2).
    pub(super) fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Self> {
        let part = |x: &Tensor| x.narrow(axis, start, len)?.contiguous();
        Ok(Self { re: part(&self.re)?, im: part(&self.im)? })
    }

    /// The one above the other.
    pub(super) fn above(&self, other: &Self) -> Result<Self> {
        let re = Tensor::cat(&[&self.re, &other.re], 1)?;
        Ok(Self { re, im: Tensor::cat(&[&self.im, &other.im], 1)? })
    }

    /// Rows and columns of each matrix.
    pub(super) fn sides(&self) -> Result<(usize, usize)> {
        let (_, rows, columns) = self.re.dims3()?;
        Ok((rows, columns))
    }

    pub(super) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        Ok(Self { re: self.re.to_dtype(dtype)?, im: self.im.to_dtype(dtype)? })
    }

    /// [A  -B; B  A].
    pub(super) fn as_real(&self) -> Result<Tensor> {
        let top = Tensor::cat(&[&self.re, &self.im.neg()?], 2)?;
        Ok(Tensor::cat(&[&top, &Tensor::cat(&[&self.im, &self.re], 2)?], 1)?)
    }

    /// The matrix that [`Complex::as_real`] stands for.
    pub(super) fn from_real(real: &Tensor) -> Result<Self> {
        let (_, rows, columns) = real.dims3()?;
        let left = real.narrow(2, 0, columns / 2)?;
        let half = |start: usize| left.narrow(1, start, rows / 2)?.contiguous();
        Ok(Self { re: half(0)?, im: half(rows / 2)? })
    }

    /// The inverses of square matrices.
    ///
    /// X of LU factors on the CPU, of Newton's iteration elsewhere, is a constant; X (2I - M X) is it once more corrected, and has
    /// the gradient of the inverse, -X dM X.
    pub(super) fn inverse(&self) -> Result<Self> {
        let m = self.as_real()?;
        let constant = m.detach();
        let x = if m.device().is_cpu() {
            of_each("matrices at the frequencies", &constant, projectors::symmetric::inverse)?
        } else {
            iterate(&constant)?
        };
        let eye = Tensor::eye(x.dim(D::Minus1)?, x.dtype(), x.device())?;
        Self::from_real(&x.matmul(&(eye * 2.0)?.broadcast_sub(&m.matmul(&x)?)?)?)
    }
}

/// Newton's iteration X ← X (2I - M X) from Mᵗ / (‖M‖_1 ‖M‖_∞): converges for every regular matrix, to rounding for conditions up
/// to 1e6.
fn iterate(m: &Tensor) -> Result<Tensor> {
    let norm = |axis: D, other: D| m.abs()?.sum_keepdim(axis)?.max_keepdim(other);
    let scale = (norm(D::Minus1, D::Minus2)? * norm(D::Minus2, D::Minus1)?)?;
    let mut x = m.t()?.contiguous()?.broadcast_div(&scale)?;
    let eye = (Tensor::eye(m.dim(D::Minus1)?, m.dtype(), m.device())? * 2.0)?;
    for _ in 0..48 {
        x = x.matmul(&eye.broadcast_sub(&m.matmul(&x)?)?)?;
    }
    Ok(x)
}

/// Number of frequencies kept of an h x w image.
pub(super) fn n_frequencies((height, width): (usize, usize)) -> usize {
    height * (width / 2 + 1)
}

/// cos and sin of 2π i j / n for i < rows and the given j, rows x columns.
fn waves(
    rows: usize,
    columns: impl Iterator<Item = i64> + Clone,
    n: usize,
    like: &Tensor,
) -> Result<Complex> {
    let n_columns = columns.clone().count();
    let table = |f: fn(f64) -> f64| -> Result<Tensor> {
        let values = (0..rows as i64).flat_map(|i| {
            let columns = columns.clone();
            // the angle from an exact remainder
            columns.map(move |j| f(2.0 * PI * (i * j).rem_euclid(n as i64) as f64 / n as f64))
        });
        let values = values.collect::<Vec<_>>();
        let table = Tensor::from_vec(values, (rows, n_columns), &Device::Cpu)?;
        Ok(table.to_dtype(like.dtype())?.to_device(like.device())?)
    };
    Ok(Complex { re: table(f64::cos)?, im: table(f64::sin)? })
}

/// The transfer matrices f x c_out x c_in of an OIHW kernel on images of one size: y[i] = Σ W[a] x[i + a - k/2] has
/// ŷ = Ŵ x̂ with Ŵ[p] = Σ W[a] e^(2πi p (a - k/2) / h).
pub(super) fn transfer(kernel: &Tensor, (height, width): (usize, usize)) -> Result<Complex> {
    let (c_out, c_in, kh, kw) = kernel.dims4()?;
    let taps = |k: usize| (0..k as i64).map(move |a| a - k as i64 / 2);
    let rows = waves(height, taps(kh), height, kernel)?;
    let columns = waves(width / 2 + 1, taps(kw), width, kernel)?;
    // f x (taps): the products of both waves, q slowest
    let outer = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        let a = a.reshape((1, height, kh, 1))?;
        let b = b.reshape((width / 2 + 1, 1, 1, kw))?;
        Ok(a.broadcast_mul(&b)?.reshape((n_frequencies((height, width)), kh * kw))?)
    };
    let cos = (outer(&rows.re, &columns.re)? - outer(&rows.im, &columns.im)?)?;
    let sin = (outer(&rows.re, &columns.im)? + outer(&rows.im, &columns.re)?)?;
    let flat = kernel.contiguous()?.reshape((c_out * c_in, kh * kw))?.t()?.contiguous()?;
    let at =
        |wave: &Tensor| -> Result<Tensor> { Ok(wave.matmul(&flat)?.reshape(((), c_out, c_in))?) };
    Ok(Complex { re: at(&cos)?, im: at(&sin)? })
}

/// x̂ of b x c x h x w: f x c x b.
pub(super) fn forward(x: &Tensor) -> Result<Complex> {
    let (b, c, h, w) = x.dims4()?;
    let half = w / 2 + 1;
    let columns = waves(w, 0..half as i64, w, x)?;
    let rows = waves(h, 0..h as i64, h, x)?;
    let flat = x.contiguous()?.reshape((b * c * h, w))?;
    let along = |wave: &Tensor| -> Result<Tensor> {
        let y = flat.matmul(wave)?.reshape((b, c, h, half))?.transpose(2, 3)?;
        Ok(y.contiguous()?.reshape((b * c * half, h))?)
    };
    let (re, im) = (along(&columns.re)?, along(&columns.im)?.neg()?);
    // (re + i im) (cos - i sin)
    let turned = (re.matmul(&rows.re)? + im.matmul(&rows.im)?)?;
    let shifted = (im.matmul(&rows.re)? - re.matmul(&rows.im)?)?;
    let order = |y: Tensor| -> Result<Tensor> {
        let y = y.reshape((b, c, half, h))?.permute((2, 3, 1, 0))?.contiguous()?;
        Ok(y.reshape((half * h, c, b))?)
    };
    Ok(Complex { re: order(turned)?, im: order(shifted)? })
}

/// The real image b x c x h x w of f x c x b.
pub(super) fn backward(x: &Complex, (h, w): (usize, usize)) -> Result<Tensor> {
    let (_, c, b) = x.re.dims3()?;
    let half = w / 2 + 1;
    let order = |y: &Tensor| -> Result<Tensor> {
        let y = y.reshape((half, h, c, b))?.permute((3, 2, 0, 1))?.contiguous()?;
        Ok(y.reshape((b * c * half, h))?)
    };
    let (re, im) = (order(&x.re)?, order(&x.im)?);
    let rows = waves(h, 0..h as i64, h, &x.re)?;
    // (re + i im) (cos + i sin)
    let turned = (re.matmul(&rows.re)? - im.matmul(&rows.im)?)?;
    let shifted = (im.matmul(&rows.re)? + re.matmul(&rows.im)?)?;
    let columns = waves(half, 0..w as i64, w, &x.re)?;
    // a conjugate pair counts twice
    let weights = (0..half).map(|q| if q == 0 || 2 * q == w { 1.0 } else { 2.0 });
    let weights = weights.map(|weight| weight / (h * w) as f64).collect::<Vec<f64>>();
    let weights = Tensor::from_vec(weights, (half, 1), &Device::Cpu)?;
    let weights = weights.to_dtype(x.re.dtype())?.to_device(x.re.device())?;
    let last = |y: Tensor, wave: &Tensor| -> Result<Tensor> {
        let y = y.reshape((b, c, half, h))?.transpose(2, 3)?.contiguous()?;
        let y = y.reshape((b * c * h, half))?.matmul(&wave.broadcast_mul(&weights)?)?;
        Ok(y.reshape((b, c, h, w))?)
    };
    Ok((last(turned, &columns.re)? - last(shifted, &columns.im)?)?)
}
