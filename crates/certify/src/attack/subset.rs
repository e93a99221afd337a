//! Attacks on some samples of a list: which they are, and how their outcomes join the others'.

use candle_core::Tensor;

use super::outcome::{AttackOutcome, Query};
use super::target::AttackTarget;
use crate::classifier::Classifier;
use crate::error::{Error, Result};

/// Outcomes so far of a whole list of samples; those not attacked are as they were.
pub(super) struct Merged<'a> {
    images: &'a Tensor,
    labels: &'a [usize],
    ids: Option<&'a [usize]>,
    /// One adversarial image each, where there is one.
    rows: Vec<Option<Tensor>>,
    predictions: Vec<usize>,
    pub(super) broken: Vec<bool>,
    distances: Vec<f64>,
}

/// Attacks the samples named, as a list of their own; the others come back as they were.
pub(super) fn run_on(
    samples: &[usize],
    query: Query<'_>,
    attack: &mut dyn FnMut(&Subset) -> Result<AttackOutcome>,
) -> Result<AttackOutcome> {
    let mut merged = Merged::new(query);
    let mut outcome = attack(&merged.subset(samples)?)?;
    merged.take(samples, &outcome)?;
    let (parts, flags) = (std::mem::take(&mut outcome.parts), std::mem::take(&mut outcome.flags));
    Ok(AttackOutcome { parts, flags, ..merged.outcome()? })
}

/// Some samples of a list.
pub(super) struct Subset {
    images: Tensor,
    labels: Vec<usize>,
    ids: Vec<usize>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(query: Query<'a>) -> Self {
        let Query { target: AttackTarget { images, labels, .. }, ids, .. } = query;
        let n = labels.len();
        Self {
            images,
            labels,
            ids,
            rows: vec![None; n],
            predictions: labels.to_vec(),
            broken: vec![false; n],
            distances: vec![f64::INFINITY; n],
        }
    }

    pub(super) fn n_broken(&self) -> usize {
        self.broken.iter().filter(|&&broken| broken).count()
    }

    /// The samples named, which keep the random streams of their places in the whole list.
    pub(super) fn subset(&self, samples: &[usize]) -> Result<Subset> {
        let n = self.labels.len();
        if let Some(&sample) = samples.iter().find(|&&i| i >= n) {
            let (name, value) = ("index of a sample to attack", sample as f64);
            return Err(Error::InvalidSetting {
                name,
                value,
                expected: "below the number of images",
            });
        }
        let places: Vec<u32> = samples.iter().map(|&i| i as u32).collect();
        let places = Tensor::new(places, self.images.device())?;
        Ok(Subset {
            images: self.images.index_select(&places, 0)?,
            labels: samples.iter().map(|&i| self.labels[i]).collect(),
            ids: samples.iter().map(|&i| self.ids.map_or(i, |ids| ids[i])).collect(),
        })
    }

    /// Adds the outcome for the samples named, wherever it is nearer.
    pub(super) fn take(&mut self, samples: &[usize], outcome: &AttackOutcome) -> Result<()> {
        let got = outcome.broken.len();
        if got != samples.len() {
            let what = "entries of an attack's outcome";
            return Err(Error::CountMismatch { what, expected: samples.len(), got });
        }
        for (place, &i) in samples.iter().enumerate() {
            self.broken[i] |= outcome.broken[place];
            let distance = outcome.distances[place];
            if distance < self.distances[i] {
                self.distances[i] = distance;
                self.predictions[i] = outcome.predictions[place];
                self.rows[i] = Some(outcome.adversarial.narrow(0, place, 1)?);
            }
        }
        Ok(())
    }

    pub(super) fn outcome(self) -> Result<AttackOutcome> {
        let mut rows = Vec::with_capacity(self.rows.len());
        for (i, row) in self.rows.into_iter().enumerate() {
            rows.push(row.map_or_else(|| self.images.narrow(0, i, 1), Ok)?);
        }
        let adversarial =
            if rows.is_empty() { self.images.clone() } else { Tensor::cat(&rows, 0)? };
        let Self { predictions, broken, distances, .. } = self;
        let (parts, flags) = (Vec::new(), Vec::new());
        Ok(AttackOutcome { adversarial, predictions, broken, distances, parts, flags })
    }
}

impl Subset {
    pub(super) fn query<'s>(&'s self, classifier: &'s dyn Classifier) -> Query<'s> {
        Query { ids: Some(&self.ids), ..Query::new(self.target(classifier)) }
    }

    pub(super) fn target<'s>(&'s self, classifier: &'s dyn Classifier) -> AttackTarget<'s> {
        AttackTarget::new(classifier, &self.images, &self.labels)
    }
}
