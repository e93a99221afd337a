//! Distances: tables, charts and images.

use maud::{Markup, html};

use super::chart::{Chart, Legend, Line, Mark, Role, over_steps};
use super::document::figure;
use super::table::{Cell, Head, Row, Table};
use crate::config::{Activation, Method};
use crate::error::Result;
use crate::jobs::collect_distances::{DistanceCell, DistanceRow, DistanceSection, RateCell};
use crate::jobs::distance::{AnchorResult, AnchorsResult, GeneratorJob, GeneratorResult};
use crate::statistic::Statistic;
use crate::words::{at_most, at_most_scientific, counted, distinct, once, sentence};

const DISTANCE_NOTE: &str = "Pixel values lie in [-1, 1]. An estimate is the mean difference of the critic's values on pairs that it was \
    not trained on, less the rounding error, divided by a rigorous bound of the critic's Lipschitz constant. Its \
    expectation is a lower bound of the distance for any critic. ± is the standard deviation over the seeds. The \
    standard error of one estimate stands in brackets; all critics are evaluated on the same pairs, so the standard error \
    overstates the uncertainty of their differences. The learning rate of each critic is chosen on other pairs.";

const ANCHOR_NOTE: &str = "Distributions with a known distance; means over the seeds. The standard error is 0 where the samples are the \
    whole distribution. An estimate more than four standard errors above the exact value would have stopped the run with an \
    error. Matched points: two sets of 8 points, with the exact value of the best matching.";

/// The tables of a section, each with its heading; the first has none.
pub(super) fn tables(section: &DistanceSection) -> Vec<(&'static str, Table)> {
    let mut tables = Vec::new();
    if !section.rows.is_empty() {
        tables.push(("", estimates(section)));
        tables.push(("Every learning rate", rates(section)));
    }
    if !section.anchors.is_empty() {
        tables.push(("Distributions with a known distance", anchors(section)));
    }
    tables
}

/// A column for each method, a row for each nonlinearity.
fn estimates(section: &DistanceSection) -> Table {
    let mut head = vec![Head::from("W1 is at least")];
    head.extend(section.distances.methods.iter().map(|m| Head::from(title_of(m).as_str())));
    let budgets = once(section.rows.iter().map(budget_text));
    let shared = budgets.len() == 1;
    let mut rows = Vec::new();
    for of in &section.rows {
        let mut row = Row {
            group: images_text(of),
            small: if shared { String::new() } else { budget_text(of) },
            label: of.first.plan.activation.title().to_owned(),
            cells: of.cells.iter().map(estimate).collect(),
        };
        let means: Vec<_> = of.cells.iter().map(|cell| cell.ours.map(|ours| ours.mean)).collect();
        row.mark_best(&means);
        rows.push(row);
    }
    let mut notes: Vec<String> =
        budgets.iter().filter(|_| shared).map(|text| sentence(text)).collect();
    let sources = section.paper.iter().map(|(dataset, paper)| {
        format!(
            "Published figures for {}: {}, with another generator.",
            dataset.title(),
            paper.source
        )
    });
    notes.extend(sources);
    notes.push(DISTANCE_NOTE.into());
    let orders: Vec<String> = section
        .orders()
        .iter()
        .map(|order| {
            format!("{} {}", order.statement, if order.holds { "holds" } else { "does NOT hold" })
        })
        .collect();
    if !orders.is_empty() {
        notes.push(format!("The paper's orders, by the means: {}.", orders.join("; ")));
    }
    Table { head, rows, note: notes.join(" ") }
}

/// "5.12 ± 0.03 [0.02]" beside the published figure; their difference means nothing, as the generators differ.
fn estimate(cell: &DistanceCell) -> Cell {
    let error = cell.standard_error.map_or_else(String::new, |error| format!(" [{error:.2}]"));
    Cell {
        ours: cell.ours.map_or_else(String::new, |ours| ours.text() + &error),
        paper: cell.published.map_or_else(String::new, |figure| figure.text()),
        ..Cell::default()
    }
}

/// A column for each learning rate, descending.
fn rates(section: &DistanceSection) -> Table {
    let cells = section.rows.iter().flat_map(|row| &row.cells);
    let mut rates: Vec<f64> = cells.flat_map(|cell| &cell.rates).map(|r| r.learning_rate).collect();
    rates.sort_by(|a, b| b.total_cmp(a));
    rates.dedup();
    let mut head = vec![Head::from("Estimate (largest Lipschitz bound)")];
    head.extend(rates.iter().map(|rate| Head::from(format!("rate {rate}").as_str())));
    let mut rows = Vec::new();
    for row in &section.rows {
        for cell in &row.cells {
            let found = |rate: &f64| cell.rates.iter().find(|r| r.learning_rate == *rate);
            let text = |rate: &f64| {
                found(rate).map_or_else(String::new, |r| rate_text(r, row.seeds.len()))
            };
            rows.push(Row {
                group: format!("{}, {}", images_text(row), row.first.plan.generator.budget),
                label: format!("{} {}", title_of(&cell.method), row.first.plan.activation.title()),
                cells: rates.iter().map(|rate| text(rate).into()).collect(),
                ..Row::default()
            });
        }
    }
    Table { head, rows, note: String::new() }
}

fn title_of(method: &str) -> String {
    method.parse::<Method>().map_or_else(|_| method.to_owned(), |method| method.title().into())
}

fn anchors(section: &DistanceSection) -> Table {
    let head = ["Distribution", "critic", "exact", "estimate", "standard error", "ratio"];
    let rows = section.anchors.iter().flat_map(anchor_rows).collect();
    Table { head: head.map(Head::from).to_vec(), rows, note: ANCHOR_NOTE.into() }
}

