//! Messages about configurations that cannot be read: the line, and the known key nearest to an unknown one.

use std::collections::{BTreeMap, BTreeSet};

use lipconv::{CrossEntropy, LinearMethod, TrainingRadius};
use toml::Table;

use super::RunConfig;
use crate::error::Error;

/// The error of a text that is not a configuration.
pub(super) fn explain(origin: &str, text: &str, error: &toml::de::Error) -> Error {
    let written = toml::from_str::<Table>(text).ok();
    let Some((key, known)) = written.and_then(|table| unknown(&table, &known(), "")) else {
        return syntax_error(origin, text, error);
    };
    let expected = nearest_or_all(&key, &known);
    let reason = format!("unknown key `{key}`, {expected}");
    Error::ConfigSyntax { origin: line_of(origin, text, error), reason }
}

/// Settings by their keys, as TOML.
pub(crate) type Settings = BTreeMap<String, String>;

impl RunConfig {
    /// What a run keeps from its beginning to its end: all settings of network and training but the number of epochs.
    pub(crate) fn kept_settings(&self) -> Settings {
        let mut table = Table::try_from(self).unwrap_or_default();
        ["device", "data", "evaluation"].iter().for_each(|key| {
            table.remove(*key);
        });
        let mut settings = BTreeMap::new();
        flatten(&table, "", &mut settings);
        settings.remove("training.epochs");
        settings
    }
}

/// The first setting that differs, with its value before and now; one that is absent has its default.
pub(crate) fn changed(before: &Settings, now: &Settings) -> Option<(String, String, String)> {
    let defaults = RunConfig::default().kept_settings();
    let value = |settings: &Settings, key| {
        let value = settings.get(key).or_else(|| defaults.get(key));
        value.map_or_else(|| "nothing".to_owned(), String::clone)
    };
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    keys.into_iter()
        .map(|key| (key.clone(), value(before, key), value(now, key)))
        .find(|(_, before, now)| before != now)
}

/// Values as TOML, by their keys with those of their tables.
fn flatten(table: &Table, prefix: &str, flat: &mut Settings) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => flatten(inner, &format!("{path}."), flat),
            value => drop(flat.insert(path, value.to_string())),
        }
    }
}

/// The first key of `written` that `known` does not have, and those that it has in the same table, all with their tables.
fn unknown(written: &Table, known: &Table, prefix: &str) -> Option<(String, Vec<String>)> {
    for (key, value) in written {
        let path = format!("{prefix}{key}");
        let Some(expected) = known.get(key) else {
            return Some((path, known.keys().map(|name| format!("{prefix}{name}")).collect()));
        };
        if let (toml::Value::Table(value), toml::Value::Table(expected)) = (value, expected)
            && !expected.contains_key("type")
            && let Some(found) = unknown(value, expected, &format!("{path}."))
        {
            return Some(found);
        }
    }
    None
}

/// A configuration with every key.
fn known() -> Table {
    let mut config = RunConfig { init_from: Some("run".into()), ..RunConfig::default() };
    config.data.train_limit = Some(1);
    config.data.test_limit = Some(1);
    config.data.size = Some(1);
    config.network.width = Some(1.0);
    config.network.more_convolutions = 1;
    config.network.head = Some(LinearMethod::Bjorck);
    config.network.gain = Some(1.0);
    let radius = Some(TrainingRadius { start: 1.0, end: 1.0 });
    let loss = CrossEntropy { radius, ..CrossEntropy::for_radius(1.0, 1.0) };
    config.training.cross_entropy = Some(loss);
    config.training.warm_up = 1.0;
    config.evaluation.every = 2;
    config.training.optimizer = Some(lipconv::Optimizer::default());
    config.training.averaging = Some(lipconv::Averaging::default());
    config.training.rand_augment = Some(lipconv_datasets::RandAugment::default());
    Table::try_from(config).unwrap_or_default()
}

/// What a mistyped name should have been: the known name that takes the fewest edits, if they are at most half of its last part,
/// or all of them.
pub(crate) fn nearest_or_all(name: &str, known: &[impl AsRef<str>]) -> String {
    let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
    let edits = |known: &str| strsim::damerau_levenshtein(name, known);
    let last_part = |known: &str| known.rsplit('.').next().map_or(0, str::len);
    let best = known.iter().min_by_key(|known| edits(known));
    match best.filter(|best| 2 * edits(best) <= last_part(best)) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("expected one of {}", known.join(", ")),
    }
}

pub(crate) fn syntax_error(origin: &str, text: &str, error: &toml::de::Error) -> Error {
    let reason = in_words(&one_line(error.message()));
    // a wrong name of something says what it is, a wrong type does not
    let key =
        key_of(text, error).filter(|key| reason.starts_with("invalid") && !reason.contains(key));
    let reason = key.map_or(reason.clone(), |key| format!("{key}: {reason}"));
    Error::ConfigSyntax { origin: line_of(origin, text, error), reason }
}

/// The key on the line of an error.
fn key_of<'a>(text: &'a str, error: &toml::de::Error) -> Option<&'a str> {
    let start = error.span()?.start.min(text.len());
    let line = &text[text[..start].rfind('\n').map_or(0, |end| end + 1)..];
    let key = line.lines().next()?.split_once('=')?.0.trim();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    Some(key).filter(|key| !key.is_empty() && key.chars().all(is_plain))
}

/// Types of Rust in the words of TOML.
fn in_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.into() };
    let words = match expected {
        "usize" | "u64" | "u32" => "a whole number not below 0",
        "f64" | "f32" => "a number",
        other if other.starts_with("internally tagged enum") => {
            r#"a table such as { type = "adam" } with its settings"#
        }
        other => other,
    };
    format!("{found}expected {words}")
}

/// The text's name with the line of an error.
fn line_of(origin: &str, text: &str, error: &toml::de::Error) -> String {
    let line =
        error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
    line.map_or_else(|| origin.to_owned(), |line| format!("{origin}, line {line}"))
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
