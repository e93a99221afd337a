//! The claims of a certificate file, read member by member, so that a refusal can name the one at fault.

use std::fmt;

use lipconv::json;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::failure::{Failure, Verdict};
use crate::certificate::{CERTIFICATE_FORMAT, CERTIFICATE_VERSION};

/// Arithmetics that a claim may be about.
pub(super) const ARITHMETICS: [&str; 5] =
    ["tf32", "f32", "f32_blocked", "f32_accumulate_f64", "f64"];

/// The file.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) model_sha256: String,
    pub(super) n_classes: usize,
    pub(super) data_name: String,
    pub(super) data_sha256: String,
    pub(super) layers: Vec<LayerClaim>,
    pub(super) samples: Vec<SampleClaim>,
}

/// The claims about an affine layer.
#[derive(Debug)]
pub(super) struct LayerClaim {
    pub(super) name: String,
    pub(super) lipschitz: f64,
    pub(super) absolute_norm: f64,
    pub(super) bias_norm: f64,
    pub(super) dot_length: usize,
    pub(super) n_outputs: usize,
}

/// The claims about an image.
#[derive(Debug)]
pub(super) struct SampleClaim {
    pub(super) label: usize,
    pub(super) prediction: usize,
    pub(super) margin: f64,
    pub(super) real: f64,
    /// One allocation: a file may hold many samples.
    pub(super) executed: Box<[(&'static str, f64)]>,
}

impl Claims {
    pub(super) fn parse(bytes: &[u8]) -> Verdict<Self> {
        json::check_members(bytes).map_err(|e| syntax(bytes, &e))?;
        let File { members, samples } =
            serde_json::from_slice(bytes).map_err(|e| syntax(bytes, &e))?;
        let mut file = Object { prefix: String::new(), members };
        let format = file.text("format")?;
        if format != CERTIFICATE_FORMAT {
            let reason = format!("is `{format}`, expected `{CERTIFICATE_FORMAT}`");
            return Err(Failure::new("format", reason));
        }
        let version = file.integer("version")?;
        if version != CERTIFICATE_VERSION as usize {
            let age = if version > CERTIFICATE_VERSION as usize {
                "a later program wrote it"
            } else {
                "no such version"
            };
            let reason = format!("is {version}, expected {CERTIFICATE_VERSION}: {age}");
            return Err(Failure::new("version", reason));
        }
        file.text("producer")?;
        file.text("code")?;
        let mut model = file.object("model")?;
        let mut data = file.object("data")?;
        let n_samples = data.integer("n_samples")?;
        let layers = file.list("layers")?.into_iter().map(LayerClaim::parse);
        let claims = Self {
            model_sha256: model.text("sha256")?,
            n_classes: model.integer("n_classes")?,
            data_name: data.text("name")?,
            data_sha256: data.text("sha256")?,
            layers: layers.collect::<Verdict<_>>()?,
            samples: samples.ok_or_else(|| Failure::new("samples", "is missing"))??,
        };
        model.finish()?;
        data.finish()?;
        file.finish()?;
        let got = claims.samples.len();
        if got != n_samples {
            return Err(Failure::new(
                "samples",
                format!("are {got}, expected {n_samples} as in data.n_samples"),
            ));
        }
        Ok(claims)
    }
}

/// The members of the file; the samples, which are most of it, are parsed one by one as they are read.
struct File {
    members: Map<String, Value>,
    samples: Option<Verdict<Vec<SampleClaim>>>,
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = File;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
        let mut file = File { members: Map::new(), samples: None };
        while let Some(name) = map.next_key::<String>()? {
            if name == "samples" {
                file.samples = Some(map.next_value::<Samples>()?.0);
            } else {
                file.members.insert(name, map.next_value()?);
            }
        }
        Ok(file)
    }
}

/// The samples up to the first one that is none.
struct Samples(Verdict<Vec<SampleClaim>>);

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SamplesVisitor)
    }
}

struct SamplesVisitor;

impl<'de> Visitor<'de> for SamplesVisitor {
    type Value = Samples;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of samples")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Samples, A::Error> {
        let mut samples = Vec::new();
        while let Some(value) = list.next_element::<Value>()? {
            let name = format!("samples[{}]", samples.len());
            match Object::new(value, name).and_then(SampleClaim::parse) {
                Ok(sample) => samples.push(sample),
                Err(failure) => {
                    while list.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(Samples(Err(failure)));
                }
            }
        }
        Ok(Samples(Ok(samples)))
    }
}

impl LayerClaim {
    fn parse(mut object: Object) -> Verdict<Self> {
        let claim = Self {
            name: object.text("name")?,
            lipschitz: object.number("lipschitz")?,
            absolute_norm: object.number("absolute_norm")?,
            bias_norm: object.number("bias_norm")?,
            dot_length: object.integer("dot_length")?,
            n_outputs: object.integer("n_outputs")?,
        };
        object.finish()?;
        Ok(claim)
    }
}