/// "CIFAR-10, 32 px".
fn images_text(row: &DistanceRow) -> String {
    let synthetic = if row.first.synthetic { " (synthetic)" } else { "" };
    format!("{}{synthetic}, {} px", row.first.dataset, row.first.plan.generator.size)
}

/// "default budget: width 0.25, 800 steps, 3 seeds, 6400 pairs".
fn budget_text(row: &DistanceRow) -> String {
    let plan = &row.first.plan;
    format!(
        "{} budget: width {}, {}, {}, {}",
        plan.generator.budget,
        plan.width,
        counted(plan.epochs * plan.epoch_steps, "step"),
        counted(row.seeds.len(), "seed"),
        counted(plan.n_report, "pair")
    )
}

/// "5.12 ± 0.03 (1.0000), chosen 2 of 3, 1 ended early".
fn rate_text(rate: &RateCell, n_seeds: usize) -> String {
    let mut text = rate.ours.as_ref().map_or_else(|| "none".into(), Statistic::text);
    if let Some(lipschitz) = rate.lipschitz {
        let shown = if lipschitz < 100.0 {
            at_most(lipschitz, 4)
        } else {
            at_most_scientific(lipschitz, 2)
        };
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

/// An anchor under one kind of critic is a row, means over the seeds: by anchor, then as they were run.
fn anchor_rows(result: &AnchorsResult) -> Vec<Row> {
    let kind = |r: &AnchorResult| (r.name.clone(), r.method, r.activation);
    let mut kinds = distinct(result.rows.iter().map(kind));
    let first = |name: &String| result.rows.iter().position(|row| row.name == *name);
    kinds.sort_by_key(|(name, ..)| first(name));
    let row = |wanted: (String, Method, Activation)| {
        let of: Vec<&AnchorResult> = result.rows.iter().filter(|r| kind(r) == wanted).collect();
        let mean = |value: &dyn Fn(&AnchorResult) -> f64| {
            of.iter().map(|r| value(r)).sum::<f64>() / of.len().max(1) as f64
        };
        let (name, method, activation) = wanted;
        let mut cells = vec![format!("{} {}", method.title(), activation.title())];
        let (exact, estimate) = (mean(&|r| r.exact), mean(&|r| r.estimate.value));
        let error = mean(&|r| r.estimate.standard_error);
        cells.extend([exact, estimate, error].map(|value| format!("{value:.4}")));
        cells.push(format!("{:.3}", mean(&AnchorResult::ratio)));
        Row {
            group: format!("{} budget, {}", result.plan.budget, counted(of.len(), "seed")),
            label: name,
            cells: cells.into_iter().map(Cell::from).collect(),
            ..Row::default()
        }
    };
    kinds.into_iter().map(row).collect()
}

/// The estimate over the steps: a chart for each generator, a colour for each method.
pub(super) fn charts(section: &DistanceSection) -> Result<Markup> {
    let key = |row: &DistanceRow| {
        let GeneratorJob { dataset, budget, .. } = &row.first.plan.generator;
        (dataset.clone(), budget.clone())
    };
    let mut charts = Vec::new();
    for of in distinct(section.rows.iter().map(key)) {
        let rows: Vec<&DistanceRow> = section.rows.iter().filter(|row| key(row) == of).collect();
        let (chart, legend) = curves(section, &rows);
        let caption = format!(
            "{}, {} budget: the estimate over the steps, on the samples for choosing, with the chosen learning rate and the first seed. MaxMin is solid, ReLU dashed.",
            images_text(rows[0]),
            of.1
        );
        charts.push(figure(&chart, &legend, (760, 380), &caption)?);
    }
    Ok(html! { @for chart in charts { (chart) } })
}

fn curves(section: &DistanceSection, rows: &[&DistanceRow]) -> (Chart, Legend) {
    let (mut lines, mut legend): (Vec<Line>, Legend) = (Vec::new(), Vec::new());
    for row in rows {
        for (i, cell) in row.cells.iter().enumerate() {
            let Some(critic) = section.critic(row, &cell.method) else { continue };
            let curve = critic.rates.get(critic.best).map_or(&[][..], |rate| &rate.curve);
            let point = |p: &crate::wasserstein::critic::CurvePoint| {
                (p.step as f64, p.estimate.unwrap_or(f64::NAN))
            };
            let role = Role::Series(i as u8);
            let dashed = row.first.plan.activation == Activation::RELU;
            lines.push(Line::new(role, curve.iter().map(point).collect()).dashed(dashed));
            let name = title_of(&cell.method);
            if !legend.iter().any(|(known, ..)| *known == name) {
                legend.push((name, role, Mark::Solid));
            }
        }
    }
    (over_steps("estimate over the steps, by method", lines), legend)
}

/// Images of a generator beside those of the data.
pub(super) fn grids(generator: &GeneratorResult) -> Markup {
    let plan = &generator.plan;
    let settings = &plan.settings;
    html! {
        div.pair {
            div {
                h3 { "Images of the generator" }
                img.sheet src=(generator.samples) alt="64 generated images";
            }
            div {
                h3 { (generator.dataset) @if generator.synthetic { span.tag { "synthetic" } } }
                img.sheet src=(generator.images) alt="64 images of the data";
            }
        }
        p.fine {
            (generator.dataset) " at " (plan.size) " px, " (plan.budget) " budget: the generator took "
            (settings.steps / settings.n_critic.max(1)) " steps against " (settings.steps)
            " steps of a BCOP critic of width " (settings.critic_width) ", on the " (generator.provenance.device) "."
        }
    }
}
