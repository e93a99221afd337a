//! Sums, products with constants, and activations.

use lipconv::{Activation, PlainLayer};

use super::Importer;
use super::call::Call;
use crate::error::Result;
use crate::movement::{check_size, n_values};
use crate::value::{BATCH, Constant, Value, View};

impl<'a> Importer<'a> {
    pub(super) fn activation(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let view = call.view(0)?;
        let layer = match call.node.operator {
            "Relu" => PlainLayer::Activation(Activation::Relu),
            "Abs" => PlainLayer::LeakyRelu { slope: -1.0 },
            "LeakyRelu" => PlainLayer::LeakyRelu { slope: call.float("alpha", 0.01f32.into())? },
            _ => return self.scaled(call, &view, (vec![-1.0], vec![0.0])),
        };
        let signal = self.whole(&call.title(), &view)?;
        let signal = self.draft.plain(signal, layer);
        Ok(vec![Value::Signal(View { signal, dims: view.dims, map: None })])
    }

    /// Scale and shift of each channel, or one for all.
    pub(super) fn scaled(
        &mut self,
        call: &Call<'a, '_>,
        view: &View,
        (scale, shift): (Vec<f64>, Vec<f64>),
    ) -> Result<Vec<Value>> {
        let signal = self.whole(&call.title(), view)?;
        let shape = self.draft.shape(signal).to_vec();
        let channels = shape[0];
        let spread = |values: Vec<f64>| match values[..] {
            [value] => Some(vec![value; channels]),
            _ => (values.len() == channels && view.dims == shape).then_some(values),
        };
        let (Some(scale), Some(shift)) = (spread(scale), spread(shift)) else {
            return call.refused(format!(
                "its constant does not belong to the channels of a signal of sizes {:?}",
                view.dims
            ));
        };
        if scale.iter().chain(&shift).any(|v| !v.is_finite()) {
            return call.refused("a factor or a shift is not finite");
        }
        let is_free = self.is_free(signal);
        let signal = self.draft.channelwise(signal, (scale, shift), is_free);
        Ok(vec![Value::Signal(View { signal, dims: view.dims.clone(), map: None })])
    }

    pub(super) fn arithmetic(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let operator = call.node.operator;
        if call.inputs.len() != 2 {
            return call.refused(format!("it has {} inputs, expected 2", call.inputs.len()));
        }
        match (call.input(0)?, call.input(1)?) {
            (Value::Ints(dims, a), Value::Ints(other, b)) => {
                integers(call, (dims, a), (other, b)).map(|value| vec![value])
            }
            (Value::Floats(a), Value::Floats(b)) => {
                broadcast(call, &a, &b).map(|value| vec![Value::Floats(value)])
            }
            (Value::Signal(a), Value::Signal(b)) => match operator {
                "Add" => self.sum(call, &a, &b),
                // its sign would go into the layer that both see
                "Sub" if a.signal == b.signal => call.refused("it subtracts a signal from itself"),
                "Sub" => {
                    let minus = self.scaled(call, &b, (vec![-1.0], vec![0.0]))?;
                    match &minus[..] {
                        [Value::Signal(b)] => self.sum(call, &a, b),
                        _ => call.refused("no signal"),
                    }
                }
                _ => call.refused("two signals are multiplied or divided, expected a constant"),
            },
            (Value::Signal(view), Value::Floats(constant)) => {
                let values = self.by_channel(call, &view, &constant)?;
                let n = values.len();
                match operator {
                    "Add" => self.scaled(call, &view, (vec![1.0; n], values)),
                    "Sub" => {
                        let minus = values.iter().map(|v| -v).collect();
                        self.scaled(call, &view, (vec![1.0; n], minus))
                    }
                    "Mul" => self.scaled(call, &view, (values, vec![0.0; n])),
                    _ => {
                        let inverse = values.iter().map(|v| 1.0 / v).collect();
                        self.scaled(call, &view, (inverse, vec![0.0; n]))
                    }
                }
            }
            (Value::Floats(constant), Value::Signal(view)) => {
                let values = self.by_channel(call, &view, &constant)?;
                let n = values.len();
                match operator {
                    "Add" => self.scaled(call, &view, (vec![1.0; n], values)),
                    "Sub" => self.scaled(call, &view, (vec![-1.0; n], values)),
                    "Mul" => self.scaled(call, &view, (values, vec![0.0; n])),
                    _ => call.refused("it divides by a signal"),
                }
            }
            _ => call.refused("it mixes integers and other numbers"),
        }
    }

    fn sum(&mut self, call: &Call<'a, '_>, a: &View, b: &View) -> Result<Vec<Value>> {
        if a.dims != b.dims {
            return call.refused(format!("it adds signals of sizes {:?} and {:?}", a.dims, b.dims));
        }
        let title = call.title();
        let (mut first, mut second) = (self.whole(&title, a)?, self.whole(&title, b)?);
        if self.draft.shape(first) != self.draft.shape(second) {
            (first, second) = (self.draft.flat(first), self.draft.flat(second));
        }
        let signal = self.draft.add(first, second);
        Ok(vec![Value::Signal(View { signal, dims: a.dims.clone(), map: None })])
    }

