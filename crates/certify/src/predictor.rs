//! Predictions with their guarantee, for a service: a network that is loaded once and asked many times.
//!
//! Definition. For an image x, `class` is that of the largest logit of an f64 evaluation, `margin` a lower bound of the distance of
//! this logit from the next one in exact arithmetic, and `radius` the executed radius of the certificate: the network executed in
//! the predictor's [`Arithmetic`] gives `class` for every image that lies nearer to x than that, in the L2 norm and in any order of
//! its sums. A margin and a radius of 0 say that nothing is proven.
//!
//! Shapes: pixels are channels x height x width, row-major, as the network was trained on (0 to 1 for those of this project);
//! several images lie one after another.
//!
//! Guarantee: that of [`Certifier`]. Answers are the same to the bit whatever the number of threads; the images beside it in a call may
//! change the last bits of a margin. A predictor may be shared by threads, and no input makes it panic.
//!
//! Cost: the f64 evaluation. One image is computed on the calling thread, several are shared by rayon's threads. Buffers are kept and
//! reused: after the first calls, [`Predictor::predict`] allocates nothing and [`Predictor::predict_batch`] its result and what rayon's
//! threads need to talk.
//!
//! Errors: [`Error::ShapeMismatch`], [`Error::NonFinite`], [`Error::UnsupportedArithmetic`]; those of [`Certifier::new`].
//!
//! Not here: decoding of pictures, and attacks.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::Device;
use lipconv::wide::{Storage, WideWorkspace};
use lipconv::{ImageShape, PlainNetwork};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::arithmetic::Arithmetic;
use crate::certifier::{Certifier, Norms, Room};
use crate::error::{Error, Result};
use crate::rounding::ErrorModel;

/// Images that one thread takes at a time; the same whatever the number of threads, so that answers are.
const AT_ONCE: usize = 8;

/// A network that answers with class, margin and certified radius.
#[derive(Debug)]
pub struct Predictor {
    certifier: Certifier,
    arithmetic: Arithmetic,
    /// Place of the arithmetic among the certifier's.
    model: usize,
    idle: Mutex<Vec<Workspace>>,
}

/// What a network says of an image, and how far that holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Class of the largest logit, the first of equals.
    pub class: usize,
    /// At least so far is its logit above the others in exact arithmetic; 0 where that is not proven.
    pub margin: f64,
    /// Executed radius, in the L2 norm of the pixels.
    pub radius: f64,
}

/// Buffers of one call.
#[derive(Debug, Default)]
struct Workspace {
    pixels: Vec<f64>,
    wide: WideWorkspace,
    norms: Norms,
    room: Room,
}

impl Predictor {
    /// A predictor for the weights that `network` stores, as `arithmetic` executes them.
    ///
    /// # Errors
    /// [`Error::UnsupportedArithmetic`] where the arithmetic would change the weights, [`Error::DotTooLong`] where its sums are too long
    /// for the rounding model; those of [`Certifier::new`].
    pub fn new(network: &PlainNetwork, arithmetic: Arithmetic) -> Result<Self> {
        arithmetic.check_holds(network.dtype())?;
        let certifier = Certifier::new(&network.to_device(&Device::Cpu)?)?;
        // refuses sums that are too long for this arithmetic, which a certifier leaves out
        ErrorModel::new(certifier.bounds(), arithmetic)?;
        let model = certifier.arithmetics().position(|held| held == arithmetic);
        let model = model.expect("a certifier has every arithmetic with a model");
        Ok(Self { certifier, arithmetic, model, idle: Mutex::default() })
    }

    /// Loads a file of weights; without `arithmetic` radii are about [`Arithmetic::of_network`], what this library executes.
    ///
    /// # Errors
    /// Those of [`PlainNetwork::load`] and of [`Predictor::new`].
    pub fn load(path: &Path, arithmetic: Option<Arithmetic>) -> Result<Self> {
        let network = PlainNetwork::load(path, &Device::Cpu)?;
        let own = Arithmetic::of_network(&network)?;
        Self::new(&network, arithmetic.unwrap_or(own))
    }

    /// Shape of an image.
    #[must_use]
    pub fn input(&self) -> ImageShape {
        self.certifier.engine().input()
    }

    /// Number of classes.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.certifier.engine().n_classes()
    }

    /// The arithmetic whose execution the radii are about.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// The certifier behind it, with the layers' bounds.
    #[must_use]
    pub fn certifier(&self) -> &Certifier {
        &self.certifier
    }

    /// The prediction for one image.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of pixels, [`Error::NonFinite`] for a NaN or an infinity.
    pub fn predict(&self, pixels: &[f32]) -> Result<Prediction> {
        let n_values = self.input().n_values();
        if pixels.len() != n_values {
            return Err(wrong_size(pixels.len(), n_values.to_string()));
        }
        let mut found = None;
        self.with_workspace(|workspace| {
            self.answer(pixels, 0, workspace, |prediction| found = Some(prediction))
        })?;
        Ok(found.expect("one image has one prediction"))
    }

    /// The predictions for several images, in their order.
    ///
    /// # Errors
    /// As for [`Predictor::predict`]; the sample is named.
    pub fn predict_batch(&self, pixels: &[f32]) -> Result<Vec<Prediction>> {
        let n_values = self.input().n_values();
        if !pixels.len().is_multiple_of(n_values) {
            return Err(wrong_size(pixels.len(), format!("a multiple of {n_values}")));
        }
        let n_images = pixels.len() / n_values;
        let nothing = Prediction { class: 0, margin: 0.0, radius: 0.0 };
        let mut predictions = vec![nothing; n_images];
        let chunks = pixels.par_chunks(AT_ONCE * n_values).zip(predictions.par_chunks_mut(AT_ONCE));
        chunks.enumerate().try_for_each(|(i, (pixels, predictions))| {
            let mut places = predictions.iter_mut();
            self.with_workspace(|workspace| {
                self.answer(pixels, i * AT_ONCE, workspace, |prediction| {
                    if let Some(place) = places.next() {
                        *place = prediction;
                    }
                })
            })
        })?;
        Ok(predictions)
    }

    /// Evaluates a chunk of images, of which the first has the number `first`, and hands on the predictions.
    fn answer(
        &self,
        pixels: &[f32],
        first: usize,
        workspace: &mut Workspace,
        mut take: impl FnMut(Prediction),
    ) -> Result<()> {
        let Workspace { pixels: values, wide, norms, room } = workspace;
        let engine = self.certifier.engine();
        if let Some(at) = pixels.iter().position(|pixel| !pixel.is_finite()) {
            let (what, value) = ("the image", f64::from(pixels[at]));
            let sample = first + at / engine.input().n_values();
            return Err(Error::NonFinite { what, sample, value });
        }
        values.clear();
        values.extend(pixels.iter().map(|&pixel| f64::from(pixel)));
        norms.clear();
        engine.run_in(values, Storage::F64, wide, norms);
        for (i, logits) in wide.logits().chunks_exact(engine.n_classes()).enumerate() {
            let (class, margin, radius) =
                self.certifier.predict(norms, i, logits, self.model, room);
            take(Prediction { class, margin, radius });
        }
        Ok(())
    }

    /// Lends buffers that no other call has at the moment.
    fn with_workspace<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = idle().pop().unwrap_or_default();
        let result = work(&mut workspace);
        idle().push(workspace);
        result
    }
}

fn wrong_size(got: usize, expected: String) -> Error {
    Error::ShapeMismatch { what: "pixels", expected, got: vec![got] }
}
