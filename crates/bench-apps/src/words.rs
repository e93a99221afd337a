//! Words and numbers of messages, tables and reports.

use std::path::Path;

use crate::stdout::escaped;

/// Lays out rows of cells: the first column to the left, the others to the right, two blanks between.
///
/// The first row is the heading. Widths count characters, so that ± and ε take one place. A row with one cell alone is a
/// line of text, which no column is widened for.
pub fn text_table(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter(|row| row.len() > 1)
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            line += &match column {
                0 => format!("{cell}{padding}"),
                _ => format!("  {padding}{cell}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A number with what it counts, as in "1 epoch" or "3 epochs".
pub fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

/// A percentage with two decimals; empty where there is no value.
pub fn percent(value: Option<f64>) -> String {
    value.filter(|v| v.is_finite()).map_or(String::new(), |v| format!("{v:.2}"))
}

/// A lower bound in decimals, rounded down where it must be rounded.
pub fn at_least(value: f64, decimals: usize) -> String {
    decimal(value, decimals, -1.0, |shown| shown <= value)
}

/// An upper bound in decimals, rounded up where it must be rounded.
pub fn at_most(value: f64, decimals: usize) -> String {
    decimal(value, decimals, 1.0, |shown| shown >= value)
}

/// The decimals next to `value` on the allowed side.
fn decimal(value: f64, decimals: usize, side: f64, allowed: impl Fn(f64) -> bool) -> String {
    let unit = 10f64.powi(-(decimals as i32));
    on_side(format!("{value:.decimals$}"), side * unit, allowed, |x| format!("{x:.decimals$}"))
}

/// A small upper bound in powers of ten, rounded up: "1.24e-6".
pub fn at_most_scientific(value: f64, decimals: usize) -> String {
    let nearest = format!("{value:.decimals$e}");
    let exponent = nearest.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    let unit = exponent.map_or(f64::NAN, |exponent| 10f64.powi(exponent - decimals as i32));
    on_side(nearest, unit, |shown| shown >= value, |x| format!("{x:.decimals$e}"))
}

/// An upper bound of a Lipschitz constant: "1 + 1.24e-6" near 1, and "1.19937" elsewhere.
pub fn lipschitz_text(bound: f64) -> String {
    // the difference of numbers so near to each other is exact
    match (1.0..1.01).contains(&bound) {
        true => format!("1 + {}", at_most_scientific(bound - 1.0, 2)),
        false => at_most(bound, 5),
    }
}

/// The text of the first number that is allowed, in steps from that of `text`; `text` itself if it is not a finite number.
fn on_side(
    text: String,
    step: f64,
    allowed: impl Fn(f64) -> bool,
    format: impl Fn(f64) -> String,
) -> String {
    let read = |text: &str| text.parse().unwrap_or(f64::NAN);
    let start: f64 = read(&text);
    if !start.is_finite() || allowed(start) {
        return text;
    }
    // one step is enough but where it is as small as the spacing of the numbers themselves
    let steps = (1..=4).map(|n| format(start + f64::from(n) * step));
    steps.into_iter().find(|text| allowed(read(text))).unwrap_or(text)
}

/// Four decimals, or powers of ten where the digits would fill lines.
pub fn decimals(value: f64) -> String {
    if value.abs() < 1e9 { format!("{value:.4}") } else { format!("{value:.4e}") }
}

/// A shape as in "32 x 64 x 2 x 2".
pub fn shape_text(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ")
}

/// An attack's name in tables, from its name in files.
pub fn attack_name(name: &str) -> &str {
    match name {
        "pgd" => "PGD",
        "fgsm" => "FGSM",
        "strong_pgd" => "strong PGD",
        "auto" => "AutoAttack",
        "apgd-ce" => "APGD, cross-entropy",
        "apgd-dlr" => "APGD, ratio",
        "apgd-t" => "APGD, targeted",
        "fab-t" => "FAB",
        "square" => "Square",
        other => other,
    }
}

/// With a capital at the start and a full stop at the end.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map_or_else(String::new, |c| c.to_uppercase().to_string());
    format!("{first}{}.", chars.as_str())
}

/// A path as an argument of a command that a person copies into a shell.
///
/// Plain where a POSIX shell takes it as it stands, else in single quotes. Where a terminal would not show it as it is (control
/// characters, those that turn the direction of text, bytes that are no text), `$'…'` with these bytes in octal. A path that begins
/// with a hyphen gets `./` before it, as it would be taken for a flag.
pub fn shell_quoted(path: &Path) -> String {
    let mut bytes = Vec::new();
    if path.as_os_str().as_encoded_bytes().starts_with(b"-") {
        bytes.extend_from_slice(b"./");
    }
    bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./+=:@%,-".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return bytes.into_iter().map(char::from).collect();
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) if escaped(text) == text => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let shown = |byte: u8| match byte {
                b'\'' | b'\\' => format!("\\{}", char::from(byte)),
                b' '..=b'~' => char::from(byte).to_string(),
                _ => format!("\\{byte:03o}"),
            };
            format!("$'{}'", bytes.into_iter().map(shown).collect::<String>())
        }
    }
}

/// Each once, in the order in which they come.
pub fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

/// Texts in order, each once.
pub fn once(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.collect();
    texts.sort();
    texts.dedup();
    texts
}
