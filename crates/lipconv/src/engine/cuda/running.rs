//! Steps, epochs and forward passes of an engine, and why they fail.

use super::backend::{Address, Backend};
use super::emit::CONTROL_BYTES;
use super::settings::{SETTINGS_BYTES, StepSettings};
use super::status::{
    FAILED_DEFECT, FAILED_LOGITS, FAILED_RANK, OUTCOME_BYTES, SAMPLE_BYTES, Status, outcome,
    sample_bytes,
};
use super::{Descent, Engine, Graph, Resident, bytes_of, no_images, polar};
use crate::error::{Error, Result};
use crate::loss::{Loss, check_labels};
use crate::optim::Update;
use crate::train::batch::Sample;

impl Engine {
    /// Puts a data set on the device: `images` n x c x h x w bytes, one label each; epochs have at most `max_steps` steps.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::LabelOutOfRange`], [`Error::Device`].
    pub fn set_images(&mut self, images: &[u8], labels: &[u8], max_steps: usize) -> Result<()> {
        let n_values = self.blueprint.input.n_values();
        if images.len() != labels.len() * n_values {
            let (what, expected) = ("images".into(), vec![labels.len(), n_values]);
            return Err(Error::ShapeMismatch { what, expected, got: vec![images.len()] });
        }
        let labels_wide: Vec<u32> = labels.iter().copied().map(u32::from).collect();
        let of_distributions = matches!(self.method.loss, Loss::Wasserstein);
        check_labels(&labels_wide, if of_distributions { 2 } else { self.blueprint.n_classes() })?;
        let values: Vec<f32> = (0..=255_u8).map(|byte| f32::from(byte) / 255.0).collect();
        self.reserve_settings(max_steps)?;
        let device = &mut *self.device;
        if let Some(resident) = &mut self.resident
            && resident.n_images == labels.len()
            && resident.max_steps >= max_steps
        {
            // memory is never given back: what has the same size takes the same place
            resident.n_samples = 0;
            device.write(resident.images, images)?;
            return device.write(resident.labels, labels);
        }
        let place = |device: &mut dyn Backend, bytes: &[u8]| -> Result<Address> {
            let address = device.allocate(bytes.len())?;
            device.write(address, bytes)?;
            Ok(address)
        };
        self.resident = Some(Resident {
            images: place(device, images)?,
            labels: place(device, labels)?,
            values: place(device, &bytes_of(&values))?,
            samples: device.allocate(SAMPLE_BYTES * max_steps * self.batch)?,
            n_images: labels.len(),
            max_steps,
            n_samples: 0,
        });
        self.graphs.clear();
        Ok(())
    }

    fn reserve_settings(&mut self, n: usize) -> Result<()> {
        if n > self.memory.n_settings {
            self.memory.settings = self.device.allocate(SETTINGS_BYTES * n)?;
            self.memory.outcomes = self.device.allocate(OUTCOME_BYTES * n)?;
            self.memory.n_settings = n;
            self.graphs.clear();
        }
        Ok(())
    }

    /// Begins an epoch: its samples in order, and the learning rate and number (from 1) of each step, with the loss as at the start.
    /// The last batch is smaller where the samples are not whole batches.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when there are not as many rates as batches, or more than the device has room for; [`Error::InvalidSetting`] for an
    /// image that the device does not have.
    pub fn begin_epoch(&mut self, samples: &[Sample], rates: &[(f64, u64)]) -> Result<()> {
        let Descent { loss, optimizer, averaging } = self.method;
        let settings = rates.iter().map(|&(learning_rate, step)| {
            StepSettings::of(Update { optimizer, averaging, learning_rate, step }, &loss)
        });
        self.begin(samples, &settings.collect::<Vec<_>>())
    }

    fn begin(&mut self, samples: &[Sample], settings: &[StepSettings]) -> Result<()> {
        let resident = self.resident.as_mut().ok_or_else(no_images)?;
        let n_steps = samples.len().div_ceil(self.batch);
        if n_steps != settings.len() || n_steps > resident.max_steps {
            let what = "batches of an epoch".into();
            let expected = vec![n_steps.min(resident.max_steps)];
            return Err(Error::ShapeMismatch { what, expected, got: vec![settings.len()] });
        }
        check_samples(samples, resident.n_images)?;
        let bytes: Vec<u8> = samples.iter().flat_map(sample_bytes).collect();
        resident.n_samples = samples.len();
        self.device.write(resident.samples, &bytes)?;
        self.write_settings(settings)?;
        self.write_status(Status::default())
    }

