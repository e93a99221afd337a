//! Charts, images and layer bounds of classifiers.

use maud::{Markup, html};

use super::chart::{Chart, Legend, Line, Mark, Marker, Role, y_range};
use super::document::figure;
use super::table::Table;
use crate::config::{DatasetName, Net};
use crate::error::Result;
use crate::files::EpochMetrics;
use crate::jobs::cell::CellResult;
use crate::jobs::collect::{Section, dataset_title};
use crate::jobs::evidence::{AdversarialSample, Histogram, Spectra};
use crate::words::{at_least, at_most, at_most_scientific, attack_name, counted};

/// Colours, and therefore methods, in one chart.
const N_SERIES: usize = 6;

/// Networks of one kind on the same images with the same budget, each method once: they share a chart.
pub(super) struct Group<'a> {
    pub(super) results: Vec<&'a CellResult>,
}

impl<'a> Group<'a> {
    pub(super) fn all(results: &[&'a CellResult]) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for &result in results.iter().filter(|result| !result.history.is_empty()) {
            match groups.iter_mut().find(|group| group.takes(result)) {
                Some(group) => group.add(result),
                None => groups.push(Self { results: vec![result] }),
            }
        }
        groups
    }

    fn takes(&self, result: &CellResult) -> bool {
        let key = |r: &CellResult| {
            let cell = &r.plan.cell;
            (cell.dataset.clone(), r.row.synthetic, cell.network, cell.budget.clone(), r.row.epochs)
        };
        key(self.results[0]) == key(result)
    }

    fn add(&mut self, result: &'a CellResult) {
        let key = |r: &CellResult| (r.row.layer, r.plan.cell.recipe.clone());
        let present = self.results.iter().any(|r| key(r) == key(result));
        if !present && self.results.len() < N_SERIES {
            self.results.push(result);
        }
    }

    pub(super) fn title(&self) -> String {
        group_title(self.results[0])
    }

    fn legend(&self) -> Legend {
        let entry = |(i, result): (usize, &&CellResult)| {
            (result.plan.cell.title(), Role::Series(i as u8), Mark::Solid)
        };
        self.results.iter().enumerate().map(entry).collect()
    }
}

/// "Small on MNIST, quick: 2 epochs".
fn group_title(result: &CellResult) -> String {
    let cell = &result.plan.cell;
    let budget = if cell.budget.is_empty() { String::new() } else { format!("{}: ", cell.budget) };
    let dataset = dataset_title(&cell.dataset, result.row.synthetic);
    let epochs = counted(result.row.epochs, "epoch");
    format!("{} on {dataset}, {budget}{epochs}", cell.network.title())
}

/// Certified accuracy over the radius: a chart for each kind of network and data set.
pub(super) fn certified(results: &[&CellResult]) -> Result<Markup> {
    let caption =
        "Share of the test images that are classified correctly with a certified radius above ε. ";
    let several = "The certificates are nominal. One seed of each method and recipe.";
    let one = "Nominal certificates take exact arithmetic for granted and, where the last layer's norm is 1, a Lipschitz constant of 1, \
               as in the paper. Certificates in exact arithmetic hold for the stored weights. Certificates as executed hold for this \
               program's computation in f32.";
    let groups = Group::all(results);
    let alone = groups.iter().all(|group| group.results.len() == 1);
    let draw = |group: &Group<'_>| match group.results.as_slice() {
        [result] => Some(one_certified(result)),
        _ => Some(all_certified(group)),
    };
    let text = format!("{caption}{}", if alone { one } else { several });
    charts("Certified accuracy over the radius", &text, &groups, &draw)
}

/// Accuracy over the epochs: a chart for each kind of network and data set.
pub(super) fn training(results: &[&CellResult]) -> Result<Markup> {
    let caption = "Test accuracy after each epoch: clean (solid) and certified at the radius of the tables (dashed). One seed of each method and recipe.";
    charts("Training", caption, &Group::all(results), &accuracy_over_epochs)
}

