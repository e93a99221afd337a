//! The page.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::cells::{
    CERTIFIED_NOTE, budget_text, columns, dataset_name, difference, figure as paper_figure,
    heading, is_mixed, method_name, network_name, quoted, statistic,
};
use super::distances;
use super::figures::{self, Group};
use crate::error::Result;
use crate::progress::spoken;
use crate::report::page::{STYLE, figure};
use crate::reproduction::cell::CellResult;
use crate::reproduction::collect::{Column, Reproduction, Row, Section, What};
use crate::reproduction::distances::rows::activation_name;
use crate::reproduction::evidence::AdversarialSample;
use crate::text_table::counted;

/// The page as one HTML document that needs nothing else.
///
/// # Errors
/// [`crate::Error::Draw`].
pub fn page(reproduction: &Reproduction) -> Result<String> {
    let results = unique(reproduction);
    let sections = reproduction.sections.iter().map(section).collect::<Result<Vec<_>>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Tables and figures · lipconv" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main.wide-page {
                    (header(reproduction, &results))
                    @for section in sections { (section) }
                    (curves("Certified accuracy over the radius", CERTIFIED, &results, &|group| Some(figures::certified(group)))?)
                    (curves("Training", TRAINING, &results, &figures::training)?)
                    (images(&results))
                    (provenance(reproduction))
                }
            }
        }
    };
    Ok(page.into_string())
}

const CERTIFIED: &str = "Share of all test images that are classified correctly with a certified radius beyond ε; nominal, as in \
                         the paper. One seed of each method.";
const TRAINING: &str = "Test accuracy after each epoch: clean (solid) and certified at the radius of the tables (dashed). One \
                        seed of each method.";

/// Every finished cell once, in the order of the sections.
fn unique(reproduction: &Reproduction) -> Vec<&CellResult> {
    let mut results: Vec<&CellResult> = Vec::new();
    for result in reproduction.sections.iter().flat_map(|section| &section.results) {
        if results.iter().all(|r| {
            r.plan.cell.id() != result.plan.cell.id()
                || r.plan.cell.budget != result.plan.cell.budget
        }) {
            results.push(result);
        }
    }
    results
}

fn header(reproduction: &Reproduction, results: &[&CellResult]) -> Markup {
    let critics = || {
        reproduction.sections.iter().filter_map(|s| s.distances.as_ref()).flat_map(|d| &d.critics)
    };
    let seconds: f64 =
        results.iter().map(|r| r.row.seconds).chain(critics().map(|c| c.seconds)).sum();
    let n_finished = results.len() + critics().count();
    let synthetic = results.iter().any(|r| r.row.synthetic) || critics().any(|c| c.synthetic);
    html! {
        header {
            p.kicker { "lipconv · reproduction" }
            h1 { "Tables and figures of Li et al. 2019" }
            p.lead {
                (counted(n_finished, "finished cell")) ", "
                (spoken(std::time::Duration::from_secs_f64(seconds.max(0.0))))
                " of training and evaluation. Every row says how many epochs and seeds it was made with; the paper's figures \
                are means of 5 runs of 200 epochs."
            }
            @if synthetic {
                p.banner {
                    strong { "Synthetic data. " }
                    "Some rows are on images drawn by the program; they say so, and compare with nothing in the paper."
                }
            }
            @for note in &reproduction.notes { p.note { (note) } }
        }
    }
}

fn section(section: &Section) -> Result<Markup> {
    let body = if let Some(distances) = &section.distances {
        distances::body(distances)?
    } else if section.rows.is_empty() {
        html! { p.fine { "No cell is finished." } }
    } else if section.is_figure() {
        spectra(section)?
    } else {
        table(section)
    };
    Ok(html! {
        section {
            h2 { (section.experiment.title) }
            @if is_mixed(section) {
                p.banner { "Rows of different budgets stand side by side here; each names its own." }
            }
            (body)
            p.fine {
                (section.experiment.note) " "
                @if columns(section).contains(&What::Executed) && !section.is_figure() { (CERTIFIED_NOTE) }
            }
        }
    })
}

fn table(section: &Section) -> Markup {
    let columns = columns(section);
    html! {
        div.scroll { table.cells {
            thead { tr {
                th { "Test accuracy, %" }
                @for what in &columns { th.number { (heading(section, *what)) } }
            } }
            tbody {
                @for row in &section.rows { (table_row(row)) }
                @for other in &section.quoted { tr.quoted {
                    th scope="row" {
                        (other.name)
                        small { (if other.dataset == "mnist" { "MNIST" } else { "CIFAR-10" }) "; the paper’s figures" }
                    }
                    @for what in &columns {
                        td.number { @if let Some(value) = quoted(other, *what) { span.paper { (format!("paper {value:.2}")) } } }
                    }
                } }
            }
        } }
    }
}

fn table_row(row: &Row) -> Markup {
    html! {
        tr {
            th scope="row" {
                (network_name(&row.key.network)) " " (method_name(&row.key.layer))
                small {
                    (dataset_name(&row.key))
                    @if row.key.synthetic { span.tag { "synthetic" } }
                    br; (budget_text(row))
                    br; (row.devices.join("; "))
                }
            }
            @for column in &row.columns { td.number { (cell(column)) } }
        }
    }
}

fn cell(column: &Column) -> Markup {
    html! {
        @if let Some(ours) = &column.ours { span.ours { (statistic(ours)) } }
        @if let Some(paper) = &column.paper {
            span.paper {
                "paper " (paper_figure(paper))
                @if let Some(difference) = difference(column) { br; (difference) }
            }
        }
    }
}

