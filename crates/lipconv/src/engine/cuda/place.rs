//! Where an engine runs.

use super::backend::Backend;
#[cfg(feature = "cuda-emulation")]
use super::emulation::{Emulated, Emulation};
use crate::error::Result;

/// A device for an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The CUDA device of this number.
    #[cfg(feature = "cuda-engine")]
    Device(usize),
    /// An emulated one, for tests.
    #[cfg(feature = "cuda-emulation")]
    Emulated(Emulated),
}

impl Place {
    /// Opens the device with `n_streams` streams.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when there is none or its driver is too old.
    pub(super) fn open(self, n_streams: usize) -> Result<Box<dyn Backend>> {
        match self {
            #[cfg(feature = "cuda-engine")]
            Self::Device(ordinal) => {
                Ok(Box::new(super::hardware::Hardware::new(ordinal, n_streams)?))
            }
            #[cfg(feature = "cuda-emulation")]
            Self::Emulated(settings) => {
                // its streams are one
                let _ = n_streams;
                Ok(Box::new(Emulation::new(settings)))
            }
        }
    }
}
