//! Latent vectors: uniform numbers of a ChaCha stream.
//!
//! Number j of vector i is made of word `i · latent + j` of the stream of the seed, so that a vector does not
//! depend on how many were drawn with it. The numbers are multiples of 2^-23 in [-1, 1): the same in f32 and f64.

use candle_core::{DType, Device, Tensor};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::Result;

/// Latent vectors `offset` … `offset + n - 1` of a seed, n x `length`, in [-1, 1).
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle) when the device has no room.
pub fn latents(
    length: usize,
    n: usize,
    seed: u64,
    offset: u64,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_word_pos(u128::from(offset) * length as u128);
    draw_latents(length, n, &mut rng, dtype, device)
}

/// The next `n` latent vectors of a generator of random numbers.
pub(crate) fn draw_latents(
    length: usize,
    n: usize,
    rng: &mut ChaCha8Rng,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    // 24 bits of a word, the mantissa of an f32
    let uniform = |word: u32| f64::from(word >> 8) * (-23f64).exp2() - 1.0;
    let values: Vec<f64> = (0..n * length).map(|_| uniform(rng.next_u32())).collect();
    Ok(Tensor::from_vec(values, (n, length), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}
