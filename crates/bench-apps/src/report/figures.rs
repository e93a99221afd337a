//! The figures of the report, from its data.

use super::chart::{Chart, Line, Marker, Role};
use super::{CertifiedCurve, Report};
use crate::eps::{ByEps, Eps};
use crate::files::EpochMetrics;

/// Names and roles of the lines of a chart, for the legend above it.
pub(super) type Legend = Vec<(String, Role, Mark)>;

/// How a legend shows a line or a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Solid,
    Dashed,
    Dot,
    Ring,
}

fn line(role: Role, xs: &[f64], ys: &[f64], dashed: bool) -> Line {
    Line { role, points: xs.iter().copied().zip(ys.iter().copied()).collect(), dashed }
}

/// Certified accuracy over the radius, with the attacks and the paper at theirs.
pub(super) fn certified(report: &Report) -> (Chart, Legend) {
    let CertifiedCurve { eps, nominal, real, executed } = &report.curve;
    let lines = vec![
        line(Role::Series(0), eps, nominal, false),
        line(Role::Series(2), eps, real, true),
        line(Role::Series(1), eps, executed, false),
    ];
    let mut legend = vec![
        ("nominal".into(), Role::Series(0), Mark::Solid),
        ("exact arithmetic".into(), Role::Series(2), Mark::Dashed),
        ("as executed, f32".into(), Role::Series(1), Mark::Solid),
    ];
    let mut markers = Vec::new();
    let headline = report.headline_eps.parse::<Eps>().ok().map(|e| e.value());
    for (name, by_eps) in &report.row.attacks {
        markers.extend(attack_markers(name, by_eps));
    }
    if !markers.is_empty() {
        legend.push(("accuracy under attack".into(), Role::Series(3), Mark::Dot));
    }
    spread_labels(&mut markers);
    let paper = report.reference.and_then(|reference| reference.certified);
    if let (Some(certified), Some(x)) = (paper, headline) {
        markers.push(Marker {
            role: Role::Ink,
            at: (x, certified.mean),
            filled: false,
            label: String::new(),
            label_dy: 0,
        });
        legend.push(("the paper's certified".into(), Role::Ink, Mark::Ring));
    }
    let chart = Chart {
        name: "certified accuracy over the radius",
        x_label: "radius ε (L2)",
        y_label: "test images, %",
        x_range: 0.0..eps.last().copied().unwrap_or(1.0),
        y_range: 0.0..100.0,
        lines,
        markers,
        rule: headline.map(|x| (x, format!("ε = {}", report.headline_eps))),
    };
    (chart, legend)
}

fn attack_markers(name: &str, by_eps: &ByEps) -> Vec<Marker> {
    let label = attack_name(name);
    let marker = |(eps, value): (&Eps, f64)| Marker {
        role: Role::Series(3),
        at: (eps.value(), value),
        filled: true,
        label: format!("{label} {value:.1}"),
        label_dy: 0,
    };
    by_eps.iter().map(marker).collect()
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

/// An attack's name as people write it.
#[must_use]
pub fn attack_name(name: &str) -> &str {
    match name {
        "pgd" => "PGD",
        "fgsm" => "FGSM",
        "strong_pgd" => "strong PGD",
        other => other,
    }
}

/// Training loss over the epochs.
pub(super) fn loss(history: &[EpochMetrics]) -> Chart {
    let points: Vec<(f64, f64)> = history.iter().map(|row| (row.epoch as f64, row.loss)).collect();
    let top = points.iter().map(|p| p.1).filter(|y| y.is_finite()).fold(0.0, f64::max);
    Chart {
        name: "training loss over the epochs",
        x_label: "epoch",
        y_label: "hinge loss",
        x_range: epochs(history),
        y_range: 0.0..if top > 0.0 { 1.08 * top } else { 1.0 },
        lines: vec![Line { role: Role::Series(0), points, dashed: false }],
        markers: Vec::new(),
        rule: None,
    }
}

/// Accuracies over the epochs.
pub(super) fn accuracy(history: &[EpochMetrics], eps: &str) -> (Chart, Legend) {
    let xs: Vec<f64> = history.iter().map(|row| row.epoch as f64).collect();
    let column = |f: &dyn Fn(&EpochMetrics) -> Option<f64>| -> Vec<f64> {
        history.iter().map(|row| f(row).unwrap_or(f64::NAN)).collect()
    };
    let candidates = [
        ("training, clean", Role::Series(2), true, column(&|row| Some(row.train_clean))),
        ("test, clean", Role::Series(0), false, column(&|row| row.test_clean)),
        (
            "test, certified (nominal)",
            Role::Series(1),
            false,
            column(&|row| row.test_certified.as_ref()?.get(eps)),
        ),
    ];
    let mut chart = Chart {
        name: "accuracy over the epochs",
        x_label: "epoch",
        y_label: "images, %",
        x_range: epochs(history),
        y_range: 0.0..100.0,
        lines: Vec::new(),
        markers: Vec::new(),
        rule: None,
    };
    let mut legend = Legend::new();
    for (name, role, dashed, ys) in candidates {
        if ys.iter().any(|y| y.is_finite()) {
            chart.lines.push(line(role, &xs, &ys, dashed));
            legend.push((name.to_owned(), role, if dashed { Mark::Dashed } else { Mark::Solid }));
        }
    }
    (chart, legend)
}

fn epochs(history: &[EpochMetrics]) -> std::ops::Range<f64> {
    let first = history.first().map_or(0, |row| row.epoch) as f64;
    let last = history.last().map_or(1, |row| row.epoch) as f64;
    if first < last { first..last } else { first - 0.5..first + 0.5 }
}
