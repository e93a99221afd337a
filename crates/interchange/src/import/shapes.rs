//! Operators on shapes, and those that move values.

use super::Importer;
use super::call::Call;
use crate::error::Result;
use crate::movement::{self, Moved, n_values, reshaped};
use crate::value::{BATCH, Constant, Value, View};

impl<'a> Importer<'a> {
    pub(super) fn identity(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        if call.node.operator == "Dropout" {
            call.float("ratio", 0.5)?;
            call.int("seed", 0)?;
        }
        Ok(vec![call.input(0)?])
    }

    pub(super) fn constant_node(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        if let Some(tensor) = call.tensor("value")? {
            let values = tensor.values()?;
            return Ok(vec![self.constant(tensor.dims.clone(), values)]);
        }
        if let Some(values) = call.ints("value_ints")? {
            return Ok(vec![Value::Ints(vec![values.len()], values)]);
        }
        let missing = i64::MIN;
        match call.int("value_int", missing)? {
            value if value != missing => Ok(vec![Value::Ints(Vec::new(), vec![value])]),
            _ => {
                let value = call.float("value_float", f64::MAX)?;
                if value == f64::MAX {
                    return call.refused("it holds no tensor and no number");
                }
                Ok(vec![Value::Floats(Constant::new(Vec::new(), vec![value]))])
            }
        }
    }

    pub(super) fn shape(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let sizes: Vec<i64> = match call.input(0)? {
            Value::Signal(view) => {
                std::iter::once(BATCH).chain(view.dims.iter().map(|&d| d as i64)).collect()
            }
            Value::Floats(constant) => constant.dims.iter().map(|&d| d as i64).collect(),
            Value::Ints(dims, _) => dims.iter().map(|&d| d as i64).collect(),
        };
        let rank = sizes.len() as i64;
        let clamp = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
        let (start, end) = (clamp(call.int("start", 0)?), clamp(call.int("end", i64::MAX)?));
        let sizes = sizes.get(start..end.max(start)).unwrap_or_default().to_vec();
        Ok(vec![Value::Ints(vec![sizes.len()], sizes)])
    }

    pub(super) fn cast(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let to = call.int("to", 0)?;
        call.int("saturate", 1)?;
        match (call.input(0)?, to) {
            (value @ Value::Ints(..), 7) => Ok(vec![value]),
            (Value::Ints(dims, values), 6) => {
                let is_held = |v: &i64| *v == BATCH || i32::try_from(*v).is_ok();
                if !values.iter().all(is_held) {
                    return call.refused("an integer is beyond 32 bits");
                }
                Ok(vec![Value::Ints(dims, values)])
            }
            (value @ (Value::Signal(_) | Value::Floats(_)), 1) if !self.is_wide => Ok(vec![value]),
            (value @ (Value::Signal(_) | Value::Floats(_)), 11) if self.is_wide => Ok(vec![value]),
            _ => call.refused(format!("it changes numbers to type {to}")),
        }
    }

    pub(super) fn gather(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let axis = call.int("axis", 0)?;
        let (Value::Ints(dims, values), Value::Ints(shape, places)) =
            (call.input(0)?, call.input(1)?)
        else {
            return call.refused("it takes values of a signal by their positions");
        };
        if axis != 0 || dims.len() != 1 {
            return call.refused("it takes integers along another axis than the only one");
        }
        let n = values.len() as i64;
        let value = |&at: &i64| {
            let at = if at < 0 { at + n } else { at };
            usize::try_from(at).ok().and_then(|at| values.get(at).copied())
        };
        match places.iter().map(value).collect::<Option<Vec<i64>>>() {
            Some(values) => Ok(vec![Value::Ints(shape, values)]),
            None => call.refused("a position is outside"),
        }
    }

