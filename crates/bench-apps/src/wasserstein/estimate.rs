//! What a frozen critic says about the distance.
//!
//! Definition: with samples a_i, b_i and a rigorous bound K of the critic's Lipschitz constant, the estimate is
//! (1/n Σ f(a_i) - 1/m Σ f(b_i)) / K, rounding included and rounded down.
//!
//! Guarantee: see `certify::wasserstein`; for populations, where the samples are all there is, the standard error is 0.

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use certify::NetworkBounds;
use lipconv::PlainNetwork;
use serde::{Deserialize, Serialize};

use super::distribution::{Distribution, Part};

/// Samples that go through the critic together.
const BATCH: usize = 128;

/// An estimate with its error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The lower bound of the distance that the samples show, before their sampling error.
    pub value: f64,
    /// Standard error of the value; 0 for populations.
    pub standard_error: f64,
    /// Mean difference of the critic, not divided by anything.
    pub difference: f64,
    /// Rigorous bound of the critic's Lipschitz constant.
    pub lipschitz: f64,
    /// Samples of each side.
    pub n_samples: [usize; 2],
}

/// Measures a critic on `n_pairs` samples of each side, or as many as there are.
///
/// # Errors
/// Samples that do not fit the critic; those of the bounds.
pub fn estimate(
    network: &PlainNetwork,
    a: &dyn Distribution,
    b: &dyn Distribution,
    part: Part,
    n_pairs: usize,
) -> Result<Estimate> {
    let lipschitz = NetworkBounds::new(network)?.lipschitz();
    let side = |of: &dyn Distribution| -> Result<Vec<f64>> {
        let n = of.n_held_out(part).map_or(n_pairs, |n| n.min(n_pairs));
        let mut values = Vec::with_capacity(n);
        for start in (0..n).step_by(BATCH) {
            let samples = of.held_out(part, start..(start + BATCH).min(n))?;
            values.extend(outputs(network, &samples)?);
        }
        Ok(values)
    };
    let (x, y) = (side(a)?, side(b)?);
    ensure!(!x.is_empty() && !y.is_empty(), "a distribution has no samples");
    let (mean_x, var_x) = moments(&x);
    let (mean_y, var_y) = moments(&y);
    let difference = mean_x - mean_y;
    let population = a.is_population() && b.is_population();
    let variance = if population { 0.0 } else { var_x / x.len() as f64 + var_y / y.len() as f64 };
    Ok(Estimate {
        value: difference / lipschitz,
        standard_error: variance.sqrt() / lipschitz,
        difference,
        lipschitz,
        n_samples: [x.len(), y.len()],
    })
}

fn outputs(network: &PlainNetwork, samples: &Tensor) -> Result<Vec<f64>> {
    let values = network.forward(samples)?.flatten_all()?;
    Ok(values.to_dtype(DType::F64)?.to_vec1()?)
}

fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, squares / (n - 1.0).max(1.0))
}