impl SampleClaim {
    fn parse(mut object: Object) -> Verdict<Self> {
        let mut executed = object.object("executed")?;
        let names: Vec<String> = executed.members.keys().cloned().collect();
        let radii = names.into_iter().map(|name| {
            let Some(known) = ARITHMETICS.into_iter().find(|known| *known == name) else {
                let path = format!("{}{name}", executed.prefix);
                return Err(Failure::new(path, "is no arithmetic known to this program"));
            };
            Ok((known, executed.number(known)?))
        });
        let claim = Self {
            executed: radii.collect::<Verdict<_>>()?,
            label: object.integer("label")?,
            prediction: object.integer("prediction")?,
            margin: object.number("margin")?,
            real: object.number("real")?,
        };
        object.finish()?;
        Ok(claim)
    }
}

/// An object whose members are taken out one by one.
struct Object {
    prefix: String,
    members: Map<String, Value>,
}

impl Object {
    fn new(value: Value, name: String) -> Verdict<Self> {
        match value {
            Value::Object(members) => Ok(Self { prefix: format!("{name}."), members }),
            other => Err(Failure::new(name, format!("is {}, expected an object", spoken(&other)))),
        }
    }

    fn take(&mut self, name: &str) -> Verdict<(String, Value)> {
        let path = format!("{}{name}", self.prefix);
        match self.members.remove(name) {
            Some(value) => Ok((path, value)),
            None => Err(Failure::new(path, "is missing")),
        }
    }

    fn text(&mut self, name: &str) -> Verdict<String> {
        match self.take(name)? {
            (_, Value::String(text)) => Ok(text),
            (path, other) => {
                Err(Failure::new(path, format!("is {}, expected a text", spoken(&other))))
            }
        }
    }

    /// A finite number of at least 0: all claims are such.
    fn number(&mut self, name: &str) -> Verdict<f64> {
        let (path, value) = self.take(name)?;
        match value.as_f64().filter(|number| number.is_finite() && *number >= 0.0) {
            Some(number) => Ok(number),
            None => {
                let reason =
                    format!("is {}, expected a finite number of at least 0", spoken(&value));
                Err(Failure::new(path, reason))
            }
        }
    }

    fn integer(&mut self, name: &str) -> Verdict<usize> {
        let (path, value) = self.take(name)?;
        let integer = value.as_u64().and_then(|number| usize::try_from(number).ok());
        integer.ok_or_else(|| {
            Failure::new(path, format!("is {}, expected a whole number", spoken(&value)))
        })
    }

    fn object(&mut self, name: &str) -> Verdict<Self> {
        let (path, value) = self.take(name)?;
        Self::new(value, path)
    }

    fn list(&mut self, name: &str) -> Verdict<Vec<Self>> {
        let (path, value) = self.take(name)?;
        let Value::Array(values) = value else {
            return Err(Failure::new(path, format!("is {}, expected a list", spoken(&value))));
        };
        values.into_iter().enumerate().map(|(i, v)| Self::new(v, format!("{path}[{i}]"))).collect()
    }

    /// Nothing may be left.
    fn finish(self) -> Verdict<()> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(Failure::new(format!("{}{name}", self.prefix), "is no member of this version"))
            }
        }
    }
}

fn spoken(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        other => other.to_string(),
    }
}

/// What is wrong with a file that is not JSON; NaN and infinities, which JSON does not have, are named with their member.
fn syntax(bytes: &[u8], error: &serde_json::Error) -> Failure {
    if error.to_string().contains("invalid type") {
        // the file is JSON, but no object, or its samples are no list
        let value = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        return match value.get("samples") {
            Some(samples) => {
                Failure::new("samples", format!("is {}, expected a list", spoken(samples)))
            }
            None => {
                Failure::new("certificate", format!("is {}, expected an object", spoken(&value)))
            }
        };
    }
    if error.is_eof() {
        return Failure::new("certificate", "ends too early, expected a complete JSON object");
    }
    let lines = bytes.split_inclusive(|&b| b == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    let at = (before + error.column()).min(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..at]);
    let tail = String::from_utf8_lossy(&bytes[at.saturating_sub(1)..(at + 16).min(bytes.len())]);
    let tail = tail.trim_start_matches('-');
    let word = ["NaN", "nan", "Infinity", "inf"].into_iter().find(|word| {
        // the parser stops at or after the first letter
        tail.starts_with(word) || tail.starts_with(&word[1..])
    });
    match (word, head.rsplit('"').nth(1)) {
        (Some(word), Some(member)) => {
            Failure::new(member, format!("is {word}, expected a finite number of at least 0"))
        }
        _ if error.is_data() => Failure::new("certificate", error.to_string()),
        _ => Failure::new("certificate", format!("not JSON: {error}")),
    }
}
