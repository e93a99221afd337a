//! Table 4 on the page.

use maud::{Markup, html};

use super::cells::method_name;
use super::distance_words::{
    ANCHOR_NOTE, DISTANCE_NOTE, anchor_rows, budget_text, cell_text, images_text, paper_text,
    rate_text, rates,
};
use crate::config::ActivationKind;
use crate::error::Result;
use crate::report::chart::{Chart, Line, Role};
use crate::report::figures::{Legend, Mark};
use crate::report::page::figure;
use crate::reproduction::distances::DistanceSection;
use crate::reproduction::distances::plan::activation_key;
use crate::reproduction::distances::result::GeneratorResult;
use crate::reproduction::distances::rows::{DistanceRow, activation_name};

/// The section's tables, charts and images.
pub(super) fn body(section: &DistanceSection) -> Result<Markup> {
    if section.rows.is_empty() && section.anchors.is_empty() && section.generators.is_empty() {
        return Ok(html! { p.fine { "No cell is finished." } });
    }
    Ok(html! {
        @if !section.rows.is_empty() {
            (table(section))
            p.fine { (DISTANCE_NOTE) }
            (orders(section))
            h3 { "Every learning rate" }
            (rate_table(section))
            (charts(section)?)
        }
        @for generator in &section.generators { (grids(generator)) }
        @if !section.anchors.is_empty() {
            h3 { "Exact anchors" }
            (anchors(section))
            p.fine { (ANCHOR_NOTE) }
        }
    })
}

fn table(section: &DistanceSection) -> Markup {
    html! {
        div.scroll { table.cells {
            thead { tr {
                th { "W1 is at least" }
                @for method in &section.distances.methods { th.number { (method_name(method)) } }
            } }
            tbody { @for row in &section.rows { tr {
                (heading(row))
                @for cell in &row.cells { td.number {
                    @if let Some(text) = cell_text(cell) { span.ours { (text) } }
                    @if let Some(text) = paper_text(row, cell) { span.paper { (text) } }
                } }
            } } }
        } }
    }
}

fn heading(row: &DistanceRow) -> Markup {
    html! {
        th scope="row" {
            (activation_name(row.key.activation()))
            small {
                (images_text(row))
                @if row.key.synthetic { span.tag { "synthetic" } }
                br; (budget_text(row))
                br; (row.devices.join("; "))
            }
        }
    }
}

fn orders(section: &DistanceSection) -> Markup {
    let orders = section.orders();
    html! {
        @if !orders.is_empty() {
            p.fine {
                "The paper’s orders, by the means: "
                @for (i, order) in orders.iter().enumerate() {
                    @if i > 0 { "; " }
                    (order.statement) @if order.holds { " holds" } @else { strong { " does not hold" } }
                }
                "."
            }
        }
    }
}

fn rate_table(section: &DistanceSection) -> Markup {
    let rates = rates(section);
    html! {
        div.scroll { table.cells {
            thead { tr {
                th { "Estimate (largest Lipschitz bound)" }
                @for rate in &rates { th.number { "rate " (rate) } }
            } }
            tbody { @for row in &section.rows { @for cell in &row.cells {
                @if cell.rates.iter().any(|rate| rate.ours.is_some() || rate.n_stopped > 0) { tr {
                    th scope="row" {
                        (method_name(&cell.method)) " " (activation_name(row.key.activation()))
                        small { (images_text(row)) ", " (row.key.budget()) }
                    }
                    @for rate in &rates { td.number {
                        @for found in cell.rates.iter().filter(|r| r.learning_rate == *rate) {
                            (rate_text(found, row.seeds.len()))
                        }
                    } }
                } }
            } } }
        } }
    }
}

/// The estimate over the steps: a chart for each generator, a colour for each method.
fn charts(section: &DistanceSection) -> Result<Markup> {
    let mut charts = Vec::new();
    let mut shown: Vec<&DistanceRow> = Vec::new();
    for row in &section.rows {
        let same = |other: &&DistanceRow| {
            other.key.source() == row.key.source() && other.key.budget() == row.key.budget()
        };
        if shown.iter().any(same) {
            continue;
        }
        shown.push(row);
        let rows: Vec<&DistanceRow> = section.rows.iter().filter(|r| same(r)).collect();
        let (chart, legend) = curves(section, &rows);
        let caption = format!(
            "{}, {}: the estimate on {} over the steps with the chosen learning rate, first seed; MaxMin solid, ReLU dashed.",
            images_text(row),
            row.key.budget(),
            "samples kept for choosing"
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
            let point = |p: &crate::wasserstein::training::CurvePoint| {
                (p.step as f64, p.estimate.unwrap_or(f64::NAN))
            };
            let role = Role::Series(i as u8);
            let dashed = row.key.activation() == ActivationKind::Relu;
            lines.push(Line { role, points: curve.iter().map(point).collect(), dashed });
            let name = method_name(&cell.method);
            if !legend.iter().any(|(known, ..)| *known == name) {
                legend.push((name, role, Mark::Solid));
            }
        }
    }
    let points = || lines.iter().flat_map(|line| &line.points).filter(|p| p.1.is_finite());
    let top = points().map(|p| p.1).fold(0.0, f64::max);
    let bottom = points().map(|p| p.1).fold(0.0, f64::min);
    let last = points().map(|p| p.0).fold(1.0, f64::max);
    let chart = Chart {
        name: "estimate over the steps, by method",
        x_label: "step",
        y_label: "estimate",
        x_range: 0.0..last,
        y_range: 1.08 * bottom..if top > 0.0 { 1.08 * top } else { 1.0 },
        lines,
        markers: Vec::new(),
        rule: None,
    };
    (chart, legend)
}

fn grids(generator: &GeneratorResult) -> Markup {
    let plan = &generator.plan;
    let settings = &plan.settings;
    html! {
        div.pair {
            div {
                h3 { "The generator’s images" }
                img.sheet src=(generator.samples) alt="64 generated images";
            }
            div {
                h3 { (generator.dataset) @if generator.synthetic { span.tag { "synthetic" } } }
                img.sheet src=(generator.images) alt="64 images of the data";
            }
        }
        p.fine {
            (generator.dataset) " at " (plan.size) " px, " (plan.budget) ": a generator after " (settings.steps)
            " steps of a BCOP critic of width " (settings.critic_width) " and "
            (settings.steps / settings.n_critic.max(1)) " of its own, on the " (generator.provenance.device) "."
        }
    }
}

fn anchors(section: &DistanceSection) -> Markup {
    html! {
        div.scroll { table.cells {
            thead { tr {
                th { "Distributions" } th { "critic" } th.number { "exact" } th.number { "estimate" } th.number { "standard error" }
                th.number { "ratio" }
            } }
            tbody { @for result in &section.anchors { @for row in anchor_rows(result) { tr {
                th scope="row" { (row.name) small { (result.plan.budget) ", " (row.n) @if row.n == 1 { " seed" } @else { " seeds" } } }
                td { (method_name(&row.method)) " " (if row.activation == activation_key(ActivationKind::Relu) { "ReLU" } else { "MaxMin" }) }
                td.number { (format!("{:.4}", row.exact)) }
                td.number { (format!("{:.4}", row.estimate)) }
                td.number { (format!("{:.4}", row.standard_error)) }
                td.number { (format!("{:.3}", row.ratio)) }
            } } } }
        } }
    }
}
