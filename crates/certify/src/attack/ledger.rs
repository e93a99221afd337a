//! The images under attack, on the host, and the nearest adversarial image that was found for each of them.

use candle_core::Tensor;

use super::objective::best_rival;
use super::outcome::{AttackOutcome, AttackProgress, Query};
use super::step::{distance_up, is_image};
use super::target::AttackTarget;
use crate::classifier::{Classifier, batched_logits, is_correct, logit_rows, predicted_class};
use crate::error::Result;
use crate::tensor::{Pixel, batch_size};

pub(super) struct Ledger<'a, T> {
    pub(super) classifier: &'a dyn Classifier,
    pub(super) n_values: usize,
    pub(super) labels: &'a [usize],
    /// What names the samples in random streams.
    ids: Option<&'a [usize]>,
    shape: Vec<usize>,
    images: Vec<T>,
    /// Logits of the images themselves.
    pub(super) logits: Vec<Vec<f64>>,
    correct: Vec<bool>,
    found: Vec<Option<Found<T>>>,
    n_broken: usize,
    name: &'static str,
    /// The distance up to which an adversarial image breaks its sample.
    reach: f64,
}

/// The nearest adversarial image of a sample.
#[derive(Debug, Clone)]
struct Found<T> {
    image: Vec<T>,
    class: usize,
    distance: f64,
}

impl<'a, T: Pixel> Ledger<'a, T> {
    pub(super) fn new(
        name: &'static str,
        query: Query<'a>,
        reach: f64,
        rows_at_once: usize,
    ) -> Result<Self> {
        let Query { target: AttackTarget { classifier, images, labels }, ids, .. } = query;
        let (n, n_values) = batch_size(images)?;
        let logits = logit_rows(&batched_logits(classifier, images, rows_at_once)?)?;
        let correct: Vec<bool> =
            logits.iter().zip(labels).map(|(y, &t)| is_correct(y, t)).collect();
        Ok(Self {
            classifier,
            n_values,
            labels,
            ids,
            shape: images.dims().to_vec(),
            images: images.flatten_all()?.to_vec1()?,
            n_broken: correct.iter().filter(|&&correct| !correct).count(),
            correct,
            logits,
            found: vec![None; n],
            name,
            reach,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The shape of one image.
    pub(super) fn image_shape(&self) -> &[usize] {
        &self.shape[1..]
    }

    pub(super) fn image(&self, i: usize) -> &[T] {
        &self.images[i * self.n_values..(i + 1) * self.n_values]
    }

    /// Hands out images without borrowing the classifier, which threads may not share.
    pub(super) fn image_of<'s>(&'s self) -> impl Fn(usize) -> &'s [T] + Sync + 's {
        let (images, n_values) = (self.images.as_slice(), self.n_values);
        move |i| &images[i * n_values..(i + 1) * n_values]
    }

    /// What the classifier takes the image itself for.
    fn class(&self, i: usize) -> usize {
        predicted_class(&self.logits[i])
    }

    /// The nearest image of the list that the classifier takes for another class than `sample`'s label.
    pub(super) fn neighbour(&self, sample: usize) -> Option<usize> {
        let distance = |&i: &usize| distance_up(self.image(i), self.image(sample));
        let others = (0..self.len()).filter(|&i| self.class(i) != self.labels[sample]);
        others.min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    pub(super) fn is_correct(&self, i: usize) -> bool {
        self.correct[i]
    }

    pub(super) fn id(&self, i: usize) -> usize {
        self.ids.map_or(i, |ids| ids[i])
    }

    /// Rows of values as a batch of images.
    pub(super) fn tensor(&self, values: Vec<T>) -> Result<Tensor> {
        let mut shape = self.shape.clone();
        shape[0] = values.len() / self.n_values.max(1);
        Ok(Tensor::from_vec(values, shape, self.classifier.device())?)
    }

    /// Whether an image with these logits is adversarial; keeps it if it is the nearest so far.
    pub(super) fn note(&mut self, sample: usize, image: &[T], logits: &[f64]) -> bool {
        let label = self.labels[sample];
        // what is no image is no adversarial one
        if is_correct(logits, label) || !is_image(image) {
            return false;
        }
        let distance = distance_up(image, self.image(sample));
        let was_broken = self.is_broken(sample);
        if self.found[sample].as_ref().is_none_or(|found| distance < found.distance) {
            let class = best_rival(logits, label).unwrap_or(label);
            self.found[sample] = Some(Found { image: image.to_vec(), class, distance });
        }
        self.n_broken += usize::from(!was_broken && self.is_broken(sample));
        true
    }

    pub(super) fn has_found(&self, sample: usize) -> bool {
        self.found[sample].is_some()
    }

    pub(super) fn is_broken(&self, sample: usize) -> bool {
        let near = |found: &Found<T>| found.distance <= self.reach;
        !self.correct[sample] || self.found[sample].as_ref().is_some_and(near)
    }

    pub(super) fn progress(&self, fraction: f64) -> AttackProgress {
        let (n_broken, n_samples) = (self.n_broken, self.len());
        AttackProgress { attack: self.name, fraction, n_broken, n_samples }
    }

    pub(super) fn outcome(self) -> Result<AttackOutcome> {
        let n = self.len();
        let broken = (0..n).map(|i| self.is_broken(i)).collect();
        let mut predictions: Vec<usize> = (0..n).map(|i| self.class(i)).collect();
        let mut distances = vec![f64::INFINITY; n];
        let mut adversarial = self.images;
        for (i, found) in self.found.into_iter().enumerate() {
            // a mistake is at distance 0 whatever else was found
            if !self.correct[i] {
                distances[i] = 0.0;
            } else if let Some(Found { image, class, distance }) = found {
                adversarial[i * self.n_values..(i + 1) * self.n_values].copy_from_slice(&image);
                (distances[i], predictions[i]) = (distance, class);
            }
        }
        let adversarial = Tensor::from_vec(adversarial, self.shape, self.classifier.device())?;
        let (parts, flags) = (Vec::new(), Vec::new());
        Ok(AttackOutcome { adversarial, predictions, broken, distances, parts, flags })
    }
}
