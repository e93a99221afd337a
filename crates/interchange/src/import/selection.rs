//! Maxima, minima and concatenations, and the activations that they make.
//!
//! The graph has no MaxMin and no GroupSort. It takes a signal apart, compares the parts and puts them together again. Here the view of a signal says
//! of every value which two it is the maximum or minimum of; when that is the pattern of an activation, the activation stands in its place.

use std::rc::Rc;

use lipconv::{Activation, PlainLayer};

use super::Importer;
use super::call::Call;
use crate::draft::Piece;
use crate::error::{Result, unsupported};
use crate::movement::{check_size, n_values};
use crate::value::{Element, Value, View};

impl<'a> Importer<'a> {
    /// The view with a pattern that is complete made a layer.
    pub(super) fn settled(&mut self, view: View) -> View {
        let shape = self.draft.shape(view.signal).to_vec();
        let n = n_values(&shape);
        let Some(map) = view.map.as_ref().filter(|map| map.len() == n && n > 0) else {
            return view;
        };
        let plane = n / shape[0];
        let is = |pattern: &dyn Fn(usize) -> Element| {
            map.iter().enumerate().all(|(i, element)| *element == pattern(i))
        };
        let (half, two) = (n / 2, shape[0].is_multiple_of(2));
        let at = |i: usize| i as u32;
        let max_min = |i: usize| {
            if i < half {
                Element::Max(at(i), at(i + half))
            } else {
                Element::Min(at(i - half), at(i))
            }
        };
        let pairs = |i: usize| {
            let (channel, pixel) = (i / plane, i % plane);
            let (a, b) = (channel / 2 * 2 * plane + pixel, (channel / 2 * 2 + 1) * plane + pixel);
            if channel % 2 == 0 { Element::Min(at(a), at(b)) } else { Element::Max(at(a), at(b)) }
        };
        let activation = if two && is(&max_min) {
            Some(Activation::MaxMin)
        } else if two && is(&pairs) {
            Some(Activation::GroupSort { group: 2 })
        } else {
            None
        };
        if let Some(activation) = activation {
            let signal = self.draft.plain(view.signal, PlainLayer::Activation(activation));
            return View { signal, dims: view.dims, map: None };
        }
        let &[c, h, w] = &shape[..] else { return view };
        let divides = |s: &usize| h.is_multiple_of(*s) && w.is_multiple_of(*s);
        for s in (2..=h.min(w)).filter(divides) {
            let (rows, columns) = (h / s, w / s);
            let unshuffled = |i: usize| {
                let (pixel, channel) = (i % (rows * columns), i / (rows * columns));
                let (row, column) =
                    (pixel / columns * s + channel / s % s, pixel % columns * s + channel % s);
                Element::At(at((channel / (s * s) * h + row) * w + column))
            };
            if is(&unshuffled) {
                let shape = vec![c * s * s, rows, columns];
                let signal = self.draft.push(view.signal, Piece::Unshuffle(s), shape);
                return View { signal, dims: view.dims, map: None };
            }
        }
        view
    }

    /// The signal behind a view that shows all of it in its order.
    pub(super) fn whole(&self, title: &str, view: &View) -> Result<usize> {
        let shape = self.draft.shape(view.signal);
        if view.map.is_none() && view.n_values() == n_values(shape) {
            return Ok(view.signal);
        }
        unsupported(
            title,
            "its input is a rearrangement of values that no layer here makes (MaxMin, GroupSort and pixel_unshuffle are known)",
        )
    }

    pub(super) fn maximum(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let is_max = call.node.operator == "Max";
        let [a, b] = [call.input(0)?, call.input(1)?];
        match (a, b) {
            (Value::Signal(view), Value::Floats(c)) | (Value::Floats(c), Value::Signal(view))
                if is_max
                    && c.scalar() == Some(0.0)
                    && c.dims.len() <= view.dims.len() + 1
                    && call.inputs.len() == 2 =>
            {
                let signal = self.whole(&call.title(), &view)?;
                let signal = self.draft.plain(signal, PlainLayer::Activation(Activation::Relu));
                Ok(vec![Value::Signal(View { signal, dims: view.dims, map: None })])
            }
            (Value::Signal(a), Value::Signal(b)) if call.inputs.len() == 2 => {
                if a.signal != b.signal || a.dims != b.dims {
                    return call.refused("it compares values of different signals");
                }
                let pair = |i: usize| compared(is_max, a.element(i), b.element(i));
                let map: Option<Vec<Element>> = (0..a.n_values()).map(pair).collect();
                let Some(map) = map else {
                    return call.refused("it compares what was compared or padded already");
                };
                Ok(vec![Value::Signal(View { map: Some(Rc::new(map)), ..a })])
            }
            _ => call.refused("expected two parts of one signal, or a maximum with 0"),
        }
    }

    pub(super) fn reduce_maximum(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let is_max = call.node.operator == "ReduceMax";
        let keeps = call.int("keepdims", 1)? != 0;
        call.must_be("noop_with_empty_axes", 0)?;
        let view = call.view(0)?;
        let axes = call.integers_or(1, "axes")?.unwrap_or_default();
        let &[axis] = &axes[..] else {
            return call.refused(format!("it reduces {} axes, expected 1", axes.len()));
        };
        let axis = self.inner_axis(call, axis, &view)?;
        if view.dims[axis] != 2 {
            return call.refused(format!("it compares {} values, expected 2", view.dims[axis]));
        }
        let inner = n_values(&view.dims[axis + 1..]);
        let mut dims = view.dims.clone();
        dims[axis] = 1;
        let pair = |i: usize| {
            let first = i / inner * 2 * inner + i % inner;
            compared(is_max, view.element(first), view.element(first + inner))
        };
        let map: Option<Vec<Element>> = (0..n_values(&dims)).map(pair).collect();
        let Some(map) = map else {
            return call.refused("it compares what was compared or padded already");
        };
        if !keeps {
            dims.remove(axis);
        }
        Ok(vec![Value::Signal(View { signal: view.signal, dims, map: Some(Rc::new(map)) })])
    }

