//! Radii as people write them.
//!
//! Definition: a perturbation size ε in the L2 norm of images in [0, 1], written as a decimal ("1.58") or as a fraction
//! ("36/255"). The text is kept, because tables and files use it as the key.
//!
//! Errors: [`Error::NotARadius`] unless the value is finite and positive.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// A radius with the text it was written as.
#[derive(Debug, Clone, PartialEq)]
pub struct Eps {
    text: String,
    value: f64,
}

impl Eps {
    /// The radius.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The radius as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl FromStr for Eps {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let number = |part: &str| part.trim().parse::<f64>().ok();
        let value = match text.split_once('/') {
            Some((above, below)) => {
                let both = number(above).zip(number(below));
                both.filter(|(above, below)| *above > 0.0 && *below > 0.0).map(|(a, b)| a / b)
            }
            None => number(text),
        };
        match value {
            Some(value) if value.is_finite() && value > 0.0 => {
                Ok(Self { text: text.to_owned(), value })
            }
            _ => Err(Error::NotARadius { text: text.to_owned() }),
        }
    }
}

impl TryFrom<f64> for Eps {
    type Error = Error;

    fn try_from(value: f64) -> Result<Self, Error> {
        value.to_string().parse()
    }
}

impl fmt::Display for Eps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Eps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.text.parse::<f64>() {
            Ok(value) if value.to_string() == self.text => serializer.serialize_f64(value),
            _ => serializer.serialize_str(&self.text),
        }
    }
}

impl<'de> Deserialize<'de> for Eps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a number such as 1.58 or a text such as \"36/255\""
        )]
        enum Written {
            Number(f64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(value) => Self::try_from(value),
            Written::Text(text) => text.parse(),
        }
        .map_err(de::Error::custom)
    }
}

/// One number per radius, in the order of the radii; a JSON object with the radii's texts as keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ByEps(Vec<(Eps, f64)>);

impl ByEps {
    /// The numbers in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Eps, f64)> {
        self.0.iter().map(|(eps, value)| (eps, *value))
    }

    /// The number at the radius written as `text`.
    #[must_use]
    pub fn get(&self, text: &str) -> Option<f64> {
        self.iter().find_map(|(eps, value)| (eps.text() == text).then_some(value))
    }

    /// Whether there is no number.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Eps, f64)> for ByEps {
    fn from_iter<I: IntoIterator<Item = (Eps, f64)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Serialize for ByEps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (eps, value) in self.iter() {
            map.serialize_entry(eps.text(), &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ByEps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = ByEps;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from radii to numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ByEps, A::Error> {
                let mut pairs = Vec::new();
                while let Some((text, value)) = map.next_entry::<String, f64>()? {
                    pairs.push((text.parse().map_err(de::Error::custom)?, value));
                }
                Ok(ByEps(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
