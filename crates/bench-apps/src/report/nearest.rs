//! Certified radii against the nearest adversarial examples.
//!
//! Definition. Each correctly classified image gives a point: its certified radius as executed, and the distance of
//! the nearest image of another class that any attack found. The distance to the decision boundary lies between the two.
//!
//! Guarantee: a point under the diagonal refutes a certificate, and the page says so in front of the figure.

use maud::{Markup, html};

use super::chart::{Chart, Legend, Line, Mark, Role};
use super::document::figure;
use super::evidence::Group;
use crate::error::Result;
use crate::jobs::cell::CellResult;
use crate::results::Nearest;
use crate::words::counted;

/// A chart for each kind of network and data set; nothing where no attack looked for the nearest examples.
pub(super) fn nearest(results: &[&CellResult]) -> Result<Markup> {
    let with: Vec<&CellResult> =
        results.iter().copied().filter(|r| r.nearest.points().next().is_some()).collect();
    let n_refuted: usize = results.iter().map(|r| r.nearest.n_refuted()).sum();
    let mut charts = Vec::new();
    for group in Group::all(&with) {
        let (chart, legend) = scatter(&group);
        let caption = group.results.iter().map(|result| summary(result)).collect::<String>();
        charts.push((group.title(), figure(&chart, &legend, (460, 400), &caption)?));
    }
    Ok(html! {
        @if !charts.is_empty() || n_refuted > 0 {
            section {
                h2 { "Certified radius against nearest adversarial example" }
                @if n_refuted > 0 {
                    p.banner {
                        strong { "A certificate is refuted. " }
                        (counted(n_refuted, "image")) (if n_refuted == 1 { " lies" } else { " lie" })
                        " under the diagonal: an adversarial example is nearer than the certified radius."
                    }
                }
                div.pair { @for (name, chart) in &charts { div { h3 { (name) } (chart) } } }
                p.fine {
                    "Each point is a correctly classified test image. Its radius is certified as executed; its distance is \
                    that of the nearest image of another class that any attack found: FGSM, PGD, the parts of AutoAttack, and FAB, which goes \
                    on to the end and attacks certified images too. The true distance of the next class lies between the two, so that no point \
                    may lie under the diagonal."
                }
            }
        }
    })
}

fn scatter(group: &Group<'_>) -> (Chart, Legend) {
    let mut legend: Legend = Vec::new();
    let mut dots = Vec::new();
    for (i, result) in group.results.iter().enumerate() {
        let role = Role::Series(i as u8);
        legend.push((result.plan.cell.title(), role, Mark::Dot));
        dots.push((role, result.nearest.points().collect::<Vec<_>>()));
    }
    let all = || dots.iter().flat_map(|(_, points)| points);
    let largest = |values: &mut dyn Iterator<Item = f64>| 1.05 * values.fold(0.0, f64::max);
    let x = largest(&mut all().map(|p| p.0));
    let y = largest(&mut all().map(|p| p.1));
    // a network without a certificate still has its distances
    let (x, y) = (if x > 0.0 { x } else { 1.0 }, if y > 0.0 { y } else { 1.0 });
    legend.push(("distance = radius".into(), Role::Ink, Mark::Dashed));
    let end = x.min(y);
    let lines = vec![Line::new(Role::Ink, vec![(0.0, 0.0), (end, end)]).dashed(true)];
    let chart = Chart {
        name: "certified radius against nearest adversarial example",
        x_label: "certified radius (L2)",
        y_label: "distance of the nearest example (L2)",
        x_range: 0.0..x,
        y_range: 0.0..y,
        lines,
        dots,
        ..Chart::default()
    };
    (chart, legend)
}

/// "BCOP: 97 of 100 images have a point, the median of distance / radius is 1.9. "
fn summary(result: &CellResult) -> String {
    let nearest: &Nearest = &result.nearest;
    let n_points = nearest.points().count();
    let (n, n_none) =
        (nearest.distances.len(), nearest.distances.iter().filter(|d| d.is_none()).count());
    let mut text =
        format!("{}: {n_points} of the first {}", result.plan.cell.title(), counted(n, "image"));
    if n_none > 0 {
        text += &format!("; no adversarial example was found for {n_none} more");
    }
    let mut ratios: Vec<f64> = nearest.points().filter(|p| p.0 > 0.0).map(|(r, d)| d / r).collect();
    ratios.sort_by(f64::total_cmp);
    if let Some(median) = ratios.get(ratios.len() / 2) {
        text += &format!("; the median of distance / radius is {median:.2}");
    }
    text + ". "
}
