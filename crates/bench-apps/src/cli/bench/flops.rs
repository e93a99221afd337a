//! Floating-point operations, counted from the shapes, and the rate at which this machine multiplies matrices.
//!
//! A multiplication with its addition counts as two. Counted are the products that the algorithms cannot do without;
//! symmetric ones count half. What is left out (element-wise work, corrections of a defect, a second look) makes the share
//! of the machine's rate look smaller than it is, never larger.

use std::time::Instant;

use lipconv::{LayerSpec, NetworkSpec};
use ndarray::Array2;
use projectors::gemm;
use rayon::prelude::*;

/// Assembly of a c channel, k x k kernel from its parameters; forward, or forward and backward.
///
/// With n = c: the chain of products takes 2 n³ for each tap of each stage (1, 2, 4, 6, … taps), and twice that backward. A
/// projector of rank n/2 takes n³/4 for its Gram matrix, n³/12 for Cholesky factor and inverse, n³/2 for the basis, n³/4 for
/// its defect and n³/2 for the projector, and 5/2 n³ backward. The orthogonal factor takes n³ for the Gram matrix, 2 n³ for
/// the factor, n³ for its defect, and backward 8 n³ where its parameter is nearly orthogonal.
pub(super) fn assembly(c: usize, k: usize, backward: bool) -> f64 {
    let n3 = (c as f64).powi(3);
    let stage_taps = |stage: usize| (stage.div_ceil(2) + 1) * (stage / 2 + 1);
    let taps: usize = (0..2 * (k - 1)).map(stage_taps).sum();
    let (chain, projectors) = (2.0 * taps as f64, 2.0 * (k as f64 - 1.0));
    let forward = chain + projectors * (0.25 + 1.0 / 12.0 + 0.5 + 0.25 + 0.5) + 4.0;
    let both = forward + if backward { 2.0 * chain + 2.5 * projectors + 8.0 } else { 0.0 };
    both * n3
}

/// One training step without any constraint: forward, and both gradients of every layer but the first, whose input needs
/// none.
pub(super) fn step(spec: &NetworkSpec, batch: usize) -> f64 {
    let layers = forward_of_layers(spec);
    let first = layers.first().copied().unwrap_or(0.0);
    batch as f64 * (3.0 * layers.iter().sum::<f64>() - first)
}

/// One forward pass.
pub(super) fn forward(spec: &NetworkSpec, batch: usize) -> f64 {
    batch as f64 * forward_of_layers(spec).iter().sum::<f64>()
}

/// For each linear layer, what one image costs.
fn forward_of_layers(spec: &NetworkSpec) -> Vec<f64> {
    let (mut c, mut h, mut w) = (spec.input.channels, spec.input.height, spec.input.width);
    let mut flops = Vec::new();
    for layer in &spec.layers {
        match *layer {
            // a layer in place of a convolution counts as that
            LayerSpec::Conv { c_out, kernel_size, stride, .. }
            | LayerSpec::Module { c_out, kernel_size, stride, .. } => {
                (h, w) = (h / stride, w / stride);
                flops.push(2.0 * (h * w * c_out * c * kernel_size * kernel_size) as f64);
                c = c_out;
            }
            LayerSpec::Linear { out_features, .. } => {
                flops.push(2.0 * (c * h * w * out_features) as f64);
                (c, h, w) = (out_features, 1, 1);
            }
            _ => {}
        }
    }
    flops
}

/// Edge of the products that the machine's rate is measured with: three matrices fit into a second-level cache.
const EDGE: usize = 384;

/// The rate of f32 matrix products, one on each thread at a time, in operations per second.
pub(super) fn gemm_rate() -> f64 {
    gemm::single_threaded_blas();
    let threads = rayon::current_num_threads();
    let a = Array2::from_shape_fn((EDGE, EDGE), |(i, j)| ((i * 31 + j * 17) % 101) as f32 / 101.0);
    let products = 8;
    let round = || {
        let start = Instant::now();
        let sum: f32 = (0..threads)
            .into_par_iter()
            .map(|_| (0..products).map(|_| a.dot(&a)[[0, 0]]).sum::<f32>())
            .sum();
        std::hint::black_box(sum);
        start.elapsed().as_secs_f64()
    };
    round();
    let mut seconds: Vec<f64> = (0..15).map(|_| round()).collect();
    (threads * products) as f64 * 2.0 * (EDGE as f64).powi(3) / super::median(&mut seconds)
}

#[cfg(test)]
mod tests {
    use lipconv::{ImageShape, Methods};

    use super::*;

    #[test]
    fn an_assembly_of_three_taps_multiplies_thirteen_of_them() {
        // 26 + 4 · 19/12 + 4 forward, 52 + 10 + 8 backward, times n³
        let n3 = 64.0_f64.powi(3);
        assert!((assembly(64, 3, false) / n3 - (30.0 + 19.0 / 3.0)).abs() < 1e-9);
        assert!((assembly(64, 3, true) / n3 - (100.0 + 19.0 / 3.0)).abs() < 1e-9);
        assert!((assembly(64, 1, false) / n3 - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_large_step_of_128_images_takes_twelve_gigaflops() {
        let large = NetworkSpec::large(ImageShape::new(3, 32, 32), 10, Methods::BCOP, 1.0).unwrap();
        // 32·32·32·27 + 16·16·32·512 + 16·16·64·288 + 8·8·64·1024 + 4096·512 + 512·512 + 5120 products
        let products = 884_736 + 4_194_304 + 4_718_592 + 4_194_304 + 2_097_152 + 262_144 + 5_120;
        assert!((forward(&large, 1) - 2.0 * f64::from(products)).abs() < 1.0);
        assert!((step(&large, 128) / 1e9 - 12.3).abs() < 0.3, "{}", step(&large, 128));
    }
}
