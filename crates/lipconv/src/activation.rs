//! Activations: everything that a nonlinearity is, in one place.
//!
//! Definition, on the c channels of an image or the c features of a vector:
//! * MaxMin: `y[i] = max(x[i], x[i + c/2])`, `y[i + c/2] = min(x[i], x[i + c/2])` for i < c/2.
//! * GroupSort: consecutive groups of `group` channels, each sorted in ascending order.
//! * ReLU: `max(x, 0)`.
//!
//! Guarantee. Each is 1-Lipschitz and only compares and moves values: it is exact in any arithmetic. MaxMin and GroupSort
//! permute the values at every point and so keep gradient norms; ReLU, for comparison, does not.
//!
//! On the CPU an activation works in place on one signal of `channels x plane` values (plane = 1 for a vector), in one pass,
//! and records its decisions for the adjoint, one byte each: for MaxMin whether the pair was exchanged, for ReLU whether the
//! value passed, for GroupSort where each sorted value came from. On ties MaxMin does not exchange, ReLU does not pass 0,
//! GroupSort keeps the order (stable).

use std::fmt;
use std::str::FromStr;

use candle_core::{CpuStorage, Shape, Tensor};
use projectors::Real;
use serde::{Deserialize, Serialize};

use crate::cpu_op::{Input, cpu_op};
use crate::element::{Element, cpu_slice, engine_runs};
use crate::error::{Error, Result};
use crate::shape::SignalShape;

/// A nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
#[non_exhaustive]
pub enum Activation {
    /// Maxima of channel i and i + c/2 first, minima after them.
    MaxMin,
    /// Consecutive groups of `group` channels, ascending.
    GroupSort {
        /// Channels in a group.
        group: usize,
    },
    /// max(x, 0).
    Relu,
}

/// As files have it; the braces make serde refuse members that it does not know.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
enum Stored {
    MaxMin {},
    GroupSort { group: usize },
    Relu {},
}

/// As commands and configurations have it: `maxmin`, `relu`, or `groupsort:5` for groups of 5.
impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GroupSort { group } => write!(f, "{}:{group}", self.name()),
            other => f.pad(other.name()),
        }
    }
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let group = text.strip_prefix("groupsort:").and_then(|group| group.parse().ok());
        match (text, group) {
            ("maxmin", _) => Ok(Self::MaxMin),
            ("relu", _) => Ok(Self::Relu),
            (_, Some(group)) if group > 0 => Ok(Self::GroupSort { group }),
            _ => {
                let known = vec!["maxmin", "groupsort:GROUP", "relu"];
                Err(Error::UnknownName { what: "activation", name: text.to_owned(), known })
            }
        }
    }
}

impl From<Stored> for Activation {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::MaxMin {} => Self::MaxMin,
            Stored::GroupSort { group } => Self::GroupSort { group },
            Stored::Relu {} => Self::Relu,
        }
    }
}

impl From<Activation> for Stored {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::MaxMin => Self::MaxMin {},
            Activation::GroupSort { group } => Self::GroupSort { group },
            Activation::Relu => Self::Relu {},
        }
    }
}

/// Largest group that the byte-wide record can describe; larger ones take the tensor path.
const MAX_GROUP: usize = 256;

