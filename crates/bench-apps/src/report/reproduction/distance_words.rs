//! The words and numbers of Table 4, the same in every format.

use super::cells::{figure, statistic};
use crate::reproduction::distances::DistanceSection;
use crate::reproduction::distances::published::source;
use crate::reproduction::distances::result::AnchorsResult;
use crate::reproduction::distances::rows::{DistanceCell, DistanceRow, RateCell};
use crate::text_table::counted;
use crate::wasserstein::anchors::AnchorResult;

/// What a reader of distances should know.
pub(super) const DISTANCE_NOTE: &str = "Images have values in [-1, 1]. An estimate is the mean difference of the critic on pairs that no \
    training saw, less its rounding error, divided by a rigorous bound of the critic’s Lipschitz constant and rounded down: in expectation a \
    lower bound of the distance, whatever the critic is. ± is the standard deviation over the seeds; the standard error of one estimate \
    stands in brackets; all critics see the same pairs, so that differences between them are more certain than it says. The learning rate is chosen for each critic on other pairs than those reported.";

/// What a reader of the anchors should know.
pub(super) const ANCHOR_NOTE: &str = "Distributions whose distance is known exactly; means over the seeds. The standard error is 0 where the \
    samples are all there is; an estimate more than four standard errors above the exact value would have ended the run as an error. \
    Matched points: two sets of 8, the exact value by the best matching.";

/// "CIFAR-10, 32 px".
pub(super) fn images_text(row: &DistanceRow) -> String {
    let synthetic = if row.key.synthetic { " (synthetic)" } else { "" };
    format!("{}{synthetic}, {} px", row.key.dataset, row.key.size())
}

/// "default: width 0.25, 800 steps, 3 seeds, 6400 pairs".
pub(super) fn budget_text(row: &DistanceRow) -> String {
    let key = &row.key;
    format!(
        "{}: width {}, {}, {}, {}",
        key.budget(),
        key.width(),
        counted(key.steps(), "step"),
        counted(row.seeds.len(), "seed"),
        counted(key.pairs(), "pair")
    )
}

/// "5.12 ± 0.03 [0.02]".
pub(super) fn cell_text(cell: &DistanceCell) -> Option<String> {
    let error = cell.standard_error.map(|error| format!(" [{error:.2}]"));
    Some(statistic(cell.ours.as_ref()?) + &error.unwrap_or_default())
}

/// "paper 9.91 ± 0.11".
pub(super) fn paper_text(row: &DistanceRow, cell: &DistanceCell) -> Option<String> {
    Some(format!("{} {}", source(row.key.source()), figure(cell.published.as_ref()?)))
}

/// "5.12 ± 0.03 (1.0000), chosen 2 times of 3, 1 ended early".
pub(super) fn rate_text(rate: &RateCell, n_seeds: usize) -> String {
    let mut text = rate.ours.as_ref().map_or_else(|| "none".into(), statistic);
    if let Some(lipschitz) = rate.lipschitz {
        let shown =
            if lipschitz < 100.0 { format!("{lipschitz:.4}") } else { format!("{lipschitz:.2e}") };
        text += &format!(" ({shown})");
    }
    if rate.n_chosen > 0 {
        text += if n_seeds == 1 { ", chosen" } else { ", chosen " };
        if n_seeds > 1 {
            text += &format!("{} of {n_seeds}", rate.n_chosen);
        }
    }
    if rate.n_stopped > 0 {
        text += &format!(", {} ended early", rate.n_stopped);
    }
    text
}

/// Every learning rate of a section, descending.
pub(super) fn rates(section: &DistanceSection) -> Vec<f64> {
    let cells = section.rows.iter().flat_map(|row| &row.cells);
    let mut rates: Vec<f64> = cells.flat_map(|cell| &cell.rates).map(|r| r.learning_rate).collect();
    rates.sort_by(|a, b| b.total_cmp(a));
    rates.dedup();
    rates
}

/// An anchor under one kind of critic, means over the seeds.
pub(super) struct AnchorRow {
    pub(super) name: String,
    pub(super) method: String,
    pub(super) activation: String,
    pub(super) n: usize,
    pub(super) exact: f64,
    pub(super) estimate: f64,
    pub(super) standard_error: f64,
    pub(super) ratio: f64,
}

/// Rows by anchor, then as they were run.
pub(super) fn anchor_rows(result: &AnchorsResult) -> Vec<AnchorRow> {
    let kind = |r: &AnchorResult| (r.name.clone(), r.method.clone(), r.activation.clone());
    let mut kinds: Vec<(String, String, String)> = Vec::new();
    for row in &result.rows {
        if !kinds.contains(&kind(row)) {
            kinds.push(kind(row));
        }
    }
    let mut names: Vec<String> = kinds.iter().map(|k| k.0.clone()).collect();
    names.dedup();
    let first = |name: &String| names.iter().position(|n| n == name);
    kinds.sort_by_key(|(name, ..)| first(name));
    let row = |wanted: (String, String, String)| {
        let of: Vec<&AnchorResult> = result.rows.iter().filter(|r| kind(r) == wanted).collect();
        let mean = |value: &dyn Fn(&AnchorResult) -> f64| {
            of.iter().map(|r| value(r)).sum::<f64>() / of.len().max(1) as f64
        };
        AnchorRow {
            n: of.len(),
            exact: mean(&|r| r.exact),
            estimate: mean(&|r| r.estimate.value),
            standard_error: mean(&|r| r.estimate.standard_error),
            ratio: mean(&AnchorResult::ratio),
            name: wanted.0,
            method: wanted.1,
            activation: wanted.2,
        }
    };
    kinds.into_iter().map(row).collect()
}
