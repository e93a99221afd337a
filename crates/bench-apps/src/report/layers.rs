//! Methods with what they cost: a row for each, and two charts.
//!
//! Definition. The time of a step is that of training by its steps. Certified accuracies stand at every radius of the evaluation.
//! Published figures are of other networks, trained elsewhere: they have a column of their own and no difference.

use certify::{ByEps, Eps};
use maud::{Markup, html};

use super::chart::{Chart, Legend, Line, Mark, Marker, Role, y_range};
use super::document::figure;
use super::table::Table;
use crate::error::Result;
use crate::jobs::cell::CellResult;
use crate::jobs::collect::Section;
use crate::statistic::What;

/// A row for each result, in the order of the experiment.
pub(super) fn table(section: &Section) -> Table {
    // files have them in the order of their texts
    let mut radii: Vec<Eps> = section.results.first().map_or_else(Vec::new, |result| {
        result.row.certified.nominal.iter().map(|(eps, _)| eps.clone()).collect()
    });
    radii.sort_by(|a, b| a.value().total_cmp(&b.value()));
    let mut head = vec!["Layer".to_owned(), "seed".into(), "clean, %".into()];
    head.extend(radii.iter().map(|eps| format!("certified at {eps}, %")));
    head.extend(radii.iter().map(|eps| format!("as executed at {eps}, %")));
    head.extend(["ms a step", "peak MiB", "ms an image", "parameters", "rate"].map(Into::into));
    head.extend(["epochs", "minutes of training", "published: clean / certified"].map(Into::into));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    Table::plain(&head, section.results.iter().map(|r| cells(section, r, &radii)).collect())
}

fn cells(section: &Section, result: &CellResult, radii: &[Eps]) -> Vec<String> {
    let (row, training) = (&result.row, &result.plan.config.training);
    let at = |all: &ByEps, eps: &Eps| number(all.get(eps.text()), 2);
    let minutes = result.history.last().map(|last| last.seconds / 60.0);
    let costs = result.costs.as_ref();
    let mut cells =
        vec![row.layer.title().into(), row.seed.to_string(), number(Some(row.clean), 2)];
    cells.extend(radii.iter().map(|eps| at(&row.certified.nominal, eps)));
    cells.extend(radii.iter().map(|eps| at(&row.certified.executed, eps)));
    cells.push(number(step_ms(result), 1));
    cells.push(number(costs.and_then(|costs| costs.peak_mib), 0));
    cells.push(number(costs.map(|costs| costs.image_ms), 3));
    cells.push(costs.map_or_else(String::new, |costs| costs.n_parameters.to_string()));
    cells.extend([training.learning_rate.to_string(), training.epochs.to_string()]);
    cells.push(number(minutes, 1));
    let quoted = section.experiment.quoted.get(&result.plan.cell.dataset.to_string());
    let published = quoted.and_then(|by_name| by_name.get(&row.layer.to_string()));
    let figure = |what| published.and_then(|p| p.get(&what)).map(|figure| figure.text());
    let both = figure(What::Clean).zip(figure(What::Certified));
    cells
        .push(both.map_or_else(String::new, |(clean, certified)| format!("{clean} / {certified}")));
    cells
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.decimals$}"))
}

fn step_ms(result: &CellResult) -> Option<f64> {
    result.history.last().map(|last| 1e3 * last.seconds / last.step as f64)
}

/// Accuracy against the time of a step, and certified accuracy over training time.
pub(super) fn charts(section: &Section) -> Result<Markup> {
    let results = &section.results;
    let Some(eps) = results.first().map(CellResult::eps) else { return Ok(html! {}) };
    let (mut markers, mut lines, mut legend) = (Vec::new(), Vec::new(), Legend::new());
    for (i, result) in results.iter().enumerate() {
        // six colours, solid and then dashed
        let (role, dashed) = (Role::Series((i % 6) as u8), i >= 6);
        let name = result.row.layer.title();
        let mark = if dashed { Mark::Dashed } else { Mark::Solid };
        legend.push((name.into(), role, mark));
        let history = result.history.iter();
        let points = history
            .filter_map(|row| Some((row.seconds / 60.0, row.test_certified.as_ref()?.get(eps)?)));
        lines.push(Line::new(role, points.collect()).dashed(dashed));
        let Some(ms) = step_ms(result) else { continue };
        let certified = result.row.certified.nominal.get(eps);
        for (filled, value) in [(true, Some(result.row.clean)), (false, certified)] {
            let Some(value) = value else { continue };
            let label = if filled { name.into() } else { String::new() };
            markers.push(Marker { role, at: (ms, value), filled, label, label_dy: 0 });
        }
    }
    let last = |xs: &mut dyn Iterator<Item = f64>| 1.15 * xs.fold(1e-3, f64::max);
    let chart = Chart {
        name: "accuracy against the time of a step",
        x_label: "milliseconds a step",
        y_label: "test images, %",
        x_range: 0.0..last(&mut markers.iter().map(|marker| marker.at.0)),
        y_range: 0.0..100.0,
        markers,
        ..Chart::default()
    };
    let over_time = Chart {
        name: "certified accuracy over training time",
        x_label: "minutes of training",
        x_range: 0.0..last(&mut lines.iter().flat_map(|line| &line.points).map(|point| point.0)),
        y_range: y_range(&lines),
        lines,
        markers: Vec::new(),
        ..chart.clone()
    };
    let caption = format!("Clean (filled) and nominal certified test accuracy at ε = {eps}.");
    let certified = format!("Nominal certified test accuracy at ε = {eps} after each epoch.");
    Ok(html! {
        h3 { "Accuracy against the time of a step" } (figure(&chart, &Legend::new(), (760, 400), &caption)?)
        h3 { "Certified accuracy over training time" } (figure(&over_time, &legend, (760, 400), &certified)?)
    })
}
