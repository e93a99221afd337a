//! Parameters from a `VarBuilder`, with starting values of our own.
//!
//! candle's initialisations know no orthogonal matrices, and its CPU generator cannot be seeded. So a variable that the builder
//! has just made is set to values drawn here; one that it held before, or a tensor from a file, stays as it is.

use candle_core::{DType, Tensor, Var};
use candle_nn::{Init, VarBuilder};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// A parameter of the builder's element type; `draw` gives its values in row-major order if it is new.
pub(super) fn parameter(
    vb: &VarBuilder<'_>,
    name: &str,
    shape: &[usize],
    seed: u64,
    draw: impl FnOnce(&mut ChaCha8Rng) -> Vec<f64>,
) -> Result<Tensor> {
    if !matches!(vb.dtype(), DType::F32 | DType::F64) {
        let value = vb.dtype().as_str().to_owned();
        return Err(Error::InvalidSetting { name: "dtype", value, expected: "f32 or f64" });
    }
    let is_new = !vb.contains_tensor(name);
    let tensor = vb.get_with_hints(shape, name, Init::Const(0.0))?;
    if is_new && tensor.is_variable() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(fingerprint(&format!("{}.{name}", vb.prefix())));
        let values = Tensor::from_vec(draw(&mut rng), shape, tensor.device())?;
        Var::from_tensor(&tensor)?.set(&values.to_dtype(tensor.dtype())?)?;
    }
    Ok(tensor)
}

/// The name of a layer for errors: the builder's prefix, or its kind where that is empty.
pub(super) fn layer_name(vb: &VarBuilder<'_>, kind: &str) -> String {
    let prefix = vb.prefix();
    if prefix.is_empty() { kind.to_owned() } else { prefix }
}

/// Refuses counts of 0.
pub(super) fn at_least_one(layer: &str, counts: &[(&str, usize)]) -> Result<()> {
    match counts.iter().find(|(_, count)| *count == 0) {
        Some((what, _)) => Err(Error::Zero { what: format!("{layer}: {what}") }),
        None => Ok(()),
    }
}

/// FNV-1a of a name: the same on every machine and in every version.
fn fingerprint(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
