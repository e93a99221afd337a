//! The length of free matrices when training begins.
//!
//! Definition. The weight of a *scale-free* method is the same for the free matrix M and for cM, c > 0. The *gain* of a layer is the
//! root mean square of the singular values of its free matrices, those of a kernel c_out x c_in x k x k being c_out x c_in·k².
//!
//! Why it matters. The weight does not depend on the gain, but the turn that a training step makes does. Adam moves every entry by about
//! the learning rate η, so that the first step of an n x m matrix has a norm of about η√(nm). With the paper's gain 1/√m, η = 1e-3
//! and 512 x 4096 this is 1.4 beside a gain of 0.016: M becomes nearly a matrix of rank one, and the gradients of the next steps
//! are many times as large as later ones. Adam's mean of squares remembers them for a thousand steps, and its steps are shorter for it.

use candle_core::DType;

use super::Network;
use crate::error::{Error, Result};

impl Network {
    /// The network with free matrices of gain `gain`, 1e-6 to 1e6, in every layer whose method is scale-free: all of Björck, BCOP, RKO, RK-L2NE,
    /// unit rows, AOL and BRO. The function is the same up to rounding.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a gain outside its domain, [`Error::ZeroWeight`] for a zero matrix, [`Error::NonFiniteSomewhere`] for one whose norm
    /// is not finite, [`Error::Candle`].
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use lipconv::{ImageShape, Methods, Network, NetworkSpec};
    /// let spec = NetworkSpec::small(ImageShape::new(1, 28, 28), 10, Methods::BCOP);
    /// let network = Network::new(&spec, DType::F32, &Device::Cpu, 0)?.with_gain(0.1)?;
    /// let (name, matrix) = &network.variables()[4];
    /// let norm = matrix.sqr()?.sum_all()?.to_scalar::<f32>()?.sqrt();
    /// assert_eq!((name.as_str(), matrix.dims()), ("linear1.weight", &[100, 1568][..]));
    /// assert!((norm / 100f32.sqrt() - 0.1).abs() < 1e-6);
    /// # Ok::<(), lipconv::Error>(())
    /// ```
    pub fn with_gain(self, gain: f64) -> Result<Self> {
        if !(1e-6..=1e6).contains(&gain) {
            let (value, expected) = (gain.to_string(), "a number from 1e-6 to 1e6");
            return Err(Error::InvalidSetting { name: "gain", value, expected });
        }
        let mut changes = Vec::new();
        for layer in self.layers.iter().filter(|layer| layer.module.is_none()) {
            let Some(p) = &layer.parameters else { continue };
            if !p.method.definition().is_scale_free() {
                continue;
            }
            let n_values = match *p.weight.dims() {
                [rows, columns] => rows.min(columns),
                [count, rows, columns] => count * rows.min(columns),
                _ => p.sizes.n_out.min(p.sizes.fan_in()),
            };
            let squares = p.weight.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
            let factor = gain / (squares / n_values as f64).sqrt();
            // squares overflow, or are 0, before the matrix does or is
            if !squares.is_finite() {
                return Err(Error::NonFiniteSomewhere {
                    what: format!("{}.weight squared", p.name),
                });
            }
            if !factor.is_finite() {
                return Err(Error::ZeroWeight { layer: p.name.clone() });
            }
            changes.push((&p.weight, (p.weight.as_detached_tensor() * factor)?));
        }
        for (weight, changed) in changes {
            weight.set(&changed)?;
        }
        Ok(self)
    }
}
