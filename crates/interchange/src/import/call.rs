//! A node with its inputs; attributes are taken out one by one, and none may be left.

use std::collections::BTreeMap;

use crate::error::{Result, quoted, unsupported};
use crate::proto::{Attribute, Node, Tensor};
use crate::value::{Constant, Value, View};

pub(super) struct Call<'a, 'n> {
    pub(super) node: &'n Node<'a>,
    pub(super) inputs: Vec<Option<Value>>,
    attributes: BTreeMap<&'a str, Attribute<'a>>,
}

impl<'a, 'n> Call<'a, 'n> {
    pub(super) fn new(node: &'n Node<'a>) -> Self {
        Self { node, inputs: Vec::new(), attributes: node.attributes.clone() }
    }

    pub(super) fn title(&self) -> String {
        self.node.title()
    }

    /// A refusal of this node.
    pub(super) fn refused<T>(&self, problem: impl Into<String>) -> Result<T> {
        unsupported(self.title(), problem)
    }

    pub(super) fn finish(&self) -> Result<()> {
        match self.attributes.keys().next() {
            None => Ok(()),
            Some(name) => self.refused(format!("attribute {} is unknown", quoted(name))),
        }
    }

    pub(super) fn int(&mut self, name: &str, default: i64) -> Result<i64> {
        match self.attributes.remove(name) {
            None => Ok(default),
            Some(Attribute::Int(value)) => Ok(value),
            Some(_) => self.refused(format!("attribute {name} is no integer")),
        }
    }

    pub(super) fn float(&mut self, name: &str, default: f64) -> Result<f64> {
        match self.attributes.remove(name) {
            None => Ok(default),
            Some(Attribute::Float(value)) if value.is_finite() => Ok(value),
            Some(_) => self.refused(format!("attribute {name} is no finite number")),
        }
    }

    pub(super) fn ints(&mut self, name: &str) -> Result<Option<Vec<i64>>> {
        match self.attributes.remove(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(_) => self.refused(format!("attribute {name} is no list of integers")),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<&'a str>> {
        match self.attributes.remove(name) {
            None => Ok(None),
            Some(Attribute::Text(text)) => Ok(Some(text)),
            Some(_) => self.refused(format!("attribute {name} is no text")),
        }
    }

    pub(super) fn tensor(&mut self, name: &str) -> Result<Option<Tensor<'a>>> {
        match self.attributes.remove(name) {
            None => Ok(None),
            Some(Attribute::Tensor(tensor)) => Ok(Some(tensor)),
            Some(_) => self.refused(format!("attribute {name} is no tensor")),
        }
    }

    /// The attribute must have this value, or be absent.
    pub(super) fn must_be(&mut self, name: &str, expected: i64) -> Result<()> {
        let got = self.int(name, expected)?;
        if got == expected {
            return Ok(());
        }
        self.refused(format!("attribute {name} is {got}, expected {expected}"))
    }

    pub(super) fn input(&self, idx: usize) -> Result<Value> {
        match self.inputs.get(idx).cloned().flatten() {
            Some(value) => Ok(value),
            None => self.refused(format!("input {idx} is missing")),
        }
    }

    pub(super) fn view(&self, idx: usize) -> Result<View> {
        match self.input(idx)? {
            Value::Signal(view) => Ok(view),
            _ => self.refused(format!("input {idx} is a constant, expected a signal")),
        }
    }

    pub(super) fn constant(&self, idx: usize) -> Result<Constant> {
        match self.input(idx)? {
            Value::Floats(constant) => Ok(constant),
            Value::Ints(..) => {
                self.refused(format!("input {idx} holds integers, expected weights"))
            }
            Value::Signal(_) => {
                self.refused(format!("input {idx} depends on the image, expected a constant"))
            }
        }
    }

    /// Integers of an input, None where it is absent.
    pub(super) fn integers(&self, idx: usize) -> Result<Option<Vec<i64>>> {
        match self.inputs.get(idx).cloned().flatten() {
            None => Ok(None),
            Some(Value::Ints(_, values)) => Ok(Some(values)),
            Some(_) => self.refused(format!("input {idx} holds no constant integers")),
        }
    }

    /// Integers that newer operator sets have as an input and older ones as an attribute.
    pub(super) fn integers_or(&mut self, idx: usize, name: &str) -> Result<Option<Vec<i64>>> {
        Ok(match self.ints(name)? {
            Some(values) => Some(values),
            None => self.integers(idx)?,
        })
    }

    /// An axis of `rank`, counted from the end where negative.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let from_start = if axis < 0 { axis + rank as i64 } else { axis };
        match usize::try_from(from_start) {
            Ok(axis) if axis < rank => Ok(axis),
            _ => self.refused(format!("there is no axis {axis} of {rank}")),
        }
    }
}
