//! An engine that is made when it is first wanted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Engine, Place};

/// The engine of an immutable network; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cache {
    /// Where the network is to run, if not where its tensors are.
    pub(crate) place: Option<Place>,
    engine: Arc<Mutex<Option<Engine>>>,
}

impl Cache {
    /// For a network that is to run there.
    pub(crate) fn at(place: Place) -> Self {
        Self { place: Some(place), ..Self::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Engine>> {
        // replaced as a whole, and its weights never change
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
