//! What flows along the edges of an ONNX graph: weights, integers, and signals of the network.
//!
//! A signal is seen through a [`View`]: the sizes that the graph gives it, and for every value its place in the signal. Slices, paddings and
//! transpositions only change the view. A maximum or minimum of two values of one signal is kept as such until its pattern is complete.

use std::rc::Rc;

use crate::movement::Moved;

/// A value of the graph.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Floats(Constant),
    Ints(Vec<usize>, Vec<i64>),
    Signal(View),
}

/// A weight.
#[derive(Debug, Clone)]
pub(crate) struct Constant {
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Rc<Vec<f64>>,
}

/// In shapes: the number of images, which is open.
pub(crate) const BATCH: i64 = -(1 << 62);

/// A signal as the graph sees it, without the axis of images.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) signal: usize,
    pub(crate) dims: Vec<usize>,
    /// None where every value stands in its place.
    pub(crate) map: Option<Rc<Vec<Element>>>,
}

/// A value of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Zero,
    At(u32),
    /// Of two places, the smaller first.
    Max(u32, u32),
    Min(u32, u32),
}

impl View {
    pub(crate) fn element(&self, place: usize) -> Element {
        match &self.map {
            None => Element::At(place as u32),
            Some(map) => map[place],
        }
    }

    pub(crate) fn n_values(&self) -> usize {
        crate::movement::n_values(&self.dims)
    }

    pub(crate) fn with_dims(&self, dims: Vec<usize>) -> Self {
        Self { dims, ..self.clone() }
    }

    pub(crate) fn moved(&self, (dims, places): Moved) -> Self {
        let element = |place: Option<usize>| place.map_or(Element::Zero, |at| self.element(at));
        let map: Vec<Element> = places.into_iter().map(element).collect();
        let in_place = map.len() == self.n_values()
            && map.iter().enumerate().all(|(i, e)| *e == Element::At(i as u32));
        // fewer values than the signal has are not the signal
        let map = if in_place && self.map.is_none() { None } else { Some(Rc::new(map)) };
        Self { signal: self.signal, dims, map }
    }
}

impl Constant {
    pub(crate) fn new(dims: Vec<usize>, values: Vec<f64>) -> Self {
        Self { dims, values: Rc::new(values) }
    }

    pub(crate) fn moved(&self, (dims, places): Moved) -> Self {
        let value = |place: Option<usize>| place.map_or(0.0, |at| self.values[at]);
        Self::new(dims, places.into_iter().map(value).collect())
    }

    /// Its only value.
    pub(crate) fn scalar(&self) -> Option<f64> {
        match self.values[..] {
            [value] => Some(value),
            _ => None,
        }
    }
}
