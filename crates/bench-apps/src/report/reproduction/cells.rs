//! The words of a table: headings, rows and numbers, the same in every format.

use crate::report::paper::{Figure, Quoted};
use crate::reproduction::collect::{Column, Key, Row, Section, Statistic, What};
use crate::text_table::counted;

/// A data set's name as people write it.
pub(super) fn dataset_name(key: &Key) -> String {
    match key.dataset.as_str() {
        "mnist" => "MNIST".into(),
        "cifar10" => "CIFAR-10".into(),
        other => other.to_owned(),
    }
}

/// A method's name as people write it.
pub(super) fn method_name(method: &str) -> String {
    match method {
        "bcop" | "rko" | "ossn" | "svcm" => method.to_uppercase(),
        "bcop-fixed" => "BCOP-fixed".into(),
        "rk-l2ne" => "RK-L2NE".into(),
        "bjorck" => "Björck".into(),
        other => other.to_owned(),
    }
}

/// A network's name as people write it.
pub(super) fn network_name(network: &str) -> String {
    match network {
        "small" => "Small".into(),
        "large" => "Large".into(),
        "fc-3" => "FC-3".into(),
        "kw-small" => "KW-Small".into(),
        other => other.to_owned(),
    }
}

/// What it took, as in "quick: 1 epoch on 12800 images, 1 seed, 1000 test images".
pub(super) fn budget_text(row: &Row) -> String {
    let key = &row.key;
    let mut text = if key.layer == "published" {
        format!("{}: not trained here", key.budget)
    } else {
        format!("{}: {}", key.budget, counted(key.epochs, "epoch"))
    };
    if let Some(n) = key.train_limit {
        text += &format!(" on {n} images");
    }
    if key.layer != "published" {
        text += &format!(", {}", counted(row.seeds.len(), "seed"));
    }
    if let Some(n) = key.test_limit {
        text += &format!(", {n} test images");
    }
    let shows_first = row.columns.iter().any(|column| column.what == What::FirstClean);
    if let Some(n) = key.first_images.filter(|_| shows_first) {
        text += &format!(", first {n} of them for boundary and pointwise");
    }
    text
}

/// Heading of a column, with the radius where there is one for all rows.
pub(super) fn heading(section: &Section, what: What) -> String {
    let mut eps: Vec<&str> = section.rows.iter().map(|row| row.eps.as_str()).collect();
    eps.dedup();
    match (what, eps.as_slice()) {
        (What::Clean | What::BestClean | What::FirstClean, _) => what.name().to_owned(),
        (_, [eps]) => format!("{}, ε = {eps}", what.name()),
        _ => what.name().to_owned(),
    }
}

/// "97.12 ± 0.05", without the deviation of a single value.
pub(super) fn statistic(value: &Statistic) -> String {
    with_sd(value.mean, value.sd)
}

pub(super) fn figure(value: &Figure) -> String {
    with_sd(value.mean, value.sd)
}

fn with_sd(mean: f64, sd: Option<f64>) -> String {
    sd.map_or_else(|| format!("{mean:.2}"), |sd| format!("{mean:.2} ± {sd:.2}"))
}

/// Ours less the paper's.
pub(super) fn difference(column: &Column) -> Option<String> {
    let difference = column.ours?.mean - column.paper?.mean;
    Some(format!("{difference:+.2}").replace('-', "−"))
}

/// The columns of a section's rows.
pub(super) fn columns(section: &Section) -> Vec<What> {
    section.rows.first().map(|row| row.columns.iter().map(|c| c.what).collect()).unwrap_or_default()
}

/// The quoted figure for a column.
pub(super) fn quoted(quoted: &Quoted, what: What) -> Option<f64> {
    quoted.figures.iter().find(|(name, _)| *name == what.name()).map(|(_, value)| *value)
}

/// What a reader of certified accuracies should know.
pub(super) const CERTIFIED_NOTE: &str = "Certified: nominal, as in the paper, with a Lipschitz constant of 1 taken on faith. As executed: \
    with a rigorous bound of the constant and of every rounding error; where that bound is well below 1, it certifies more.";

/// Whether rows of different budgets stand in one table.
pub(super) fn is_mixed(section: &Section) -> bool {
    section.rows.windows(2).any(|pair| pair[0].key.budget != pair[1].key.budget)
}
