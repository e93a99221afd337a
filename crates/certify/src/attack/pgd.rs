//! Projected gradient descent: batches, restarts, steps, and the samples still in play.

use candle_core::{DType, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Strategy;
use super::objective::Loss;
use super::outcome::{AttackOutcome, AttackProgress, AttackStart, Query, Stopping};
use super::setup::{check_at_least_one, check_positive};
use super::step::{ascend, distance_up, is_in_ball, perturbed, random_start, retain_rows};
use crate::classifier::{Classifier, is_correct, logit_rows, predicted_class};
use crate::error::{Error, Result};
use crate::tensor::{Pixel, batch_size};

/// L2 projected gradient descent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pgd {
    /// ε: radius of the ball, positive.
    pub eps: f64,
    /// Number of steps, at least 1.
    pub steps: usize,
    /// Length of a step, positive.
    pub step_size: f64,
    /// What to climb.
    pub loss: Loss,
    /// Where to start.
    pub start: AttackStart,
    /// Number of starts, 1 to 65536; more than one only with [`AttackStart::Random`].
    pub restarts: usize,
    /// Decides all random starts.
    pub seed: u64,
    /// Whether to go on with broken samples.
    pub stopping: Stopping,
    /// Images in one forward pass, at least 1.
    pub batch_size: usize,
}

impl Pgd {
    /// The paper's settings: 200 steps of 0.01 from a random start, CW loss with κ = 50.
    ///
    /// At ε = 1.58 this is a weak attack: the path is 2.0 long, the ball 3.16 across.
    #[must_use]
    pub const fn paper(eps: f64, seed: u64) -> Self {
        Self {
            eps,
            steps: 200,
            step_size: 0.01,
            loss: Loss::CarliniWagner { confidence: 50.0 },
            start: AttackStart::Random,
            restarts: 1,
            seed,
            stopping: Stopping::WhenBroken,
            batch_size: 1000,
        }
    }

    /// Steps of `2.5 ε / steps`, which cross the ball whatever its size, and several random starts.
    #[must_use]
    pub fn strong(eps: f64, steps: usize, restarts: usize, seed: u64) -> Self {
        Self {
            steps,
            step_size: 2.5 * eps / steps.max(1) as f64,
            restarts,
            ..Self::paper(eps, seed)
        }
    }

    /// Attacks every image, reporting as `name`.
    pub(super) fn descend(
        &self,
        name: &'static str,
        query: Query<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        match query.images.dtype() {
            DType::F32 => Run::<f32>::new(self, name, query)?.all(progress),
            _ => Run::<f64>::new(self, name, query)?.all(progress),
        }
    }

    pub(super) fn check_settings(&self) -> Result<()> {
        self.loss.check()?;
        check_positive("eps", self.eps)?;
        check_positive("step_size", self.step_size)?;
        check_at_least_one("steps", self.steps)?;
        check_at_least_one("batch_size", self.batch_size)?;
        let (name, value) = ("restarts", self.restarts as f64);
        match (self.start, self.restarts) {
            (_, 1) | (AttackStart::Random, 2..=0x1_0000) => Ok(()),
            (AttackStart::Zero, _) => {
                Err(Error::InvalidSetting { name, value, expected: "1 with a zero start" })
            }
            _ => Err(Error::InvalidSetting { name, value, expected: "1 to 65536" }),
        }
    }
}

impl Strategy for Pgd {
    const NAME: &'static str = "pgd";

    fn eps(&self) -> f64 {
        self.eps
    }

    fn check(&self) -> Result<()> {
        self.check_settings()
    }

    fn attack(
        &self,
        query: Query<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        self.descend(Self::NAME, query, progress)
    }
}

