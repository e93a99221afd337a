//! Table 4 as Markdown and on the terminal.

use super::cells::method_name;
use super::distance_words::{
    ANCHOR_NOTE, DISTANCE_NOTE, anchor_rows, budget_text, cell_text, images_text, paper_text,
    rate_text, rates,
};
use crate::reproduction::distances::DistanceSection;
use crate::reproduction::distances::rows::{DistanceCell, DistanceRow, activation_name};
use crate::text_table::text_table;

/// The section's tables as Markdown.
pub(super) fn markdown(section: &DistanceSection) -> String {
    if section.rows.is_empty() && section.anchors.is_empty() {
        return "\nNo critic is finished.\n".into();
    }
    let mut text = String::new();
    if !section.rows.is_empty() {
        text += &format!("\n{}\n{DISTANCE_NOTE}\n", markdown_table(&table(section, true)));
        let orders = section.orders();
        if !orders.is_empty() {
            let words: Vec<String> = orders.iter().map(order_text).collect();
            text += &format!("\nThe paper's orders, by the means: {}.\n", words.join("; "));
        }
        text += "\nEvery learning rate: estimate (largest Lipschitz bound).\n\n";
        text += &markdown_table(&rate_table(section));
    }
    if !section.anchors.is_empty() {
        text += &format!("\n{}\n{ANCHOR_NOTE}\n", markdown_table(&anchor_table(section)));
    }
    text
}

/// The section's tables for the terminal.
pub(super) fn terminal(section: &DistanceSection) -> String {
    if section.rows.is_empty() && section.anchors.is_empty() {
        return "no critic is finished\n".into();
    }
    let mut tables = Vec::new();
    if !section.rows.is_empty() {
        tables.push(text_table(&table(section, false)));
        tables.push(text_table(&rate_table(section)));
    }
    if !section.anchors.is_empty() {
        tables.push(text_table(&anchor_table(section)));
    }
    tables.join("\n")
}

fn order_text(order: &crate::reproduction::distances::rows::Order) -> String {
    let holds = if order.holds { "holds" } else { "does NOT hold" };
    format!("{} {holds}", order.statement)
}

fn markdown_table(rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        text += &line(row);
        if i == 0 {
            text += &line(&vec!["---".to_owned(); row.len()]);
        }
    }
    text
}

/// One row for each nonlinearity, a column for each method; with `whole`, device and commit as well.
fn table(section: &DistanceSection, whole: bool) -> Vec<Vec<String>> {
    let mut heads = vec!["W1 is at least (published)".to_owned()];
    heads.extend(section.distances.methods.iter().map(|method| method_name(method)));
    heads.push("made with".into());
    if whole {
        heads.extend(["device", "commit"].map(str::to_owned));
    }
    let mut rows = vec![heads];
    for row in &section.rows {
        let mut cells =
            vec![format!("{}, {}", activation_name(row.key.activation()), images_text(row))];
        cells.extend(row.cells.iter().map(|cell| with_paper(row, cell)));
        cells.push(budget_text(row));
        if whole {
            cells.extend([row.devices.join("; "), row.commits.join(", ")]);
        }
        rows.push(cells);
    }
    rows
}

fn with_paper(row: &DistanceRow, cell: &DistanceCell) -> String {
    let paper = paper_text(row, cell).map(|text| format!(" ({text})"));
    cell_text(cell).unwrap_or_default() + &paper.unwrap_or_default()
}

fn rate_table(section: &DistanceSection) -> Vec<Vec<String>> {
    let rates = rates(section);
    let mut heads = vec!["estimate (bound)".to_owned()];
    heads.extend(rates.iter().map(|rate| format!("rate {rate}")));
    let mut rows = vec![heads];
    for row in &section.rows {
        for cell in &row.cells {
            let found = |rate: &f64| cell.rates.iter().find(|r| r.learning_rate == *rate);
            let of = rates.iter().map(|rate| {
                found(rate).map_or_else(String::new, |r| rate_text(r, row.seeds.len()))
            });
            let name = format!(
                "{} {}, {}, {}",
                method_name(&cell.method),
                activation_name(row.key.activation()),
                images_text(row),
                row.key.budget()
            );
            rows.push(std::iter::once(name).chain(of).collect());
        }
    }
    rows
}

fn anchor_table(section: &DistanceSection) -> Vec<Vec<String>> {
    let heads = ["exact anchor", "critic", "exact", "estimate", "standard error", "ratio", "seeds"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for result in &section.anchors {
        for row in anchor_rows(result) {
            let activation = if row.activation == "relu" { "ReLU" } else { "MaxMin" };
            let mut cells =
                vec![row.name.clone(), format!("{} {activation}", method_name(&row.method))];
            cells.extend([row.exact, row.estimate, row.standard_error].map(|v| format!("{v:.4}")));
            cells.extend([
                format!("{:.3}", row.ratio),
                format!("{}: {}", result.plan.budget, row.n),
            ]);
            rows.push(cells);
        }
    }
    rows
}
