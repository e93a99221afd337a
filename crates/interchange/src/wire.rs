//! The wire format of Protocol Buffers, read strictly and written.
//!
//! Definition: a message is a list of fields, each with a key `number << 3 | kind` and a value: a varint (kind 0), 8 bytes (1), a length n
//! and n bytes (2) or 4 bytes (5). Kinds 3 and 4 (groups) are refused. A varint has at most 10 bytes.
//!
//! Guarantee: nothing is allocated beyond slices of the input.

use crate::error::{Result, malformed};

/// A field's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The rest of a message; `what` names it in refusals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) what: &'static str,
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// The next field and its number; None at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).unwrap_or(0);
        if number == 0 {
            return malformed(format!("{}: a field has the number {}", self.what, key >> 3));
        }
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            kind => return malformed(format!("{}: field {number} has the kind {kind}", self.what)),
        };
        Ok(Some((number, field)))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        malformed(format!("{}: a number has more than 64 bits", self.what))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            let left = self.rest.len();
            return malformed(format!(
                "{}: {length} bytes are announced, {left} are left",
                self.what
            ));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("the length was checked"))
    }

    /// A refusal of a field that this crate does not know.
    pub(crate) fn unknown<T>(&self, number: u32) -> Result<T> {
        malformed(format!("{}: field {number} is unknown or has another kind", self.what))
    }
}

impl<'a> Field<'a> {
    pub(crate) fn text(self, what: &str) -> Result<&'a str> {
        let Self::Bytes(bytes) = self else { return malformed(format!("{what} is no text")) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => malformed(format!("{what} is not UTF-8")),
        }
    }

    /// The integers of a repeated field, packed or one by one.
    pub(crate) fn integers(self, what: &'static str, into: &mut Vec<i64>) -> Result<()> {
        match self {
            Self::Varint(value) => into.push(value as i64),
            Self::Bytes(bytes) => {
                let mut packed = Message::new(what, bytes);
                while !packed.rest.is_empty() {
                    into.push(packed.varint()? as i64);
                }
            }
            _ => return malformed(format!("{what} are no integers")),
        }
        Ok(())
    }

    /// The numbers of a repeated field of f32 or f64, packed or one by one.
    pub(crate) fn numbers(self, what: &'static str, into: &mut Vec<f64>) -> Result<()> {
        match self {
            Self::Fixed32(bits) => into.push(f64::from(f32::from_bits(bits))),
            Self::Fixed64(bits) => into.push(f64::from_bits(bits)),
            _ => return malformed(format!("{what} are no numbers")),
        }
        Ok(())
    }
}

/// A message being written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn varint(&mut self, number: u32, value: u64) -> &mut Self {
        self.raw(u64::from(number) << 3);
        self.raw(value);
        self
    }

    pub(crate) fn bytes(&mut self, number: u32, bytes: &[u8]) -> &mut Self {
        self.raw(u64::from(number) << 3 | 2);
        self.raw(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(&mut self, number: u32, text: &str) -> &mut Self {
        self.bytes(number, text.as_bytes())
    }

    pub(crate) fn float(&mut self, number: u32, value: f32) -> &mut Self {
        self.raw(u64::from(number) << 3 | 5);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn message(&mut self, number: u32, message: &Self) -> &mut Self {
        self.bytes(number, &message.bytes)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn raw(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Writer::default();
        inner.varint(1, u64::MAX).float(3, 0.5);
        let mut outer = Writer::default();
        outer.text(2, "µ").message(7, &inner);
        let bytes = outer.finish();
        let mut message = Message::new("test", &bytes);
        let (number, field) = message.next().unwrap().unwrap();
        assert_eq!((number, field.text("x").unwrap()), (2, "µ"));
        let Some((7, Field::Bytes(bytes))) = message.next().unwrap() else { panic!("a message") };
        let mut inner = Message::new("inner", bytes);
        let mut integers = Vec::new();
        inner.next().unwrap().unwrap().1.integers("x", &mut integers).unwrap();
        assert_eq!(integers, [-1]);
        assert!(matches!(inner.next().unwrap(), Some((3, Field::Fixed32(_)))));
        assert!(inner.next().unwrap().is_none() && message.next().unwrap().is_none());
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let refused = |bytes: &[u8]| Message::new("test", bytes).next().unwrap_err().to_string();
        assert!(refused(&[0; 64]).contains("a field has the number 0"));
        assert!(refused(&[0x0a, 5, 1]).contains("5 bytes are announced, 1 are left"));
        assert!(refused(&[0x08, 0xff]).contains("1 bytes are announced, 0 are left"));
        assert!(refused(&[[0x08].as_slice(), &[0xff; 10]].concat()).contains("more than 64 bits"));
        assert!(refused(&[0x0b]).contains("has the kind 3"));
    }
}
