//! A network executed in a stated arithmetic, as a [`Classifier`]: what a certificate's executed radius is about.
//!
//! * [`Arithmetic::F32`] and [`Arithmetic::F64`]: the network itself, converted where the weights are stored in
//!   f32 and run in f64 (an exact conversion).
//! * [`Arithmetic::F32Blocked`]: the network itself, where the CPU engine runs it.
//! * [`Arithmetic::Tf32`]: an emulation on the host: factors cut to 11 bits, exact products and sums, layer outputs in f32. A GPU's
//!   sums differ from these in f32's last places; the model covers both.
//! * [`Arithmetic::F32AccumulateF64`]: weights, images and layer outputs in f32, dot products in f64.
//!
//! The input gradient of the last two is that of the f32 network: a direction for attacks, which
//! needs no exactness; its logits, which decide, are their own.
//!
//! Cost of the last two: f64 matrix products, about twice f32, on the host.

use candle_core::{DType, Device, Tensor};
use lipconv::wide::Storage;
use lipconv::{PlainNetwork, WideNetwork};

use crate::arithmetic::Arithmetic;
use crate::classifier::{Classifier, Objective};
use crate::error::{Error, Result};

/// A network and the arithmetic that executes it.
#[derive(Debug)]
pub struct ExecutedNetwork {
    network: PlainNetwork,
    arithmetic: Arithmetic,
    /// Present exactly where products are summed in f64.
    accumulating: Option<(WideNetwork, Storage)>,
}

impl ExecutedNetwork {
    /// `network` executed in `arithmetic`.
    ///
    /// # Errors
    /// [`Error::UnsupportedArithmetic`] when the arithmetic would change the stored weights, or sums are to be blocked and the
    /// network does not run on the CPU engine, [`Error::DTypeMismatch`] for weights that are neither f32 nor f64, [`Error::Network`].
    pub fn new(network: &PlainNetwork, arithmetic: Arithmetic) -> Result<Self> {
        arithmetic.check_holds(network.dtype())?;
        if arithmetic == Arithmetic::F32Blocked && !network.sums_in_blocks() {
            return Err(Error::UnsupportedArithmetic {
                arithmetic: arithmetic.name(),
                stored: format!(
                    "{} on {:?}",
                    network.dtype().as_str(),
                    network.device().location()
                ),
                expected: "a network that the CPU engine runs",
            });
        }
        let accumulating = match arithmetic {
            Arithmetic::F32AccumulateF64 => Some((WideNetwork::new(network)?, Storage::F32)),
            Arithmetic::Tf32 => Some((WideNetwork::new(network)?, Storage::Tf32)),
            Arithmetic::F32 | Arithmetic::F32Blocked | Arithmetic::F64 => None,
        };
        let network = network.to_dtype(arithmetic.storage())?;
        Ok(Self { network, arithmetic, accumulating })
    }

    /// The arithmetic.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }
}

impl Classifier for ExecutedNetwork {
    fn n_classes(&self) -> usize {
        self.network.n_classes()
    }

    fn device(&self) -> &Device {
        self.network.device()
    }

    fn dtype(&self) -> DType {
        self.network.dtype()
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        match &self.accumulating {
            Some((wide, storage)) => Ok(wide.forward_accumulated(images, *storage)?),
            None => Ok(self.network.forward(images)?),
        }
    }

    fn logits_and_input_gradient(
        &self,
        images: &Tensor,
        objective: &Objective<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let (logits, gradient) = self.network.logits_and_input_gradient(images, objective)?;
        match &self.accumulating {
            Some((wide, storage)) => Ok((wide.forward_accumulated(images, *storage)?, gradient)),
            None => Ok((logits, gradient)),
        }
    }
}
