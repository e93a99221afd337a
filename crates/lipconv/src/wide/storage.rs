//! How numbers are kept between layers, and what of them a product sees.

/// How the output of an affine layer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// As computed.
    F64,
    /// Rounded to the nearest f32.
    F32,
    /// Rounded to the nearest f32, and cut to TF32 where it is a factor.
    Tf32,
}

/// Rounds a layer's output.
pub(super) fn store(signal: &mut [f64], storage: Storage) {
    if storage != Storage::F64 {
        signal.iter_mut().for_each(|v| *v = f64::from(*v as f32));
    }
}

/// The nearest number of 11 significant bits that is not farther from 0; the value is one of f32.
pub(super) fn cut_to_tf32(value: f64) -> f64 {
    f64::from(f32::from_bits((value as f32).to_bits() & !0x1fff))
}