fn charts(
    title: &str,
    caption: &str,
    groups: &[Group<'_>],
    draw: &dyn Fn(&Group<'_>) -> Option<(Chart, Legend)>,
) -> Result<Markup> {
    let mut charts = Vec::new();
    for group in groups {
        if let Some((chart, legend)) = draw(group) {
            charts.push((group.title(), figure(&chart, &legend, (460, 330), "")?));
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

fn points(xs: &[f64], ys: &[f64]) -> Vec<(f64, f64)> {
    xs.iter().copied().zip(ys.iter().copied()).collect()
}

fn over_the_radius(results: &[&CellResult], lines: Vec<Line>) -> Chart {
    let end = results.iter().filter_map(|r| r.curve.eps.last().copied()).fold(0.0, f64::max);
    let eps = results[0].plan.config.evaluation.attack_eps.first();
    Chart {
        name: "certified accuracy over the radius",
        x_label: "radius ε (L2)",
        y_label: "test images, %",
        x_range: 0.0..if end > 0.0 { end } else { 1.0 },
        y_range: 0.0..100.0,
        lines,
        rule: eps.map(|eps| (eps.value(), format!("ε = {eps}"))),
        ..Chart::default()
    }
}

/// A line for each method.
fn all_certified(group: &Group<'_>) -> (Chart, Legend) {
    let lines = group.results.iter().enumerate().map(|(i, result)| {
        Line::new(Role::Series(i as u8), points(&result.curve.eps, &result.curve.nominal))
    });
    (over_the_radius(&group.results, lines.collect()), group.legend())
}

/// A line for each kind of certificate, with the attacks and the paper's figure.
fn one_certified(result: &CellResult) -> (Chart, Legend) {
    let curve = &result.curve;
    let lines = vec![
        Line::new(Role::Series(0), points(&curve.eps, &curve.nominal)),
        Line::new(Role::Series(2), points(&curve.eps, &curve.real)).dashed(true),
        Line::new(Role::Series(1), points(&curve.eps, &curve.executed)),
    ];
    let mut chart = over_the_radius(&[result], lines);
    let mut legend: Legend = vec![
        ("nominal".into(), Role::Series(0), Mark::Solid),
        ("exact arithmetic".into(), Role::Series(2), Mark::Dashed),
        ("as executed, f32".into(), Role::Series(1), Mark::Solid),
    ];
    for (name, by_eps) in &result.row.attacks {
        chart.markers.extend(by_eps.iter().map(|(eps, value)| Marker {
            role: Role::Series(3),
            at: (eps.value(), value),
            filled: true,
            label: format!("{} {value:.1}", attack_name(name)),
            label_dy: 0,
        }));
    }
    if !chart.markers.is_empty() {
        legend.push(("accuracy under attack".into(), Role::Series(3), Mark::Dot));
    }
    spread_labels(&mut chart.markers);
    let paper = result.row.paper.and_then(|paper| paper.certified);
    if let (Some(certified), Some((x, _))) = (paper, &chart.rule) {
        let (role, at, label) = (Role::Ink, (*x, certified), String::new());
        chart.markers.push(Marker { role, at, filled: false, label, label_dy: 0 });
        legend.push(("the paper's certified".into(), Role::Ink, Mark::Ring));
    }
    (chart, legend)
}

/// Labels of points that lie close together would overlap: those of a group are stacked about its middle.
fn spread_labels(markers: &mut [Marker]) {
    markers.sort_by(|a, b| a.at.0.total_cmp(&b.at.0).then(b.at.1.total_cmp(&a.at.1)));
    let close = |a: &Marker, b: &Marker| a.at.0 == b.at.0 && a.at.1 - b.at.1 < 8.0;
    for group in markers.chunk_by_mut(close) {
        let middle = group.len() as i32 - 1;
        for (i, marker) in group.iter_mut().enumerate() {
            marker.label_dy = 9 * (2 * i as i32 - middle);
        }
    }
}

/// Clean (solid) and certified (dashed) test accuracy; `None` where no run has two epochs.
fn accuracy_over_epochs(group: &Group<'_>) -> Option<(Chart, Legend)> {
    let mut lines = Vec::new();
    let mut last = 0;
    for (i, result) in group.results.iter().enumerate() {
        let values = |value: &dyn Fn(&EpochMetrics) -> Option<f64>| {
            let history = result.history.iter();
            history.filter_map(|row| Some((row.epoch as f64, value(row)?))).collect::<Vec<_>>()
        };
        let role = Role::Series(i as u8);
        lines.push(Line::new(role, values(&|row| row.test_clean)));
        let certified = values(&|row| row.test_certified.as_ref()?.get(result.eps()));
        lines.push(Line::new(role, certified).dashed(true));
        last = last.max(result.history.last().map_or(0, |row| row.epoch));
    }
    let chart = Chart {
        name: "test accuracy over the epochs",
        x_label: "epoch",
        y_label: "test images, %",
        x_range: 1.0..last as f64,
        y_range: 0.0..100.0,
        lines,
        ..Chart::default()
    };
    (last > 1).then(|| (chart, group.legend()))
}

/// Training loss of one run, with the end of its heading.
pub(super) fn loss(result: &CellResult, of: &str) -> Result<Markup> {
    let history = &result.history;
    if history.len() < 2 {
        return Ok(html! {});
    }
    let line = history.iter().map(|row| (row.epoch as f64, row.loss)).collect();
    let lines = vec![Line::new(Role::Series(0), line)];
    let chart = Chart {
        name: "training loss over the epochs",
        x_label: "epoch",
        y_label: "loss",
        x_range: history[0].epoch as f64..history[history.len() - 1].epoch as f64,
        y_range: y_range(&lines),
        lines,
        ..Chart::default()
    };
    let legend = vec![("training loss".into(), Role::Series(0), Mark::Solid)];
    let caption = "Mean over each epoch, measured while the weights change.";
    Ok(
        html! { section { h2 { "Training loss" (of) } (figure(&chart, &legend, (760, 300), caption)?) } },
    )
}

/// Singular values before and after training: a chart for each method.
pub(super) fn spectra(section: &Section) -> Result<Markup> {
    let mut charts = Vec::new();
    for group in &section.groups {
        let Some(spectra) = section.spectra(group) else { continue };
        let (chart, legend) = histogram(spectra);
        let caption = format!(
            "{} {} on {}: {} at {} x {}.",
            group.cell.network.title(),
            group.cell.method.title(),
            group.dataset(),
            spectra.layer,
            spectra.size.0,
            spectra.size.1
        );
        let title = group.cell.method.title();
        charts.push((title, figure(&chart, &legend, (460, 300), &caption)?));
    }
    Ok(html! {
        div.pair { @for (method, chart) in &charts { div { h3 { (method) } (chart) } } }
    })
}

/// The extreme and mean singular values as a table.
pub(super) fn spectra_table(section: &Section) -> Table {
    let mut rows = Vec::new();
    for group in &section.groups {
        let Some(spectra) = section.spectra(group) else { continue };
        for (when, values) in [("before training", &spectra.initial), ("after", &spectra.trained)] {
            let budget = super::accuracy::conditions_text(group, &[]);
            let mut cells = vec![
                format!(
                    "{} {}, {}",
                    group.cell.method.title(),
                    group.cell.network.title(),
                    group.dataset()
                ),
                when.to_owned(),
            ];
            cells.extend([values.min, values.mean, values.max].map(|v| format!("{v:.4}")));
            cells.push(budget);
            rows.push(cells);
        }
    }
    Table::plain(&["Singular values", "", "smallest", "mean", "largest", "conditions"], rows)
}

fn histogram(spectra: &Spectra) -> (Chart, Legend) {
    let lines = vec![
        Line::new(Role::Series(0), outline(&spectra.initial)).dashed(true),
        Line::new(Role::Series(1), outline(&spectra.trained)),
    ];
    let chart = Chart {
        name: "singular values before and after training",
        x_label: "singular value",
        y_label: "share, %",
        x_range: 0.0..spectra.trained.end,
        y_range: y_range(&lines),
        lines,
        ..Chart::default()
    };
    let legend = vec![
        ("at initialisation".into(), Role::Series(0), Mark::Dashed),
        ("after training".into(), Role::Series(1), Mark::Solid),
    ];
    (chart, legend)
}

/// The upper edge of a histogram's bars, in percent of all values.
fn outline(histogram: &Histogram) -> Vec<(f64, f64)> {
    let total = histogram.counts.iter().sum::<u64>().max(1) as f64;
    let width = histogram.end / histogram.counts.len().max(1) as f64;
    let mut points = vec![(0.0, 0.0)];
    for (i, &count) in histogram.counts.iter().enumerate() {
        let share = 100.0 * count as f64 / total;
        points.push((i as f64 * width, share));
        points.push(((i + 1) as f64 * width, share));
    }
    points.push((histogram.end, 0.0));
    points
}

/// For each data set, the images of the network with the best certified accuracy.
pub(super) fn images(results: &[&CellResult]) -> Markup {
    let certified = |result: &CellResult| result.row.certified.executed.get(result.eps());
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
                h2 { "Images, certified radii and adversarial examples: " (result.plan.cell.title()) " " (group_title(result)) }
                p.fine {
                    "The first test images, in order. Left: the image, its class and its certified radius r as executed. \
                    Right: the nearest adversarial example that PGD and bisection found, the class that the network gives it, and \
                    its distance d, which always exceeds r. A misclassified image has no radius."
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
                    (sample.label) ", r " (at_least(sample.radius, 2))
                    @if let Some(adversarial) = &sample.adversarial {
                        br; "→ " (adversarial.predicted) ", d " (at_most(adversarial.distance, 2))
                    }
                }
            } @else { p.radius { (sample.label) " → " (sample.predicted) } }
        }
    }
}

/// The layers' bounds, with the end of their heading; empty for a result that has none.
pub(super) fn layers(result: &CellResult, of: &str) -> Markup {
    let excess = |bound: f64| at_most_scientific(bound - 1.0, 1).replace('-', "−");
    let mut rows: Vec<Vec<String>> = result
        .layers
        .iter()
        .map(|layer| vec![layer.name.clone(), layer.weight.clone(), excess(layer.bound)])
        .collect();
    rows.extend(result.lipschitz.map(|all| vec!["product".into(), String::new(), excess(all)]));
    let mut table = Table::plain(&["Layer", "weight", "‖W‖₂ at most 1 + …"], rows);
    table.note = "Rigorous upper bounds for the stored f32 weights, computed in f64 with accounted rounding.".into();
    html! { @if !result.layers.is_empty() { section { h2 { "Layer bounds" (of) } (table.html()) } } }
}

/// "BCOP-Small on MNIST".
pub(super) fn title(result: &CellResult) -> String {
    let cell = &result.plan.cell;
    let dataset = match cell.dataset {
        DatasetName::Mnist | DatasetName::Cifar10 | DatasetName::Stl10 if !result.row.synthetic => {
            cell.dataset.title()
        }
        _ => result.row.dataset.clone(),
    };
    match cell.network {
        Net::KwSmall => format!("KW-Small on {dataset}"),
        net => format!("{}-{} on {dataset}", cell.method.title(), net.title()),
    }
}