/// One attack on one list of images.
struct Run<'a, T> {
    pgd: &'a Pgd,
    name: &'static str,
    classifier: &'a dyn Classifier,
    shape: Vec<usize>,
    n_values: usize,
    labels: &'a [usize],
    /// What names the samples in random streams.
    ids: Option<&'a [usize]>,
    images: Vec<T>,
    /// Where broken, an image that breaks; otherwise the last iterate.
    adversarial: Vec<T>,
    predictions: Vec<usize>,
    broken: Vec<bool>,
}

/// The samples of a batch that are still in play, and their perturbations, row by row.
struct Active<T> {
    samples: Vec<usize>,
    d: Vec<T>,
    iterate: Vec<T>,
}

impl<'a, T: Pixel> Run<'a, T> {
    fn new(pgd: &'a Pgd, name: &'static str, query: Query<'a>) -> Result<Self> {
        let Query { classifier, images, labels, ids, .. } = query;
        let (n, n_values) = batch_size(images)?;
        let shape = images.dims().to_vec();
        let images: Vec<T> = images.flatten_all()?.to_vec1()?;
        let adversarial = images.clone();
        let (predictions, broken) = (labels.to_vec(), vec![false; n]);
        Ok(Self {
            pgd,
            name,
            classifier,
            shape,
            n_values,
            labels,
            ids,
            images,
            adversarial,
            predictions,
            broken,
        })
    }

    fn all(mut self, progress: &mut dyn FnMut(AttackProgress)) -> Result<AttackOutcome> {
        let n = self.labels.len();
        for start in (0..n).step_by(self.pgd.batch_size) {
            let batch = start..n.min(start + self.pgd.batch_size);
            for restart in 0..self.pgd.restarts {
                let in_play = |&i: &usize| self.pgd.stopping == Stopping::Never || !self.broken[i];
                let samples: Vec<usize> = batch.clone().filter(in_play).collect();
                let mut report = |run: &Self, fraction: f64| {
                    let share = (restart as f64 + fraction) / self.pgd.restarts as f64;
                    let done = start as f64 + share * batch.len() as f64;
                    progress(run.progress(done / n as f64));
                };
                self.descend(samples, restart, &mut report)?;
            }
        }
        progress(self.progress(1.0));
        self.outcome()
    }

    fn progress(&self, fraction: f64) -> AttackProgress {
        let n_broken = self.broken.iter().filter(|&&broken| broken).count();
        AttackProgress { attack: self.name, fraction, n_broken, n_samples: self.labels.len() }
    }

    /// One restart: all steps for `samples`.
    fn descend(
        &mut self,
        samples: Vec<usize>,
        restart: usize,
        report: &mut dyn FnMut(&Self, f64),
    ) -> Result<()> {
        let mut active = self.start(samples, restart);
        for step in 0..=self.pgd.steps {
            if active.samples.is_empty() {
                break;
            }
            self.place(&mut active);
            let labels: Vec<usize> = active.samples.iter().map(|&i| self.labels[i]).collect();
            let last = step == self.pgd.steps;
            let images = self.tensor(&active)?;
            let (logits, gradient) = if last {
                (self.classifier.logits(&images)?, None)
            } else {
                let loss = |logits: &Tensor| self.pgd.loss.linearised(logits, &labels);
                let (logits, gradient) =
                    self.classifier.logits_and_input_gradient(&images, &loss)?;
                (logits, Some(gradient.flatten_all()?.to_vec1::<T>()?))
            };
            self.record(&active, &logit_rows(&logits)?, last);
            if let Some(gradient) = gradient {
                self.step(&mut active, gradient);
            }
            report(self, step as f64 / self.pgd.steps.max(1) as f64);
        }
        Ok(())
    }