/// Figure 2: a chart for each method.
fn spectra(section: &Section) -> Result<Markup> {
    let mut charts = Vec::new();
    for row in &section.rows {
        let Some(spectra) = section.spectra(row) else { continue };
        let (chart, legend) = figures::spectra(spectra);
        let caption = format!(
            "{} {} on {}, {} at {} x {}: at first {:.3} to {:.3}, after training {:.3} to {:.3}. Made with {}.",
            network_name(&row.key.network),
            method_name(&row.key.layer),
            dataset_name(&row.key),
            spectra.layer,
            spectra.size.0,
            spectra.size.1,
            spectra.initial.min,
            spectra.initial.max,
            spectra.trained.min,
            spectra.trained.max,
            budget_text(row)
        );
        charts.push((method_name(&row.key.layer), figure(&chart, &legend, (460, 300), &caption)?));
    }
    Ok(html! {
        div.pair { @for (method, chart) in &charts { div { h3 { (method) } (chart) } } }
    })
}

type Drawn = Option<(crate::report::chart::Chart, crate::report::figures::Legend)>;

/// A chart for each kind of network and data set.
fn curves(
    title: &str,
    caption: &str,
    results: &[&CellResult],
    draw: &dyn Fn(&Group<'_>) -> Drawn,
) -> Result<Markup> {
    let mut charts = Vec::new();
    for group in Group::all(results.iter().copied().filter(|r| !r.history.is_empty())) {
        if let Some((chart, legend)) = draw(&group) {
            charts.push((group_name(group.first()), figure(&chart, &legend, (460, 330), "")?));
        }
    }
    Ok(html! {
        @if !charts.is_empty() {
            section {
                h2 { (title) }
                div.pair { @for (name, chart) in &charts { div { h3 { (name) } (chart) } } }
                p.fine { (caption) }
            }
        }
    })
}

fn group_name(result: &CellResult) -> String {
    let dataset = match result.row.dataset.as_str() {
        "mnist" => "MNIST",
        "cifar10" => "CIFAR-10",
        other => other,
    };
    let network = network_name(&result.row.network);
    format!(
        "{network} on {dataset}, {}: {}",
        result.plan.cell.budget,
        counted(result.row.epochs, "epoch")
    )
}

/// For each data set, the images of the network with the best certified accuracy.
fn images(results: &[&CellResult]) -> Markup {
    let certified = |result: &CellResult| {
        let eps = result.plan.config.evaluation.attack_eps.first()?;
        result.row.certified.executed.get(eps.text())
    };
    let mut best: Vec<&CellResult> = Vec::new();
    for result in results.iter().copied().filter(|r| !r.samples.is_empty()) {
        match best.iter_mut().find(|b| b.row.dataset == result.row.dataset) {
            None => best.push(result),
            Some(other) if certified(result) > certified(other) => *other = result,
            Some(_) => {}
        }
    }
    html! {
        @for result in best {
            section {
                h2 { "Images, certified radii and adversarial examples: " (method_name(&result.row.layer)) " " (group_name(result)) }
                p.fine {
                    "The first test images, in order. Left: the image, its class and its certified radius r as executed. Right: \
                    the nearest adversarial example that PGD and bisection found, what it is taken for, and its distance d, \
                    which is never below r. A wrong answer has no radius."
                }
                ol.grid.pairs { @for sample in &result.samples { (card(sample)) } }
            }
        }
    }
}

fn card(sample: &AdversarialSample) -> Markup {
    let correct = sample.label == sample.predicted;
    html! {
        li class=(if correct { "card" } else { "card wrong" }) {
            div.twins {
                img src=(sample.image) alt={"an image of class " (sample.label)};
                @if let Some(adversarial) = &sample.adversarial {
                    img src=(adversarial.image) alt={"changed, it is taken for class " (adversarial.predicted)};
                } @else { span.nothing {} }
            }
            @if correct {
                p.radius {
                    (sample.label) ", r " (format!("{:.2}", sample.radius))
                    @if let Some(adversarial) = &sample.adversarial {
                        br; "→ " (adversarial.predicted) ", d " (format!("{:.2}", adversarial.distance))
                    }
                }
            } @else { p.radius { (sample.label) " → " (sample.predicted) } }
        }
    }
}

fn provenance(reproduction: &Reproduction) -> Markup {
    html! {
        section {
            h2 { "To run the same again" }
            div.scroll { table {
                thead { tr {
                    th { "Row" } th { "seeds" } th { "device" } th { "commit" } th.number { "time for each seed" }
                } }
                tbody {
                    @for section in &reproduction.sections {
                        @for row in &section.rows { tr {
                            th scope="row" {
                                (section.experiment.name) ", " (dataset_name(&row.key)) " " (network_name(&row.key.network)) " "
                                (method_name(&row.key.layer)) ", " (row.key.budget)
                            }
                            td { (row.seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")) }
                            td { (row.devices.join("; ")) }
                            td { (row.commits.join(", ")) }
                            td.number { (spoken(std::time::Duration::from_secs_f64(row.seconds.max(0.0)))) }
                        } }
                        @for row in section.distances.iter().flat_map(|d| &d.rows) { tr {
                            th scope="row" {
                                (section.experiment.name) ", " (row.key.dataset) " " (row.key.size()) " px "
                                (activation_name(row.key.activation())) ", " (row.key.budget())
                            }
                            td { (row.seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")) }
                            td { (row.devices.join("; ")) }
                            td { (row.commits.join(", ")) }
                            td.number { (spoken(std::time::Duration::from_secs_f64(row.seconds.max(0.0)))) }
                        } }
                    }
                }
            } }
            p.fine { "lipconv reproduce NAME, with --quick or --full for those budgets; the settings of every cell are in its cell.json." }
        }
    }
}