impl Activation {
    /// The name of the kind, as in the names of layers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxMin => "maxmin",
            Self::GroupSort { .. } => "groupsort",
            Self::Relu => "relu",
        }
    }

    /// The name that tables print.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::MaxMin => "MaxMin",
            Self::GroupSort { .. } => "GroupSort",
            Self::Relu => "ReLU",
        }
    }

    /// Its number in the kernels of the CUDA engine (`cuda/activation.cu`), which does not run those without one.
    #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
    pub(crate) fn kernel_number(self) -> Option<u32> {
        match self {
            Self::MaxMin => Some(1),
            Self::Relu => Some(2),
            Self::GroupSort { .. } => self.has_record().then_some(3),
        }
    }

    /// Channels that belong together: their number must divide.
    pub(crate) fn group(self) -> usize {
        match self {
            Self::MaxMin => 2,
            Self::GroupSort { group } => group,
            Self::Relu => 1,
        }
    }

    /// The activation as tensor operations on b x c x …, differentiable by candle.
    ///
    /// # Errors
    /// [`Error::GroupsDoNotDivide`] when the number of channels does not divide into groups.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        check_groups(self.group(), x.dims().get(1).copied().unwrap_or(0), self.name())?;
        if x.device().is_cpu() && engine_runs(x.dtype()) && x.elem_count() > 0 && self.has_record()
        {
            return Ok(x.contiguous()?.apply_op1(ActivationOp(self))?);
        }
        #[cfg(feature = "cuda")]
        if self == Self::MaxMin
            && let Some(y) = crate::engine::cuda::tensor_kernels::max_min(x)?
        {
            return Ok(y);
        }
        Ok(match self {
            Self::MaxMin => {
                let half = x.dims()[1] / 2;
                let (a, b) = (x.narrow(1, 0, half)?, x.narrow(1, half, half)?);
                Tensor::cat(&[a.maximum(&b)?, a.minimum(&b)?], 1)?
            }
            Self::GroupSort { group } => {
                let (batch, channels) = (x.dims()[0], x.dims()[1]);
                let plane = x.elem_count() / (batch * channels).max(1);
                let groups = x.reshape((batch, channels / group, group, plane))?;
                let groups = groups.transpose(2, 3)?.contiguous()?;
                let order = groups.detach().arg_sort_last_dim(true)?;
                groups.gather(&order, 3)?.transpose(2, 3)?.contiguous()?.reshape(x.shape())?
            }
            Self::Relu => x.relu()?,
        })
    }

    /// The shape that it makes of `input`, which is the same.
    pub(crate) fn output_shape(self, input: SignalShape, layer: &str) -> Result<SignalShape> {
        check_groups(self.group(), input.n_channels(), layer).map(|()| input)
    }

    /// Whether bytes can record the decisions.
    pub(crate) fn has_record(self) -> bool {
        self.group() < MAX_GROUP
    }

    /// Bytes of the record for a signal of `n` values.
    pub(crate) fn record_len(self, n: usize) -> usize {
        match self {
            Self::MaxMin => n / 2,
            Self::GroupSort { .. } | Self::Relu => n,
        }
    }

    /// Applies the activation to `values` = channels x `plane`, and records its decisions.
    pub(crate) fn apply<T: Real>(self, values: &mut [T], plane: usize, record: &mut [u8]) {
        match self {
            Self::MaxMin => max_min(values, record),
            Self::GroupSort { group } => group_sort(values, plane, group, record),
            Self::Relu => relu(values, record),
        }
    }

    /// Replaces the gradient of the output by the gradient of the input.
    pub(crate) fn pull_back<T: Real>(self, gradient: &mut [T], plane: usize, record: &[u8]) {
        match self {
            // exchanging a pair is its own adjoint
            Self::MaxMin => exchange(gradient, record),
            Self::GroupSort { group } => group_unsort(gradient, plane, group, record),
            Self::Relu => {
                for (g, &passed) in gradient.iter_mut().zip(record) {
                    *g = if passed != 0 { *g } else { T::zero() };
                }
            }
        }
    }
}

fn check_groups(group: usize, channels: usize, layer: &str) -> Result<()> {
    if group == 0 || !channels.is_multiple_of(group) {
        return Err(Error::GroupsDoNotDivide { layer: layer.to_owned(), channels, group });
    }
    Ok(())
}

fn max_min<T: Real>(values: &mut [T], record: &mut [u8]) {
    let (first, second) = values.split_at_mut(record.len());
    for ((a, b), exchanged) in first.iter_mut().zip(second).zip(record) {
        let (x, y) = (*a, *b);
        let swap = x < y;
        *a = if swap { y } else { x };
        *b = if swap { x } else { y };
        *exchanged = u8::from(swap);
    }
}

fn exchange<T: Real>(gradient: &mut [T], record: &[u8]) {
    let (first, second) = gradient.split_at_mut(record.len());
    for ((a, b), &exchanged) in first.iter_mut().zip(second).zip(record) {
        let (x, y) = (*a, *b);
        let swap = exchanged != 0;
        *a = if swap { y } else { x };
        *b = if swap { x } else { y };
    }
}

fn relu<T: Real>(values: &mut [T], record: &mut [u8]) {
    for (x, passed) in values.iter_mut().zip(record) {
        let keep = *x > T::zero();
        *passed = u8::from(keep);
        // written so that NaN stays NaN instead of becoming a plausible 0
        *x = if *x <= T::zero() { T::zero() } else { *x };
    }
}