    /// A constant that is one number, or one for each channel.
    fn by_channel(
        &self,
        call: &Call<'a, '_>,
        view: &View,
        constant: &Constant,
    ) -> Result<Vec<f64>> {
        let rank = view.dims.len();
        // one of a higher rank gives the signal another axis
        if let Some(value) = constant.scalar().filter(|_| constant.dims.len() <= rank + 1) {
            return Ok(vec![value]);
        }
        let missing = (rank + 1).saturating_sub(constant.dims.len());
        let sizes: Vec<usize> =
            std::iter::repeat_n(1, missing).chain(constant.dims.iter().copied()).collect();
        // number of images, channels, the rest
        let fits = rank > 0
            && sizes.len() == rank + 1
            && sizes[1] == view.dims[0]
            && sizes.iter().enumerate().all(|(axis, &size)| axis == 1 || size == 1);
        if !fits {
            return call.refused(format!(
                "its constant of sizes {:?} does not belong to the channels of a signal of sizes {:?}",
                constant.dims, view.dims
            ));
        }
        Ok(constant.values.to_vec())
    }
}

/// An operation on two lists of integers, of which one may be a single number.
fn integers(
    call: &Call<'_, '_>,
    (dims, a): (Vec<usize>, Vec<i64>),
    (other, b): (Vec<usize>, Vec<i64>),
) -> Result<Value> {
    let n = a.len().max(b.len());
    // a single number takes the other's sizes, unless it has more of them
    let fits = match (a.len() == n, b.len() == n) {
        (true, true) => dims == other,
        (true, false) => other.len() <= dims.len(),
        _ => dims.len() <= other.len(),
    };
    if !fits {
        return call.refused(format!("it combines integers of sizes {dims:?} and {other:?}"));
    }
    if (a.len() != n && a.len() != 1)
        || (b.len() != n && b.len() != 1)
        || a.is_empty()
        || b.is_empty()
    {
        return call.refused(format!("it combines {} and {} integers", a.len(), b.len()));
    }
    let operate = |(a, b): (i64, i64)| match (call.node.operator, a, b) {
        ("Mul" | "Div", BATCH, 1) | ("Add" | "Sub", BATCH, 0) => Some(BATCH),
        ("Mul", 1, BATCH) | ("Add", 0, BATCH) => Some(BATCH),
        (_, BATCH, _) | (_, _, BATCH) => None,
        ("Add", a, b) => a.checked_add(b),
        ("Sub", a, b) => a.checked_sub(b),
        ("Mul", a, b) => a.checked_mul(b),
        // ONNX truncates, as Rust does
        (_, a, b) => a.checked_div(b),
    };
    let pairs = (0..n).map(|i| operate((a[i % a.len()], b[i % b.len()])));
    match pairs.collect::<Option<Vec<i64>>>() {
        Some(values) => Ok(Value::Ints(if a.len() == n { dims } else { other }, values)),
        None => call.refused("it computes with the number of images, or overflows"),
    }
}

/// An operation on two weights.
fn broadcast(call: &Call<'_, '_>, a: &Constant, b: &Constant) -> Result<Constant> {
    let rank = a.dims.len().max(b.dims.len());
    let padded = |dims: &[usize]| -> Vec<usize> {
        std::iter::repeat_n(1, rank - dims.len()).chain(dims.iter().copied()).collect()
    };
    let (da, db) = (padded(&a.dims), padded(&b.dims));
    let mut dims = Vec::with_capacity(rank);
    for (&x, &y) in da.iter().zip(&db) {
        if x != y && x != 1 && y != 1 {
            return call.refused(format!("sizes {:?} and {:?} do not fit", a.dims, b.dims));
        }
        dims.push(if x == 1 { y } else { x });
    }
    check_size(&call.title(), &dims)?;
    let place = |sizes: &[usize], at: usize| {
        let (mut at, mut place, mut stride) = (at, 0, 1);
        for axis in (0..rank).rev() {
            place += (at % dims[axis]).min(sizes[axis].saturating_sub(1)) * stride;
            at /= dims[axis];
            stride *= sizes[axis];
        }
        place
    };
    let value = |at: usize| {
        let (x, y) = (a.values[place(&da, at)], b.values[place(&db, at)]);
        match call.node.operator {
            "Add" => x + y,
            "Sub" => x - y,
            "Mul" => x * y,
            _ => x / y,
        }
    };
    let values: Vec<f64> = (0..n_values(&dims)).map(value).collect();
    if values.iter().any(|v| !v.is_finite()) {
        return call.refused("constants give a number that is not finite");
    }
    Ok(Constant::new(dims, values))
}