    fn start(&self, samples: Vec<usize>, restart: usize) -> Active<T> {
        let (n_values, eps) = (self.n_values, self.pgd.eps);
        let mut d = vec![T::zero(); samples.len() * n_values];
        if self.pgd.start == AttackStart::Random {
            let (image, seed, ids) = (self.image_of(), self.pgd.seed, self.ids);
            d.par_chunks_exact_mut(n_values.max(1)).zip(&samples).for_each(|(d, &i)| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let id = ids.map_or(i, |ids| ids[i]);
                rng.set_stream((id as u64) << 16 | restart as u64);
                random_start(d, image(i), eps, &mut rng);
            });
        }
        let iterate = vec![T::zero(); d.len()];
        Active { samples, d, iterate }
    }

    /// Hands out images without borrowing the classifier, which threads may not share.
    fn image_of<'s>(&'s self) -> impl Fn(usize) -> &'s [T] + Sync + 's {
        let (images, n_values) = (self.images.as_slice(), self.n_values);
        move |i| &images[i * n_values..(i + 1) * n_values]
    }

    /// The iterates x + d of the samples in play.
    fn place(&self, active: &mut Active<T>) {
        let (n_values, image) = (self.n_values.max(1), self.image_of());
        active.iterate.truncate(active.d.len());
        let rows =
            active.iterate.par_chunks_exact_mut(n_values).zip(active.d.par_chunks_exact(n_values));
        rows.zip(&active.samples).for_each(|((iterate, d), &i)| perturbed(image(i), d, iterate));
    }

    fn tensor(&self, active: &Active<T>) -> Result<Tensor> {
        let mut shape = self.shape.clone();
        shape[0] = active.samples.len();
        Ok(Tensor::from_slice(&active.iterate, shape, self.classifier.device())?)
    }

    /// Notes which iterates break their sample; keeps the first such iterate, and the last one if it breaks.
    fn record(&mut self, active: &Active<T>, logits: &[Vec<f64>], last: bool) {
        let iterates = active.iterate.chunks_exact(self.n_values.max(1));
        for ((row, &i), iterate) in logits.iter().zip(&active.samples).zip(iterates) {
            let image = &self.images[i * self.n_values..(i + 1) * self.n_values];
            // what has left the ball or the box breaks nothing and is not reported
            let is_point = is_in_ball(iterate, image, self.pgd.eps);
            let breaks = is_point && !is_correct(row, self.labels[i]);
            let first_break = breaks && !self.broken[i];
            if first_break || (last && is_point && breaks == self.broken[i]) {
                self.adversarial[i * self.n_values..(i + 1) * self.n_values]
                    .copy_from_slice(iterate);
                self.predictions[i] = predicted_class(row);
            }
            self.broken[i] |= breaks;
        }
    }

    /// Drops broken samples where the settings say so, and moves the others one step.
    fn step(&self, active: &mut Active<T>, mut gradient: Vec<T>) {
        let n_values = self.n_values.max(1);
        if self.pgd.stopping == Stopping::WhenBroken {
            let keep: Vec<bool> = active.samples.iter().map(|&i| !self.broken[i]).collect();
            retain_rows(&mut active.d, n_values, &keep);
            retain_rows(&mut gradient, n_values, &keep);
            let mut kept = keep.iter();
            active.samples.retain(|_| *kept.next().expect("one flag for each sample"));
        }
        let (step, eps, image) = (self.pgd.step_size, self.pgd.eps, self.image_of());
        let rows = active.d.par_chunks_exact_mut(n_values).zip(gradient.par_chunks_exact(n_values));
        rows.zip(&active.samples).for_each(|((d, g), &i)| ascend(d, g, image(i), step, eps));
    }

    fn outcome(self) -> Result<AttackOutcome> {
        let n_values = self.n_values.max(1);
        let rows =
            self.adversarial.par_chunks_exact(n_values).zip(self.images.par_chunks_exact(n_values));
        let distances = rows.map(|(a, x)| distance_up(a, x)).collect();
        let adversarial = Tensor::from_vec(self.adversarial, self.shape, self.classifier.device())?;
        Ok(AttackOutcome {
            adversarial,
            predictions: self.predictions,
            broken: self.broken,
            distances,
        })
    }
}
