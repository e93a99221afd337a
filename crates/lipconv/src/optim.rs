//! Adam, NAdam and RMSprop, each in one pass over a parameter, and learning-rate schedules.
//!
//! All as PyTorch runs them, without weight decay; g is the gradient and η the learning rate.
//! * Adam (Kingma and Ba 2015), at step t = 1, 2, …: `m ← β1 m + (1-β1) g`, `v ← β2 v + (1-β2) g²`,
//!   `p ← p - η/(1-β1ᵗ) · m / (√v/√(1-β2ᵗ) + ε)`. Cost: 4 reads and 3 writes of each value, no temporaries.
//! * RMSprop (Tieleman and Hinton 2012), without momentum and not centred: `s ← α s + (1-α) g²`, `p ← p - η g / (√s + ε)`.
//!   Cost: 3 reads and 2 writes.
//! * NAdam: see [`NAdamConfig`].

mod averaging;
mod nadam;
mod schedule;

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, Var};
use projectors::Real;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::element::Element;
use crate::error::{Error, Result};

pub use averaging::Averaging;
pub use nadam::NAdamConfig;
pub use schedule::{PAPER_EPOCHS, PAPER_GAMMA, Schedule};

/// What changes the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Optimizer {
    /// Adam.
    Adam(AdamConfig),
    /// RMSprop.
    RmsProp(RmsPropConfig),
    /// Adam with Nesterov's momentum.
    NAdam(NAdamConfig),
}

impl Default for Optimizer {
    /// Adam with the paper's settings.
    fn default() -> Self {
        Self::Adam(AdamConfig::default())
    }
}

impl Optimizer {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Adam(config) => config.validate(),
            Self::RmsProp(config) => config.validate(),
            Self::NAdam(config) => config.validate(),
        }
    }

    /// Names of the running means that it keeps of every parameter, as checkpoints have them.
    pub(crate) fn moment_names(&self) -> &'static [&'static str] {
        match self {
            Self::Adam(_) => &["adam.first", "adam.second"],
            Self::RmsProp(_) => &["rmsprop.square"],
            Self::NAdam(_) => &["nadam.first", "nadam.second"],
        }
    }
}

#[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
impl Optimizer {
    /// The factors of one step that a device reads: of the gradient or its mean, NAdam's of the mean, and of the root of the
    /// squares' mean.
    pub(crate) fn step_factors(&self, learning_rate: f64, step: u64) -> (f64, f64, f64) {
        let t = step as f64;
        match self {
            Self::Adam(config) => {
                let rate = learning_rate / (1.0 - config.beta1.powf(t));
                (rate, 0.0, 1.0 / (1.0 - config.beta2.powf(t)).sqrt())
            }
            Self::NAdam(config) => {
                let factors = config.factors(learning_rate, step);
                (factors.of_gradient, factors.of_mean, factors.root_correction)
            }
            Self::RmsProp(_) => (learning_rate, 0.0, 0.0),
        }
    }
}

/// Settings of RMSprop.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RmsPropConfig {
    /// Decay α of the mean of the squared gradient, in [0, 1).
    pub alpha: f64,
    /// Added to the denominator, > 0.
    pub epsilon: f64,
}

impl Default for RmsPropConfig {
    /// PyTorch's: 0.99, 1e-8.
    fn default() -> Self {
        Self { alpha: 0.99, epsilon: 1e-8 }
    }
}

impl RmsPropConfig {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        decay("alpha", self.alpha)?;
        positive("epsilon", self.epsilon)
    }
}

fn decay(name: &'static str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::InvalidSetting { name, value: value.to_string(), expected: "a number in [0, 1)" })
}

fn positive(name: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::InvalidSetting { name, value: value.to_string(), expected: "a positive number" })
}

/// Settings of Adam.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    /// Decay of the mean of the gradient, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean of its square, in [0, 1).
    pub beta2: f64,
    /// Added to the denominator, > 0.
    pub epsilon: f64,
}

impl Default for AdamConfig {
    /// PyTorch's and the paper's: 0.9, 0.999, 1e-8.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl AdamConfig {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        decay("beta1", self.beta1)?;
        decay("beta2", self.beta2)?;
        positive("epsilon", self.epsilon)
    }
}

/// What an optimiser step needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Update {
    pub(crate) optimizer: Optimizer,
    pub(crate) averaging: Averaging,
    pub(crate) learning_rate: f64,
    /// Counts from 1.
    pub(crate) step: u64,
}

/// The running means of one parameter, as many as its optimiser keeps, and then its average; none for a parameter that is not trained.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moments<T>(pub(crate) Vec<Vec<T>>);

impl<T: Real> Moments<T> {
    /// So many running means of `n` values.
    #[cfg(any(test, feature = "gan"))]
    pub(crate) fn zeros(n_means: usize, n: usize) -> Self {
        Self(vec![vec![T::zero(); n]; n_means])
    }
}

