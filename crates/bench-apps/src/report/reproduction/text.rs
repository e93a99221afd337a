//! Markdown, and tables for the terminal.

use super::cells::{
    CERTIFIED_NOTE, budget_text, columns, dataset_name, difference, figure, heading, is_mixed,
    method_name, network_name, quoted, statistic,
};
use super::distance_text;
use crate::reproduction::collect::{Column, Reproduction, Row, Section, What};
use crate::text_table::text_table;

/// The tables as Markdown: ours, the paper's in parentheses, and the difference.
#[must_use]
pub fn markdown(reproduction: &Reproduction) -> String {
    let mut text = String::from(
        "# Tables and figures of Li et al. 2019\n\nTest accuracy in percent: mean ± standard deviation over the seeds; in \
         parentheses the paper's figure (200 epochs, 5 seeds; a single figure is one released run) and the difference.\n",
    );
    for note in &reproduction.notes {
        text += &format!("\n> {note}\n");
    }
    for section in &reproduction.sections {
        text += &format!("\n## {}\n\n{}\n", section.experiment.title, section.experiment.note);
        if is_mixed(section) {
            text += "\nRows of different budgets stand side by side here; each names its own.\n";
        }
        if let Some(distances) = &section.distances {
            text += &distance_text::markdown(distances);
        } else if section.rows.is_empty() {
            text += "\nNo cell is finished.\n";
        } else if section.is_figure() {
            text += &spectra_table(section);
        } else {
            text += &markdown_table(section);
            if columns(section).contains(&What::Executed) {
                text += &format!("\n{CERTIFIED_NOTE}\n");
            }
        }
    }
    text
}

fn markdown_table(section: &Section) -> String {
    let columns = columns(section);
    let mut heads: Vec<String> = ["data", "network", "method"].map(str::to_owned).to_vec();
    heads.extend(columns.iter().map(|what| heading(section, *what)));
    heads.extend(["made with", "device", "commit"].map(str::to_owned));
    let mut text = format!("\n{}{}", line(&heads), line(&vec!["---".to_owned(); heads.len()]));
    for row in &section.rows {
        let mut cells = names(row).to_vec();
        cells.extend(row.columns.iter().map(with_paper));
        let commits =
            if row.commits.is_empty() { "unknown".into() } else { row.commits.join(", ") };
        cells.extend([budget_text(row), row.devices.join("; "), commits]);
        text += &line(&cells);
    }
    for other in &section.quoted {
        let dataset = if other.dataset == "mnist" { "MNIST" } else { "CIFAR-10" };
        let mut cells = vec![dataset.to_owned(), other.name.to_owned(), String::new()];
        let figure =
            |what: &What| quoted(other, *what).map_or(String::new(), |v| format!("({v:.2})"));
        cells.extend(columns.iter().map(figure));
        cells.extend(["the paper's figures".into(), String::new(), String::new()]);
        text += &line(&cells);
    }
    text
}

fn spectra_table(section: &Section) -> String {
    let heads = ["data", "method", "made with", "at", "smallest", "mean", "largest"];
    let heads = heads.map(str::to_owned);
    let mut text = format!("\n{}{}", line(&heads), line(&vec!["---".to_owned(); heads.len()]));
    for row in &section.rows {
        let Some(spectra) = section.spectra(row) else { continue };
        for (when, values) in [("the start", &spectra.initial), ("the end", &spectra.trained)] {
            let [data, _, method] = names(row);
            let mut cells = vec![data, method, budget_text(row), when.to_owned()];
            cells.extend([values.min, values.mean, values.max].map(|v| format!("{v:.4}")));
            text += &line(&cells);
        }
    }
    text
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn names(row: &Row) -> [String; 3] {
    let synthetic = if row.key.synthetic { " (synthetic)" } else { "" };
    [
        format!("{}{synthetic}", dataset_name(&row.key)),
        network_name(&row.key.network),
        method_name(&row.key.layer),
    ]
}

/// "97.12 ± 0.05 (97.54 ± 0.06, −0.42)".
fn with_paper(column: &Column) -> String {
    let ours = column.ours.as_ref().map_or(String::new(), statistic);
    match (&column.paper, difference(column)) {
        (Some(paper), Some(difference)) => format!("{ours} ({}, {difference})", figure(paper)),
        (Some(paper), None) => format!("({})", figure(paper)),
        _ => ours,
    }
}

/// The tables for the terminal: our means, the paper's in parentheses.
#[must_use]
pub fn terminal(reproduction: &Reproduction) -> String {
    let mut text = String::new();
    for section in &reproduction.sections {
        text += &format!("\n{}\n\n", section.experiment.title);
        if let Some(distances) = &section.distances {
            text += &distance_text::terminal(distances);
            continue;
        }
        if section.rows.is_empty() {
            text += "no cell is finished\n";
            continue;
        }
        let columns = if section.is_figure() { vec![What::Clean] } else { columns(section) };
        let mut heads = vec!["test accuracy, % (paper)".to_owned()];
        heads.extend(columns.iter().map(|what| what.name().to_owned()));
        heads.push("made with".into());
        let mut rows = vec![heads];
        for row in &section.rows {
            let mut cells = vec![names(row).join(" ")];
            let wanted = row.columns.iter().filter(|column| columns.contains(&column.what));
            cells.extend(wanted.map(|column| {
                let ours = column.ours.as_ref().map_or(String::new(), statistic);
                let paper = column.paper.map(|p| format!(" ({:.2})", p.mean));
                ours + &paper.unwrap_or_default()
            }));
            cells.push(budget_text(row));
            rows.push(cells);
        }
        text += &text_table(&rows);
    }
    text.push('\n');
    text
}
