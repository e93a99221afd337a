//! A generator whose statistics are part of its weights: an immutable function.

use candle_core::{DType, Device, Tensor};

use super::{GeneratorSpec, apply_map, check_latents, latents};
use crate::error::Result;

/// Images of one pass. Samples are always made in the same groups, so that the bits of one do not depend on what was asked
/// for with it.
const GROUP: usize = 64;

/// A frozen generator. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct FrozenGenerator {
    spec: GeneratorSpec,
    layers: Vec<(Tensor, Tensor)>,
    dtype: DType,
    device: Device,
}

impl FrozenGenerator {
    /// From the weight and the bias of every block, in order, with shapes as the spec says.
    pub(super) fn new(
        spec: GeneratorSpec,
        layers: Vec<(Tensor, Tensor)>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let contiguous = |(w, b): (Tensor, Tensor)| Ok((w.contiguous()?, b.contiguous()?));
        let layers = layers.into_iter().map(contiguous).collect::<Result<_>>()?;
        Ok(Self { spec, layers, dtype, device: device.clone() })
    }

    /// The layers as data.
    #[must_use]
    pub fn spec(&self) -> &GeneratorSpec {
        &self.spec
    }

    /// Element type of the weights and of the images.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the weights live.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Weight and bias of every layer, by name.
    pub fn layers(&self) -> impl Iterator<Item = (&'static str, &Tensor, &Tensor)> {
        let names = self.spec.plan().map(|plan| plan.name);
        names.into_iter().zip(&self.layers).map(|(name, (weight, bias))| (name, weight, bias))
    }

    /// Images (b x c x h x w, in [-1, 1]) of latent vectors (b x latent).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) when the vectors have another length,
    /// [`Error::Candle`](crate::Error::Candle) when element types or devices differ.
    pub fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        check_latents(&self.spec, latents)?;
        let mut x = latents.clone();
        for (n, (weight, bias)) in self.layers.iter().enumerate() {
            x = apply_map(&self.spec, n, &x, weight, Some(bias))?;
            x = if n + 1 == self.layers.len() { x.tanh()? } else { x.relu()? };
        }
        Ok(x)
    }

    /// Images `offset` … `offset + n - 1` of a seed, n x c x h x w: image i is that of the i-th
    /// [latent vector](super::latents), the same bits whatever the call it is part of (same device and binary).
    ///
    /// # Errors
    /// [`Error::Candle`](crate::Error::Candle) when the device has no room.
    pub fn sample(&self, n: usize, seed: u64, offset: u64) -> Result<Tensor> {
        let shape = self.spec.output;
        if n == 0 {
            let empty = (0, shape.channels, shape.height, shape.width);
            return Ok(Tensor::zeros(empty, self.dtype, &self.device)?);
        }
        let (group, end) = (GROUP as u64, offset + n as u64);
        let groups = offset / group..end.div_ceil(group);
        let pieces = groups.map(|index| {
            let start = index * group;
            let length = self.spec.latent;
            let z = latents(length, GROUP, seed, start, self.dtype, &self.device)?;
            let (from, to) = (offset.max(start), end.min(start + group));
            let (from, n) = ((from - start) as usize, (to - from) as usize);
            Ok(self.forward(&z)?.narrow(0, from, n)?)
        });
        Ok(Tensor::cat(&pieces.collect::<Result<Vec<_>>>()?, 0)?)
    }
}