/// Values that one task updates.
const BLOCK: usize = 1 << 14;

/// One step of Adam on `parameter`; `step` counts from 1.
fn adam_step<T: Real>(
    config: &AdamConfig,
    learning_rate: f64,
    step: u64,
    parameter: &mut [T],
    gradient: &[T],
    [first, second]: [&mut [T]; 2],
) {
    let t = step as f64;
    let step_size = T::of(learning_rate / (1.0 - config.beta1.powf(t)));
    let root_correction = T::of(1.0 / (1.0 - config.beta2.powf(t)).sqrt());
    let (beta1, beta2, epsilon) = (T::of(config.beta1), T::of(config.beta2), T::of(config.epsilon));
    let (rest1, rest2) = (T::of(1.0 - config.beta1), T::of(1.0 - config.beta2));
    let update = |((p, &g), (m, v)): ((&mut T, &T), (&mut T, &mut T))| {
        *m = beta1 * *m + rest1 * g;
        *v = beta2 * *v + rest2 * g * g;
        *p -= step_size * *m / (num_traits::Float::sqrt(*v) * root_correction + epsilon);
    };
    let blocks = parameter.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK));
    let moments = first.par_chunks_mut(BLOCK).zip(second.par_chunks_mut(BLOCK));
    blocks.zip(moments).for_each(|((parameter, gradient), (first, second))| {
        parameter.iter_mut().zip(gradient).zip(first.iter_mut().zip(second)).for_each(update);
    });
}

/// One step of RMSprop on `parameter`.
fn rms_prop_step<T: Real>(
    config: &RmsPropConfig,
    learning_rate: f64,
    parameter: &mut [T],
    gradient: &[T],
    square: &mut [T],
) {
    let (alpha, rest) = (T::of(config.alpha), T::of(1.0 - config.alpha));
    let (step_size, epsilon) = (T::of(learning_rate), T::of(config.epsilon));
    let update = |((p, &g), s): ((&mut T, &T), &mut T)| {
        *s = alpha * *s + rest * g * g;
        *p -= step_size * g / (num_traits::Float::sqrt(*s) + epsilon);
    };
    let blocks = parameter.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK));
    blocks.zip(square.par_chunks_mut(BLOCK)).for_each(|((parameter, gradient), square)| {
        parameter.iter_mut().zip(gradient).zip(square).for_each(update);
    });
}

/// One step of `update`'s optimiser, which the average follows.
fn step<T: Real>(update: Update, parameter: &mut [T], gradient: &[T], moments: &mut Moments<T>) {
    let Update { optimizer, averaging, learning_rate, step } = update;
    let (moments, average) = moments.0.split_at_mut(optimizer.moment_names().len());
    if let [average] = average {
        averaging.begin(step, parameter, average);
    }
    match (optimizer, moments) {
        (Optimizer::Adam(config), [first, second]) => {
            adam_step(&config, learning_rate, step, parameter, gradient, [first, second]);
        }
        (Optimizer::NAdam(config), [first, second]) => {
            nadam::step(&config, learning_rate, step, parameter, gradient, [first, second]);
        }
        (Optimizer::RmsProp(config), [square]) => {
            rms_prop_step(&config, learning_rate, parameter, gradient, square);
        }
        _ => unreachable!("moments are made and read with the names of their optimiser"),
    }
    if let [average] = average {
        averaging.follow(step, parameter, average);
    }
}

/// One step on a variable on the CPU, in place.
pub(crate) fn update_variable<T: Element>(
    variable: &Var,
    gradient: &[T],
    moments: &mut Moments<T>,
    update: Update,
) -> Result<()> {
    let op = StepOp { gradient, moments: RefCell::new(moments), update };
    Ok(variable.inplace_op1(&op)?)
}

/// One step on a variable on any device, in candle's operations.
pub(crate) fn update_tensors(
    variable: &Var,
    gradient: &Tensor,
    moments: &mut [Tensor],
    update: Update,
) -> Result<()> {
    let Update { optimizer, averaging, learning_rate, step } = update;
    let (moments, average) = moments.split_at_mut(optimizer.moment_names().len());
    if let [average] = average {
        averaging.begin_tensors(step, variable, average)?;
    }
    let change = match (optimizer, moments) {
        (Optimizer::Adam(config), [first, second]) => {
            *first = mean(first, gradient, config.beta1)?;
            *second = mean(second, &gradient.sqr()?, config.beta2)?;
            let t = step as f64;
            let step_size = learning_rate / (1.0 - config.beta1.powf(t));
            let root_correction = 1.0 / (1.0 - config.beta2.powf(t)).sqrt();
            let divisor = ((second.sqrt()? * root_correction)? + config.epsilon)?;
            ((&*first * step_size)? / divisor)?
        }
        (Optimizer::NAdam(config), [first, second]) => {
            nadam::change(&config, learning_rate, step, gradient, [first, second])?
        }
        (Optimizer::RmsProp(config), [square]) => {
            *square = mean(square, &gradient.sqr()?, config.alpha)?;
            ((gradient * learning_rate)? / (square.sqrt()? + config.epsilon)?)?
        }
        _ => unreachable!("moments are made and read with the names of their optimiser"),
    };
    variable.set(&(variable.as_tensor().detach() - change)?)?;
    match average {
        [average] => averaging.follow_tensors(step, variable, average),
        _ => Ok(()),
    }
}