    /// A sort of groups: all of an axis, ascending.
    pub(super) fn top_k(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let axis = call.int("axis", -1)?;
        // before operator set 11 there is no such attribute, and the largest come first
        let largest = call.int("largest", 1)?;
        if largest != 0 {
            return call.refused(format!("attribute largest is {largest}, expected 0"));
        }
        call.must_be("sorted", 1)?;
        let view = call.view(0)?;
        let axis = self.inner_axis(call, axis, &view)?;
        let group = view.dims[axis];
        let signal = self.whole(&call.title(), &view)?;
        let channels = self.draft.shape(signal)[0];
        let fits = call.integers(1)? == Some(vec![group as i64])
            && axis == 1
            && view.dims[0].checked_mul(group) == Some(channels);
        if !fits {
            return call.refused("it is no sort of groups of consecutive channels");
        }
        let layer = PlainLayer::Activation(Activation::GroupSort { group });
        let signal = self.draft.plain(signal, layer);
        // the positions, its second output, are no value here: who uses them is refused
        Ok(vec![Value::Signal(View { signal, dims: view.dims, map: None })])
    }

    pub(super) fn concat(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let axis = call.int("axis", 0)?;
        let inputs = (0..call.inputs.len()).map(|i| call.input(i)).collect::<Result<Vec<_>>>()?;
        if let Some(values) = integers(&inputs) {
            let are_lists = inputs.iter().all(|value| match value {
                Value::Ints(dims, _) => dims.len() <= 1,
                _ => false,
            });
            if !are_lists || (axis != 0 && axis != -1) {
                return call.refused("it joins integers that are no lists");
            }
            return Ok(vec![Value::Ints(vec![values.len()], values)]);
        }
        let views: Option<Vec<View>> = inputs
            .into_iter()
            .map(|value| if let Value::Signal(view) = value { Some(view) } else { None })
            .collect();
        let Some(views) = views.filter(|views| !views.is_empty()) else {
            return call.refused("expected signals alone, or integers alone");
        };
        let axis = self.inner_axis(call, axis, &views[0])?;
        let same = |view: &View| {
            let others = |dims: &[usize]| {
                let mut dims = dims.to_vec();
                dims[axis] = 0;
                dims
            };
            view.dims.len() == views[0].dims.len() && others(&view.dims) == others(&views[0].dims)
        };
        if !views.iter().all(same) {
            return call.refused("it joins signals whose other sizes differ");
        }
        let of_one = views.iter().all(|view| view.signal == views[0].signal);
        if of_one && views.iter().any(|view| view.map.is_some()) {
            return joined(call, &views, axis).map(|view| vec![Value::Signal(view)]);
        }
        self.side_by_side(call, &views, axis)
    }

    /// Whole signals, channel after channel.
    fn side_by_side(
        &mut self,
        call: &Call<'a, '_>,
        views: &[View],
        axis: usize,
    ) -> Result<Vec<Value>> {
        let title = call.title();
        let mut signals = Vec::with_capacity(views.len());
        for view in views {
            signals.push(self.whole(&title, view)?);
        }
        let whole =
            views.iter().zip(&signals).all(|(view, &signal)| view.dims == self.draft.shape(signal));
        if axis != 0 || !whole {
            let vectors = views.iter().all(|view| view.dims.len() == 1);
            if !vectors {
                return call.refused("it joins signals along another axis than the channels");
            }
            for signal in &mut signals {
                *signal = self.draft.flat(*signal);
            }
        }
        let mut joined = signals[0];
        for &signal in &signals[1..] {
            joined = self.draft.concat(joined, signal);
        }
        let dims = self.draft.shape(joined).to_vec();
        Ok(vec![Value::Signal(View { signal: joined, dims, map: None })])
    }

    /// An axis of the graph as one of a view, which has none of images.
    pub(super) fn inner_axis(&self, call: &Call<'a, '_>, axis: i64, view: &View) -> Result<usize> {
        match call.axis(axis, view.dims.len() + 1)? {
            0 => call.refused("it works across images"),
            axis => Ok(axis - 1),
        }
    }
}

/// The maximum or minimum of two values.
fn compared(is_max: bool, a: Element, b: Element) -> Option<Element> {
    let (Element::At(a), Element::At(b)) = (a, b) else { return None };
    let (a, b) = (a.min(b), a.max(b));
    Some(if is_max { Element::Max(a, b) } else { Element::Min(a, b) })
}

fn integers(values: &[Value]) -> Option<Vec<i64>> {
    let mut all = Vec::new();
    for value in values {
        let Value::Ints(_, values) = value else { return None };
        all.extend(values);
    }
    (!values.is_empty()).then_some(all)
}

/// Views of one signal, put together along an axis.
fn joined(call: &Call<'_, '_>, views: &[View], axis: usize) -> Result<View> {
    let mut dims = views[0].dims.clone();
    dims[axis] = views.iter().fold(0, |n: usize, view| n.saturating_add(view.dims[axis]));
    check_size(&call.title(), &dims)?;
    let inner = n_values(&dims[axis + 1..]);
    let outer = n_values(&dims[..axis]);
    let mut map = Vec::with_capacity(n_values(&dims));
    for o in 0..outer {
        for view in views {
            let length = view.dims[axis] * inner;
            map.extend((o * length..(o + 1) * length).map(|place| view.element(place)));
        }
    }
    Ok(View { signal: views[0].signal, dims, map: Some(Rc::new(map)) })
}
