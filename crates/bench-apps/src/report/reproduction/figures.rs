//! The figures of a reproduction.

use crate::files::EpochMetrics;
use crate::report::chart::{Chart, Line, Role};
use crate::report::figures::{Legend, Mark};
use crate::reproduction::cell::CellResult;
use crate::reproduction::evidence::{Histogram, Spectra};

use super::cells::method_name;

/// Colours, and therefore lines, in one chart.
const N_SERIES: usize = 6;

/// Networks of one kind on the same images with the same budget: what shares a chart.
pub(super) struct Group<'a> {
    pub(super) results: Vec<&'a CellResult>,
}

impl<'a> Group<'a> {
    /// Groups of the results, each method once, with its first seed.
    pub(super) fn all(results: impl Iterator<Item = &'a CellResult>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for result in results {
            match groups.iter_mut().find(|group| group.takes(result)) {
                Some(group) => group.add(result),
                None => groups.push(Self { results: vec![result] }),
            }
        }
        groups
    }

    pub(super) fn first(&self) -> &'a CellResult {
        self.results[0]
    }

    fn takes(&self, result: &CellResult) -> bool {
        let (a, b) = (self.first(), result);
        let key = |r: &CellResult| {
            (r.row.dataset.clone(), r.row.network.clone(), r.plan.cell.budget.clone(), r.row.epochs)
        };
        key(a) == key(b)
    }

    fn add(&mut self, result: &'a CellResult) {
        let present = self.results.iter().any(|r| r.row.layer == result.row.layer);
        if !present && self.results.len() < N_SERIES {
            self.results.push(result);
        }
    }

    fn legend(&self) -> Legend {
        let entry = |(i, result): (usize, &&CellResult)| {
            (method_name(&result.row.layer), Role::Series(i as u8), Mark::Solid)
        };
        self.results.iter().enumerate().map(entry).collect()
    }
}

fn line(i: usize, points: Vec<(f64, f64)>, dashed: bool) -> Line {
    Line { role: Role::Series(i as u8), points, dashed }
}

/// Certified accuracy over the radius, a line for each method.
pub(super) fn certified(group: &Group<'_>) -> (Chart, Legend) {
    let results = &group.results;
    let lines = results.iter().enumerate().map(|(i, result)| {
        let curve = &result.curve;
        line(i, curve.eps.iter().copied().zip(curve.nominal.iter().copied()).collect(), false)
    });
    let end = results.iter().filter_map(|r| r.curve.eps.last().copied()).fold(0.0, f64::max);
    let eps = group.first().plan.config.evaluation.attack_eps.first();
    let chart = Chart {
        name: "certified accuracy over the radius, by method",
        x_label: "radius ε (L2)",
        y_label: "test images, %",
        x_range: 0.0..if end > 0.0 { end } else { 1.0 },
        y_range: 0.0..100.0,
        lines: lines.collect(),
        markers: Vec::new(),
        rule: eps.map(|eps| (eps.value(), format!("ε = {eps}"))),
    };
    (chart, group.legend())
}

/// Clean (solid) and certified (dashed) test accuracy over the epochs; `None` where no run has two epochs.
pub(super) fn training(group: &Group<'_>) -> Option<(Chart, Legend)> {
    let mut lines = Vec::new();
    let mut last = 0;
    for (i, result) in group.results.iter().enumerate() {
        let eps = result.plan.config.evaluation.attack_eps.first().map_or("", crate::Eps::text);
        let points = |value: &dyn Fn(&EpochMetrics) -> Option<f64>| {
            let history = result.history.iter();
            history.filter_map(|row| Some((row.epoch as f64, value(row)?))).collect::<Vec<_>>()
        };
        lines.push(line(i, points(&|row| row.test_clean), false));
        lines.push(line(i, points(&|row| row.test_certified.as_ref()?.get(eps)), true));
        last = last.max(result.history.last().map_or(0, |row| row.epoch));
    }
    if last < 2 {
        return None;
    }
    let chart = Chart {
        name: "test accuracy over the epochs, by method",
        x_label: "epoch",
        y_label: "test images, %",
        x_range: 1.0..last as f64,
        y_range: 0.0..100.0,
        lines,
        markers: Vec::new(),
        rule: None,
    };
    Some((chart, group.legend()))
}

/// Singular values before and after training, as outlines of histograms.
pub(super) fn spectra(spectra: &Spectra) -> (Chart, Legend) {
    let (before, after) = (outline(&spectra.initial), outline(&spectra.trained));
    let top = before.iter().chain(&after).map(|point| point.1).fold(0.0, f64::max);
    let chart = Chart {
        name: "singular values before and after training",
        x_label: "singular value",
        y_label: "share, %",
        x_range: 0.0..spectra.trained.end,
        y_range: 0.0..if top > 0.0 { 1.08 * top } else { 1.0 },
        lines: vec![line(0, before, true), line(1, after, false)],
        markers: Vec::new(),
        rule: None,
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