/// A running mean after one more value.
fn mean(old: &Tensor, new: &Tensor, decay: f64) -> Result<Tensor> {
    Ok(((old * decay)? + (new * (1.0 - decay))?)?)
}

/// [`step`] as an in-place operation: candle hands out the variable's storage for writing.
struct StepOp<'a, T> {
    gradient: &'a [T],
    moments: RefCell<&'a mut Moments<T>>,
    update: Update,
}

impl<T: Element> InplaceOp1 for StepOp<'_, T> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| candle_core::Error::Msg("a variable is contiguous".into()).bt())?;
        let values = T::storage_mut(storage)?;
        step(self.update, &mut values[start..end], self.gradient, &mut self.moments.borrow_mut());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRADIENTS: [[f64; 3]; 3] = [[0.5, -1.0, 1e-3], [-0.25, 2.0, 0.0], [3.0, 0.125, -1e-3]];
    const START: [f64; 3] = [1.0, -2.0, 0.5];

    /// Steps of rate 0.01 from [`START`] with the three gradients in turn, as PyTorch does them in f64.
    #[track_caller]
    fn check_steps<T: Real>(optimizer: Optimizer, n_steps: u64, expected: [f64; 3]) {
        let mut parameter = START.map(T::of);
        let mut moments = Moments::zeros(optimizer.moment_names().len(), 3);
        for (n, gradient) in (1..=n_steps).zip(GRADIENTS.iter().cycle()) {
            let averaging = Averaging::None;
            let update = Update { optimizer, averaging, learning_rate: 1e-2, step: n };
            step(update, &mut parameter, &gradient.map(T::of), &mut moments);
        }
        for (got, expected) in parameter.iter().zip(expected) {
            let error = (got.as_f64() - expected).abs();
            let allowed = 8.0 * T::EPS * expected.abs().max(1.0) * (n_steps as f64 / 3.0).sqrt();
            assert!(error <= allowed, "{optimizer:?}: {got} and {expected}");
        }
    }

    #[track_caller]
    fn check<T: Real>(optimizer: Optimizer, expected: [f64; 3]) {
        check_steps::<T>(optimizer, 3, expected);
    }

    #[test]
    fn steps_are_those_of_pytorch() {
        let adam = Optimizer::default();
        let adam_ends_at =
            [0.980_679_588_766_468_5, -1.996_843_373_788_594, 0.484_158_278_868_553_95];
        check::<f64>(adam, adam_ends_at);
        check::<f32>(adam, adam_ends_at);
        let rms_prop = Optimizer::RmsProp(RmsPropConfig::default());
        let rms_prop_ends_at =
            [0.846_563_938_538_068_7, -1.995_147_387_964_619_5, 0.471_070_060_010_004_4];
        check::<f64>(rms_prop, rms_prop_ends_at);
        check::<f32>(rms_prop, rms_prop_ends_at);
    }
    /// The second set of values is after 600 steps, where the product of all momenta has long been 0.
    #[test]
    fn nadam_steps_are_those_of_pytorch() {
        let nadam = Optimizer::NAdam(NAdamConfig::default());
        let after_three =
            [0.982_403_350_548_862_6, -1.999_490_925_362_33, 0.496_323_290_939_032_66];
        check::<f64>(nadam, after_three);
        check::<f32>(nadam, after_three);
        let after_many =
            [-2.673_224_171_109_524, -3.711_831_362_471_074_6, 0.496_324_570_822_489_7];
        check_steps::<f64>(nadam, 600, after_many);
        check_steps::<f32>(nadam, 600, after_many);
    }

    const AVERAGINGS: [Averaging; 4] = [
        Averaging::None,
        Averaging::Exponential { decay: 0.9 },
        Averaging::Lookahead { period: 2, rate: 0.5 },
        Averaging::Lookahead { period: 1, rate: 1.0 },
    ];

    /// Parameter and running means after nine steps; the average is the last of them.
    fn nine_steps(optimizer: Optimizer, averaging: Averaging) -> ([f64; 3], Moments<f64>) {
        let mut parameter = START;
        let n_means = optimizer.moment_names().len() + averaging.names().len();
        let mut moments = Moments::zeros(n_means, 3);
        for (n, gradient) in (1..=9).zip(GRADIENTS.iter().cycle()) {
            let update = Update { optimizer, averaging, learning_rate: 1e-2, step: n };
            step(update, &mut parameter, gradient, &mut moments);
        }
        (parameter, moments)
    }

    /// The same steps in candle's operations.
    #[test]
    fn tensors_take_the_steps_of_slices() {
        let optimizers = [
            Optimizer::default(),
            Optimizer::NAdam(NAdamConfig::default()),
            Optimizer::RmsProp(RmsPropConfig::default()),
        ];
        for (optimizer, averaging) in optimizers.iter().flat_map(|&o| AVERAGINGS.map(|a| (o, a))) {
            let (parameter, moments) = nine_steps(optimizer, averaging);
            let device = candle_core::Device::Cpu;
            let variable = Var::new(&START, &device).unwrap();
            let mut tensors = vec![variable.zeros_like().unwrap(); moments.0.len()];
            for (n, gradient) in (1..=9).zip(GRADIENTS.iter().cycle()) {
                let update = Update { optimizer, averaging, learning_rate: 1e-2, step: n };
                let gradient = Tensor::new(gradient, &device).unwrap();
                update_tensors(&variable, &gradient, &mut tensors, update).unwrap();
            }
            let close = |tensor: &Tensor, expected: &[f64]| {
                for (got, expected) in tensor.to_vec1::<f64>().unwrap().iter().zip(expected) {
                    let error = (got - expected).abs();
                    assert!(error <= 1e-13, "{optimizer:?} {averaging:?}: {got}, {expected}");
                }
            };
            close(variable.as_tensor(), &parameter);
            tensors.iter().zip(&moments.0).for_each(|(tensor, mean)| close(tensor, mean));
        }
    }

    /// The parameters after every one of nine steps of Adam, without an average.
    fn trajectory() -> Vec<[f64; 3]> {
        let (mut parameter, mut moments) = (START, Moments::zeros(2, 3));
        let steps = (1..=9).zip(GRADIENTS.iter().cycle()).map(|(n, gradient)| {
            let optimizer = Optimizer::default();
            let averaging = Averaging::None;
            let update = Update { optimizer, averaging, learning_rate: 1e-2, step: n };
            step(update, &mut parameter, gradient, &mut moments);
            parameter
        });
        steps.collect()
    }

    #[test]
    fn the_exponential_average_is_the_weighted_mean_of_all_steps() {
        let decay = 0.35;
        let averaging = Averaging::Exponential { decay };
        let (parameter, moments) = nine_steps(Optimizer::default(), averaging);
        let steps = trajectory();
        assert_eq!(parameter, steps[8], "the average has no influence on the steps");
        for (i, average) in moments.0[2].iter().enumerate() {
            // each step's weight: what it entered with, times all later decays
            let decay_at = |t: usize| decay.min((t - 1) as f64 / (t + 9) as f64);
            let weight = |t: usize| (t + 1..=9).fold(1.0 - decay_at(t), |w, s| w * decay_at(s));
            let mean = (1..=9).map(|t| weight(t) * steps[t - 1][i]).sum::<f64>();
            let total = (1..=9).map(weight).sum::<f64>();
            assert!((total - 1.0).abs() < 1e-14 && (average - mean).abs() < 1e-14, "{average}");
        }
    }

    #[test]
    fn lookahead_calls_the_fast_parameters_back() {
        let averaging = Averaging::Lookahead { period: 2, rate: 0.5 };
        let (mut parameter, mut moments) = (START, Moments::zeros(2, 3));
        let mut slow = START;
        for (n, gradient) in (1..=9).zip(GRADIENTS.iter().cycle()) {
            let optimizer = Optimizer::default();
            let update =
                Update { optimizer, averaging: Averaging::None, learning_rate: 1e-2, step: n };
            step(update, &mut parameter, gradient, &mut moments);
            if n % 2 == 0 {
                for (slow, fast) in slow.iter_mut().zip(&mut parameter) {
                    *slow = 0.5 * *slow + 0.5 * *fast;
                    *fast = *slow;
                }
            }
        }
        let (fast, moments) = nine_steps(Optimizer::default(), averaging);
        for i in 0..3 {
            assert!((fast[i] - parameter[i]).abs() < 1e-14, "{fast:?} and {parameter:?}");
            assert!((moments.0[2][i] - slow[i]).abs() < 1e-14);
        }
        // with a period of 1 and the whole way, the slow parameters are the fast ones
        let (fast, moments) = nine_steps(Optimizer::default(), AVERAGINGS[3]);
        assert_eq!((fast, moments.0[2].as_slice()), (trajectory()[8], fast.as_slice()));
    }
}