    fn write_settings(&mut self, settings: &[StepSettings]) -> Result<()> {
        let bytes: Vec<u8> = settings.iter().flat_map(|settings| settings.bytes()).collect();
        self.device.write(self.memory.settings, &bytes)
    }

    /// Runs the next `n` steps of the epoch and waits for them.
    ///
    /// # Panics
    /// If the epoch has fewer.
    ///
    /// # Errors
    /// Why a step has failed, if one has: [`Error::NonFiniteSomewhere`], [`Error::Orthonormalisation`] or [`Error::Device`]. The steps before
    /// it are done, it and the others are not.
    pub fn run(&mut self, n: usize) -> Result<Status> {
        let mut done = self.status()?.batch as usize;
        let end = done + n;
        loop {
            for step in done..end {
                let left = self.resident.as_ref().map_or(0, |r| r.n_samples) - step * self.batch;
                self.perform(Graph::Resident(left.min(self.batch)))?;
            }
            let status = self.status()?;
            done = status.batch as usize;
            // short of it when a step has asked for more steps of a polar factor, which it has now
            if done == end {
                return Ok(status);
            }
        }
    }

    /// What the device has done; waits for it. A step that failed for want of steps of a polar factor has not been done, and will be
    /// done with more.
    ///
    /// # Errors
    /// Why a step has failed otherwise.
    pub(super) fn status(&mut self) -> Result<Status> {
        let mut bytes = [0; CONTROL_BYTES];
        self.device.read(self.memory.control, &mut bytes)?;
        let status = Status::of(&bytes);
        if status.failed == 0 {
            return Ok(status);
        }
        let error = self.failure(status.failed)?;
        let status = Status { failed: 0, ..status };
        self.write_status(status)?;
        self.device.write(self.memory.defects, &vec![0; 4 * self.layers.len()])?;
        error.map_or(Ok(status), Err)
    }

    pub(super) fn write_status(&mut self, status: Status) -> Result<()> {
        self.device.write(self.memory.control, &status.bytes())
    }

    /// Why a step has failed; `None` if it can be done in another way, for which everything is prepared.
    fn failure(&mut self, failed: u32) -> Result<Option<Error>> {
        let defects = self.read(self.memory.defects, self.layers.len())?;
        if failed & (FAILED_DEFECT | FAILED_RANK) != 0 {
            let mut prepared = failed & FAILED_RANK == 0;
            for (layer, _) in self.layers.iter_mut().zip(&defects).filter(|(_, d)| **d > 1.0) {
                prepared &= layer.weight.raise_level();
            }
            if prepared {
                self.graphs.clear();
                return Ok(None);
            }
            let at_fault = defects.iter().position(|&defect| defect > 1.0).unwrap_or(0);
            let source = projectors::Error::NotConverged {
                method: "polar express",
                iterations: polar::MAX_STEPS,
                residual: f64::from(defects[at_fault]),
                tolerance: 1.0,
            };
            let layer = self.blueprint.layers[at_fault].name.clone();
            return Ok(Some(Error::Orthonormalisation { layer, source }));
        }
        Ok(Some(self.not_finite(failed)?))
    }

    fn not_finite(&mut self, failed: u32) -> Result<Error> {
        if failed & FAILED_LOGITS != 0 {
            return Ok(Error::NonFiniteSomewhere { what: "logits".into() });
        }
        let gradients = self.read(self.memory.gradients, self.memory.n_parameters)?;
        let mut rest = gradients.as_slice();
        for layer in &self.blueprint.layers {
            for (kind, n) in [("weight", layer.n_weights), ("bias", layer.n_out)] {
                let (own, others) = rest.split_at(n);
                rest = others;
                if own.iter().any(|x| !x.is_finite()) {
                    let what = format!("gradient of {}.{kind}", layer.name);
                    return Ok(Error::NonFiniteSomewhere { what });
                }
            }
        }
        Ok(Error::NonFiniteSomewhere { what: "a gradient".into() })
    }

    /// One step on a batch that the host has, with the loss as at the start; waits for it.
    ///
    /// # Errors
    /// As for [`Engine::run`].
    pub fn step(
        &mut self,
        images: &[f32],
        labels: &[u32],
        learning_rate: f64,
        step: u64,
    ) -> Result<(f64, usize)> {
        let Descent { loss, optimizer, averaging } = self.method;
        let update = Update { optimizer, averaging, learning_rate, step };
        self.step_on_images(images, labels, StepSettings::of(update, &loss))
    }

