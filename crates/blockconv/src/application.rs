//! A block kernel applied to an image by cyclic true convolution, and the transposed map.
//!
//! Definition. (X * v)[i, j] = Σ_{a,b} X[a, b] v[i-a, j-b] and (Xᵗ u)[i, j] = Σ_{a,b} X[a, b]ᵗ u[i+a, j+b], indices
//! modulo the image size, so that ⟨X * v, u⟩ = ⟨v, Xᵗ u⟩.
//!
//! Shapes. Images are [h, w, n] with the channel last; 1-D signals come as w = 1.
//!
//! Boundary. Cyclic on both axes. The image must be at least as large as the kernel: a smaller one would fold taps onto
//! one another, which is a different operator.
//!
//! Cost. One (h w) x n_in x n_out product per tap and a shifted addition. This is the reference for layers that are
//! trained, not their replacement.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, ArrayView4, s};
use projectors::{Real, gemm};

use crate::check;
use crate::error::Result;

pub(crate) fn apply<T: Real>(
    taps: ArrayView4<'_, T>,
    image: ArrayView3<'_, T>,
) -> Result<Array3<T>> {
    let (kh, kw, n_out, n_in) = taps.dim();
    let (h, w) = check_image((kh, kw), n_in, &image)?;
    let pixels = pixels(image);
    let mut out = Array3::zeros((h, w, n_out));
    for a in 0..kh {
        for b in 0..kw {
            let product = gemm::matmul(pixels.view(), taps.slice(s![a, b, .., ..]).reversed_axes());
            add_shifted(&mut out, &product, (a, b));
        }
    }
    Ok(out)
}

pub(crate) fn apply_adjoint<T: Real>(
    taps: ArrayView4<'_, T>,
    image: ArrayView3<'_, T>,
) -> Result<Array3<T>> {
    let (kh, kw, n_out, n_in) = taps.dim();
    let (h, w) = check_image((kh, kw), n_out, &image)?;
    let pixels = pixels(image);
    let mut out = Array3::zeros((h, w, n_in));
    for a in 0..kh {
        for b in 0..kw {
            let product = gemm::matmul(pixels.view(), taps.slice(s![a, b, .., ..]));
            add_shifted(&mut out, &product, (h - a, w - b));
        }
    }
    Ok(out)
}

fn check_image<T: Real>(
    kernel: (usize, usize),
    n: usize,
    image: &ArrayView3<'_, T>,
) -> Result<(usize, usize)> {
    let (h, w, channels) = image.dim();
    check::shape("the image", &[h, w, n], &[h, w, channels])?;
    check::fits_image(&[kernel.0, kernel.1], &[h, w])?;
    Ok((h, w))
}

fn pixels<T: Real>(image: ArrayView3<'_, T>) -> Array2<T> {
    let (h, w, n) = image.dim();
    let pixels: Vec<T> = image.iter().copied().collect();
    Array2::from_shape_vec((h * w, n), pixels).expect("one row for each pixel")
}

/// out[i + a, j + b] += product[i, j] with indices modulo (h, w).
fn add_shifted<T: Real>(out: &mut Array3<T>, product: &Array2<T>, (a, b): (usize, usize)) {
    let (h, w, _) = out.dim();
    for i in 0..h {
        for j in 0..w {
            let source: ArrayView2<'_, T> = product.slice(s![i * w + j..=i * w + j, ..]);
            let mut target = out.slice_mut(s![(i + a) % h, (j + b) % w, ..]);
            target += &source.row(0);
        }
    }
}
