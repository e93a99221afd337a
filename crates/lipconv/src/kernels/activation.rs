//! MaxMin, GroupSort and ReLU, in place and in one pass, with the record that the adjoint needs.
//!
//! Each acts on the channels of one signal of `channels x plane` values (plane = 1 for a vector). The record
//! is one byte for each decision, not a copy of the input: for MaxMin whether the pair was exchanged, for
//! ReLU whether the value passed, for GroupSort where each sorted value came from.
//! On ties MaxMin does not exchange, ReLU does not pass 0, GroupSort keeps the order (stable).

use projectors::Real;

/// An activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Maxima of channel i and i + c/2 first.
    MaxMin,
    /// Consecutive groups of so many channels ascending; at most 255.
    GroupSort(usize),
    /// max(x, 0).
    Relu,
}

impl Activation {
    /// Bytes of the record for a signal of `n` values.
    pub(crate) fn record_len(self, n: usize) -> usize {
        match self {
            Self::MaxMin => n / 2,
            Self::GroupSort(_) | Self::Relu => n,
        }
    }

    /// Applies the activation to `values` = channels x `plane`, and records its decisions.
    pub(crate) fn forward<T: Real>(self, values: &mut [T], plane: usize, record: &mut [u8]) {
        match self {
            Self::MaxMin => max_min(values, record),
            Self::GroupSort(group) => group_sort(values, plane, group, record),
            Self::Relu => relu(values, record),
        }
    }

    /// Replaces the gradient of the output by the gradient of the input.
    pub(crate) fn backward<T: Real>(self, gradient: &mut [T], plane: usize, record: &[u8]) {
        match self {
            // exchanging a pair is its own adjoint
            Self::MaxMin => exchange(gradient, record),
            Self::GroupSort(group) => group_unsort(gradient, plane, group, record),
            Self::Relu => {
                for (g, &passed) in gradient.iter_mut().zip(record) {
                    *g = if passed != 0 { *g } else { T::zero() };
                }
            }
        }
    }
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

/// Largest group that the byte-wide record can describe; larger ones take the tensor path.
pub(crate) const MAX_GROUP: usize = 256;