    pub(super) fn reshape(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let zeros_are_zeros = call.int("allowzero", 0)? != 0;
        let Some(target) = call.integers_or(1, "shape")? else {
            return call.refused("it has no sizes");
        };
        let title = call.title();
        match call.input(0)? {
            Value::Floats(constant) => {
                let dims = reshaped(&title, &constant.dims, &target, zeros_are_zeros)?;
                Ok(vec![Value::Floats(Constant { dims, ..constant })])
            }
            Value::Ints(dims, values) => {
                let dims = reshaped(&title, &dims, &target, zeros_are_zeros)?;
                Ok(vec![Value::Ints(dims, values)])
            }
            Value::Signal(view) => {
                let Some((&images, rest)) = target.split_first() else {
                    return call.refused("it has no sizes");
                };
                // as many images as there are
                let keeps = match images {
                    BATCH => true,
                    0 => !zeros_are_zeros,
                    -1 => !rest.contains(&-1),
                    n => usize::try_from(n).is_ok() && usize::try_from(n).ok() == self.images,
                };
                if !keeps || rest.contains(&BATCH) {
                    return call
                        .refused(format!("the sizes {target:?} mix images with their values"));
                }
                let dims = if zeros_are_zeros {
                    reshaped(&title, &view.dims, rest, true)?
                } else {
                    // a 0 keeps the size of its own place
                    let kept = |(i, &size): (usize, &i64)| match (size, view.dims.get(i)) {
                        (0, Some(&dim)) => dim as i64,
                        _ => size,
                    };
                    let rest: Vec<i64> = rest.iter().enumerate().map(kept).collect();
                    reshaped(&title, &view.dims, &rest, true)?
                };
                Ok(vec![Value::Signal(view.with_dims(dims))])
            }
        }
    }

    pub(super) fn flatten(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        call.must_be("axis", 1)?;
        let view = call.view(0)?;
        let dims = vec![view.n_values()];
        Ok(vec![Value::Signal(view.with_dims(dims))])
    }

