//! What is wrong with a configuration: the line, and the known key that is nearest to an unknown one.

use lipconv::{CrossEntropy, LinearMethod, TrainingRadius};
use toml::Table;

use super::RunConfig;
use crate::error::Error;

/// What is wrong with a text that is no configuration.
pub(super) fn explain(origin: &str, text: &str, error: &toml::de::Error) -> Error {
    let written = toml::from_str::<Table>(text).ok();
    let Some((key, known)) = written.and_then(|table| unknown(&table, &known(), "")) else {
        return syntax_error(origin, text, error);
    };
    let expected = nearest_or_all(&key, &known);
    let reason = format!("unknown key `{key}`, {expected}");
    Error::ConfigSyntax { origin: line_of(origin, text, error), reason }
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
    let origin = line_of(origin, text, error);
    Error::ConfigSyntax { origin, reason: one_line(error.message()) }
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