/// Insertion sort of every group at every pixel; `record` holds for each sorted place its origin.
fn group_sort<T: Real>(values: &mut [T], plane: usize, group: usize, record: &mut [u8]) {
    let groups = values.chunks_exact_mut(group * plane).zip(record.chunks_exact_mut(group * plane));
    for (values, record) in groups {
        for (channel, record) in record.chunks_exact_mut(plane).enumerate() {
            record.fill(u8::try_from(channel).unwrap_or(u8::MAX));
        }
        for channel in 1..group {
            for place in (1..=channel).rev() {
                let (low, high) = ((place - 1) * plane, place * plane);
                let mut moved = false;
                for pixel in 0..plane {
                    if values[low + pixel] > values[high + pixel] {
                        values.swap(low + pixel, high + pixel);
                        record.swap(low + pixel, high + pixel);
                        moved = true;
                    }
                }
                if !moved {
                    break;
                }
            }
        }
    }
}

fn group_unsort<T: Real>(gradient: &mut [T], plane: usize, group: usize, record: &[u8]) {
    let mut original = [T::zero(); MAX_GROUP];
    let groups = gradient.chunks_exact_mut(group * plane).zip(record.chunks_exact(group * plane));
    for (gradient, record) in groups {
        for pixel in 0..plane {
            for place in 0..group {
                original[usize::from(record[place * plane + pixel])] =
                    gradient[place * plane + pixel];
            }
            for place in 0..group {
                gradient[place * plane + pixel] = original[place];
            }
        }
    }
}

/// An activation on b x c x … with its adjoint.
struct ActivationOp(Activation);

impl ActivationOp {
    fn forward<T: Element>(
        &self,
        [(storage, layout)]: [Input<'_>; 1],
    ) -> Result<(CpuStorage, Shape)> {
        let mut values = cpu_slice::<T>(storage, layout)?.to_vec();
        self.for_each_sample(layout.shape(), &mut values, |activation, values, plane, record| {
            activation.apply(values, plane, record);
        });
        Ok((T::to_cpu_storage_owned(values), layout.shape().clone()))
    }

    /// The decisions are taken again from the input: cheaper than keeping them in the graph.
    fn backward<T: Element>(&self, [x]: [&Tensor; 1], gradient: &Tensor) -> Result<[Tensor; 1]> {
        let mut values = x.flatten_all()?.to_vec1::<T>()?;
        let mut gradient = gradient.flatten_all()?.to_vec1::<T>()?.into_iter();
        self.for_each_sample(x.shape(), &mut values, |activation, values, plane, record| {
            activation.apply(values, plane, record);
            for value in values.iter_mut() {
                *value = gradient.next().unwrap_or_else(T::zero);
            }
            activation.pull_back(values, plane, record);
        });
        Ok([Tensor::from_vec(values, x.shape(), x.device())?])
    }

    fn for_each_sample<T>(
        &self,
        shape: &Shape,
        values: &mut [T],
        mut f: impl FnMut(Activation, &mut [T], usize, &mut [u8]),
    ) {
        let n = shape.elem_count() / shape.dims()[0];
        let plane = n / shape.dims()[1];
        let mut record = vec![0; self.0.record_len(n)];
        for values in values.chunks_exact_mut(n) {
            f(self.0, values, plane, &mut record);
        }
    }
}

cpu_op!(ActivationOp, "lipschitz-activation", 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(activation: Activation, plane: usize, values: &[f64], expected: &[f64]) {
        let mut result = values.to_vec();
        let mut record = vec![0; activation.record_len(values.len())];
        activation.apply(&mut result, plane, &mut record);
        assert_eq!(result, expected);
    }

    #[test]
    fn activations_move_values() {
        check(Activation::MaxMin, 1, &[1.0, -2.0, 0.5, 3.0], &[1.0, 3.0, 0.5, -2.0]);
        // two groups of two channels, two values each
        let (values, sorted) =
            ([4.0, 1.0, 3.0, 2.0, 8.0, 5.0, 6.0, 7.0], [3.0, 1.0, 4.0, 2.0, 6.0, 5.0, 8.0, 7.0]);
        check(Activation::GroupSort { group: 2 }, 2, &values, &sorted);
        check(Activation::Relu, 1, &[-1.0, 2.0], &[0.0, 2.0]);
    }
}