    pub(super) fn step_on_images(
        &mut self,
        images: &[f32],
        labels: &[u32],
        settings: StepSettings,
    ) -> Result<(f64, usize)> {
        self.copy_images(images)?;
        let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        self.device.write(self.memory.labels, &bytes)?;
        self.one_step(Graph::Copied(labels.len()), settings)
    }

    /// One step on images that lie on the device, channels first, and have been written; they have been read when it returns.
    #[cfg(feature = "cuda")]
    pub(super) fn step_on_device_images(
        &mut self,
        images: Address,
        labels: &[u32],
        settings: StepSettings,
    ) -> Result<(f64, usize)> {
        let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        self.device.write(self.memory.labels, &bytes)?;
        let n_values = labels.len() * self.blueprint.input.n_values();
        self.device.copy(images, self.memory.copied, 4 * n_values)?;
        self.one_step(Graph::Copied(labels.len()), settings)
    }

    /// One step for each of the settings on samples of the images that the device has, whole batches but for the last. Waits for them once,
    /// and appends the mean loss and the number of correct samples of every step that was done to `done`, also when a later one fails.
    ///
    /// # Errors
    /// As for [`Engine::begin_epoch`] and [`Engine::run`].
    pub(super) fn steps_on_samples(
        &mut self,
        samples: &[Sample],
        settings: &[StepSettings],
        done: &mut Vec<(f64, usize)>,
    ) -> Result<()> {
        self.begin(samples, settings)?;
        let ended = self.run(settings.len());
        let n_done = match &ended {
            Ok(status) => status.batch,
            Err(_) => self.status()?.batch,
        };
        let mut bytes = vec![0; OUTCOME_BYTES * n_done as usize];
        self.device.read(self.memory.outcomes, &mut bytes)?;
        let (outcomes, _) = bytes.as_chunks::<OUTCOME_BYTES>();
        done.extend(outcomes.iter().map(outcome));
        ended.map(|_| ())
    }

    fn one_step(&mut self, wanted: Graph, settings: StepSettings) -> Result<(f64, usize)> {
        self.write_settings(&[settings])?;
        self.write_status(Status::default())?;
        loop {
            self.perform(wanted)?;
            let status = self.status()?;
            if status.batch > 0 {
                return Ok((status.loss, status.correct as usize));
            }
        }
    }

    /// Logits of at most a batch of images, row-major; waits for them.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>> {
        let n = images.len() / self.blueprint.input.n_values();
        self.pass(Graph::Logits(n), images, &[])?;
        self.read_logits(n)
    }

    /// Logits of at most a batch of images, and the gradient of `Σ d_logits · logits` in the images, both row-major.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn input_gradient(
        &mut self,
        images: &[f32],
        d_logits: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let n = images.len() / self.blueprint.input.n_values();
        self.pass(Graph::InputGradient(n), images, d_logits)?;
        let gradient = self.read(self.memory.copied, images.len())?;
        Ok((self.read_logits(n)?, gradient))
    }

    /// A pass that is no step; once more where a polar factor asks for more steps.
    fn pass(&mut self, wanted: Graph, images: &[f32], d_logits: &[f32]) -> Result<()> {
        loop {
            // the gradient of the images takes their place
            self.ready(wanted)?;
            self.copy_images(images)?;
            if let Some(last) = self.layers.last() {
                self.device.write(last.dy, &bytes_of(d_logits))?;
            }
            self.perform(wanted)?;
            let levels = self.levels();
            self.status()?;
            if levels == self.levels() {
                return Ok(());
            }
        }
    }

    fn read_logits(&mut self, n: usize) -> Result<Vec<f32>> {
        let logits = self.layers.last().map_or(0, |layer| layer.y);
        self.read(logits, n * self.blueprint.n_classes())
    }

    fn copy_images(&mut self, images: &[f32]) -> Result<()> {
        if images.len() > self.batch * self.blueprint.input.n_values() {
            let (what, expected) = ("batch of images".into(), vec![self.batch]);
            return Err(Error::ShapeMismatch { what, expected, got: vec![images.len()] });
        }
        self.device.write(self.memory.copied, &bytes_of(images))
    }
}

fn check_samples(samples: &[Sample], n_images: usize) -> Result<()> {
    match samples.iter().find(|sample| sample.image as usize >= n_images) {
        None => Ok(()),
        Some(sample) => Err(Error::InvalidSetting {
            name: "image",
            value: sample.image.to_string(),
            expected: "an index of the data set",
        }),
    }
}