    pub(super) fn squeeze(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let adds = call.node.operator == "Unsqueeze";
        let axes = call.integers_or(1, "axes")?;
        // images are an axis that is always there
        let (value, dims, offset) = match call.input(0)? {
            Value::Signal(view) => (Value::Signal(view.clone()), view.dims, 1),
            Value::Floats(c) => (Value::Floats(c.clone()), c.dims, 0),
            Value::Ints(dims, values) => (Value::Ints(dims.clone(), values), dims, 0),
        };
        let mut sizes: Vec<usize> = std::iter::repeat_n(1, offset).chain(dims).collect();
        // Squeeze without axes takes away all of one value, that of the images too
        let Some(axes) = axes.filter(|axes| adds || !axes.is_empty()) else {
            return call.refused("it names no axes");
        };
        let rank = sizes.len() + if adds { axes.len() } else { 0 };
        let mut places =
            axes.iter().map(|&axis| call.axis(axis, rank)).collect::<Result<Vec<_>>>()?;
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0] == pair[1]) || places.iter().any(|p| *p < offset) {
            return call.refused(format!("the axes {axes:?} are no axes of values"));
        }
        if adds {
            for place in places {
                if place > sizes.len() {
                    return call.refused(format!("there is no axis {place}"));
                }
                sizes.insert(place, 1);
            }
        } else {
            for place in places.into_iter().rev() {
                if sizes[place] != 1 {
                    return call.refused(format!("axis {place} has {} values", sizes[place]));
                }
                sizes.remove(place);
            }
        }
        let dims = sizes.split_off(offset);
        Ok(vec![match value {
            Value::Signal(view) => Value::Signal(view.with_dims(dims)),
            Value::Floats(constant) => Value::Floats(Constant { dims, ..constant }),
            Value::Ints(_, values) => Value::Ints(dims, values),
        }])
    }

    pub(super) fn transpose(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let order = call.ints("perm")?;
        let title = call.title();
        match call.input(0)? {
            Value::Floats(constant) => {
                let rank = constant.dims.len();
                let order = match order {
                    Some(order) => {
                        order.iter().map(|&a| call.axis(a, rank)).collect::<Result<Vec<_>>>()?
                    }
                    None => (0..rank).rev().collect(),
                };
                let moved = movement::transpose(&title, &constant.dims, &order)?;
                Ok(vec![Value::Floats(constant.moved(moved))])
            }
            Value::Signal(view) => {
                let rank = view.dims.len() + 1;
                let order = order.unwrap_or_else(|| (0..rank as i64).rev().collect());
                let order =
                    order.iter().map(|&a| call.axis(a, rank)).collect::<Result<Vec<_>>>()?;
                let Some((0, inner)) = order.split_first().map(|(f, r)| (*f, r)) else {
                    return call.refused("it moves the axis of images");
                };
                let inner: Vec<usize> = inner.iter().map(|axis| axis.saturating_sub(1)).collect();
                let moved = movement::transpose(&title, &view.dims, &inner)?;
                Ok(vec![Value::Signal(view.moved(moved))])
            }
            Value::Ints(..) => call.refused("it transposes integers"),
        }
    }

    pub(super) fn slice(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let starts = call.integers_or(1, "starts")?;
        let ends = call.integers_or(2, "ends")?;
        let axes = call.integers_or(3, "axes")?;
        let steps = call.integers(4)?;
        let (Some(starts), Some(ends)) = (starts, ends) else {
            return call.refused("it has no starts or no ends");
        };
        let n = starts.len();
        let axes = axes.unwrap_or_else(|| (0..n as i64).collect());
        let steps = steps.unwrap_or_else(|| vec![1; n]);
        if [ends.len(), axes.len(), steps.len()].iter().any(|length| *length != n) {
            return call.refused("its starts, ends, axes and steps differ in number");
        }
        if starts.iter().chain(&ends).any(|at| *at == BATCH) {
            return call.refused("it depends on the number of images");
        }
        let mut value = call.input(0)?;
        let title = call.title();
        for i in 0..n {
            let range = (starts[i], ends[i], steps[i]);
            value = match value {
                Value::Signal(view) => {
                    let axis = self.inner_axis(call, axes[i], &view)?;
                    Value::Signal(view.moved(movement::slice(&title, &view.dims, axis, range)?))
                }
                Value::Floats(constant) => {
                    let axis = call.axis(axes[i], constant.dims.len())?;
                    Value::Floats(constant.moved(movement::slice(
                        &title,
                        &constant.dims,
                        axis,
                        range,
                    )?))
                }
                Value::Ints(dims, values) => {
                    let axis = call.axis(axes[i], dims.len())?;
                    let (dims, places): Moved = movement::slice(&title, &dims, axis, range)?;
                    let values = places.into_iter().flatten().map(|at| values[at]).collect();
                    Value::Ints(dims, values)
                }
            };
        }
        Ok(vec![value])
    }

    pub(super) fn split(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let axis = call.int("axis", 0)?;
        let sizes = call.integers_or(1, "split")?;
        let n_outputs = call.node.outputs.len();
        call.must_be("num_outputs", n_outputs as i64)?;
        let view = call.view(0)?;
        let axis = self.inner_axis(call, axis, &view)?;
        let size = view.dims[axis];
        let sizes: Vec<i64> = match sizes {
            Some(sizes) => sizes,
            None => {
                // the last part is smaller where they are not equal
                let part = size.div_ceil(n_outputs.max(1));
                let part_of = |i: usize| size.saturating_sub(i * part).min(part) as i64;
                (0..n_outputs).map(part_of).collect()
            }
        };
        let total =
            sizes.iter().try_fold(0i64, |sum, &part| (part >= 0).then(|| sum.saturating_add(part)));
        if sizes.len() != n_outputs || total != Some(size as i64) {
            return call.refused(format!("it splits {size} values into parts of {sizes:?}"));
        }
        let (mut start, title) = (0, call.title());
        let parts = sizes.into_iter().map(|part| {
            let range = (start, start + part, 1);
            start += part;
            Ok(Value::Signal(view.moved(movement::slice(&title, &view.dims, axis, range)?)))
        });
        parts.collect()
    }

    pub(super) fn pad(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let mode = call.text("mode")?.unwrap_or("constant");
        let is_cyclic = match mode {
            "constant" => false,
            "wrap" => true,
            other => {
                let other = other.escape_debug();
                return call.refused(format!("it pads by {other}, expected constant or wrap"));
            }
        };
        let value = match call.inputs.get(2).cloned().flatten() {
            None => call.float("value", 0.0)?,
            Some(_) => call.constant(2)?.scalar().unwrap_or(f64::NAN),
        };
        if !is_cyclic && value != 0.0 {
            return call.refused(format!("it pads with {value}, expected 0"));
        }
        if call.inputs.get(3).is_some_and(Option::is_some) {
            return call.refused("it names axes, expected paddings of all of them");
        }
        let view = call.view(0)?;
        let Some(pads) = call.integers_or(1, "pads")? else {
            return call.refused("it has no paddings");
        };
        let rank = view.dims.len() + 1;
        if pads.len() != 2 * rank || pads[0] != 0 || pads[rank] != 0 {
            return call.refused(format!("the paddings {pads:?} do not fit {rank} axes"));
        }
        let pairs: Vec<(i64, i64)> =
            (1..rank).map(|axis| (pads[axis], pads[rank + axis])).collect();
        let moved = movement::pad(&call.title(), &view.dims, &pairs, is_cyclic)?;
        debug_assert_eq!(moved.1.len(), n_values(&moved.0));
        Ok(vec![Value::Signal(View { ..view.moved(moved) })])
    }
}
