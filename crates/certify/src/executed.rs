//! A network executed in a stated arithmetic, as a [`Classifier`]: what a certificate's executed radius is about.
//!
//! * [`Arithmetic::F32`] and [`Arithmetic::F64`]: the network itself, converted where the weights are stored in
//!   f32 and run in f64 (an exact conversion).
//! * [`Arithmetic::F32AccumulateF64`]: weights, images and layer outputs in f32, dot products in f64.
//!
//! The input gradient of the accumulating form is that of the f32 network: a direction for attacks, which
//! needs no exactness; its logits, which decide, are the accumulated ones.
//!
//! Cost of the accumulating form: f64 matrix products, about twice f32, on the host.

use candle_core::{DType, Device, Tensor};
use lipconv::PlainNetwork;

use crate::arithmetic::Arithmetic;
use crate::classifier::{Classifier, Objective};
use crate::engine::{Engine, Storage};
use crate::error::{Error, Result};
use crate::tensor::{check_images, to_f64};

/// A network and the arithmetic that executes it.
#[derive(Debug)]
pub struct ExecutedNetwork {
    network: PlainNetwork,
    arithmetic: Arithmetic,
    /// Present exactly when dot products are accumulated in f64.
    accumulating: Option<Engine>,
}

impl ExecutedNetwork {
    /// `network` executed in `arithmetic`.
    ///
    /// # Errors
    /// [`Error::UnsupportedArithmetic`] when the arithmetic would change the stored weights,
    /// [`Error::DTypeMismatch`] for weights that are neither f32 nor f64, [`Error::UnsupportedLayer`].
    pub fn new(network: &PlainNetwork, arithmetic: Arithmetic) -> Result<Self> {
        arithmetic.check_holds(network.dtype())?;
        let accumulating = match arithmetic {
            Arithmetic::F32AccumulateF64 => Some(Engine::new(network)?),
            Arithmetic::F32 | Arithmetic::F64 => None,
        };
        let network = network.to_dtype(arithmetic.storage())?;
        Ok(Self { network, arithmetic, accumulating })
    }

    /// The arithmetic.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    fn accumulated_logits(&self, engine: &Engine, images: &Tensor) -> Result<Tensor> {
        let n = check_images(images, self.network.input())?;
        if images.dtype() != DType::F32 {
            return Err(Error::DTypeMismatch {
                what: "batch of images",
                expected: DType::F32.as_str().into(),
                got: images.dtype().as_str().into(),
            });
        }
        let logits = engine.logits(&to_f64(images)?, Storage::F32);
        let logits = Tensor::from_vec(logits, (n, self.network.n_classes()), &Device::Cpu)?;
        Ok(logits.to_dtype(DType::F32)?.to_device(self.network.device())?)
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
            Some(engine) => self.accumulated_logits(engine, images),
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
            Some(engine) => Ok((self.accumulated_logits(engine, images)?, gradient)),
            None => Ok((logits, gradient)),
        }
    }
}
