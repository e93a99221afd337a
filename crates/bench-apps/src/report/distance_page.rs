//! The report of one distance: a page, a chart and a JSON file.
//!
//! Guarantee: the estimate stands with its standard error, the number of images, and what bounds the critic; the chart shows
//! estimates on images kept for choosing, each divided by a rigorous bound.
//!
//! Errors: [`Error::Draw`](crate::Error::Draw).

use certify::Distribution;
use lipconv_datasets::{data_url, png_grid};
use maud::{Markup, html};
use serde::Serialize;

use super::chart::{Chart, Legend, Line, Mark, Role, over_steps};
use super::document::{document, facts, figure, header, headlines};
use super::table::Table;
use crate::error::Result;
use crate::files::Provenance;
use crate::wasserstein::search::RateResult;
use crate::wasserstein::{CriticConfig, Estimate};
use crate::words::{at_least, at_most};

/// Lines in one chart.
const N_LINES: usize = 6;
/// Images of each side on the page.
const N_SHOWN: usize = 32;

/// One of the two sets of images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    pub name: String,
    pub shape: [usize; 3],
    pub synthetic: bool,
    /// Some of them, a PNG as a `data:` address; absent where they have neither 1 nor 3 channels.
    #[serde(skip)]
    images: Option<String>,
}

impl Side {
    pub fn of(distribution: &dyn Distribution) -> Result<Self> {
        let images = png_grid(&distribution.draw(N_SHOWN, 1)?, 8).ok();
        Ok(Self {
            name: distribution.name(),
            shape: distribution.shape(),
            synthetic: distribution.is_synthetic(),
            images: images.map(|png| data_url(&png)),
        })
    }
}

/// `wasserstein.json`, and the content of the page.
#[derive(Debug, Clone, Serialize)]
pub struct DistanceReport {
    pub a: Side,
    pub b: Side,
    /// Whether the images are the distributions themselves.
    pub population: bool,
    pub estimate: Estimate,
    /// The exact distance, where it could be computed.
    pub exact: Option<f64>,
    /// How the critic was trained; absent for one from a file.
    pub critic: Option<CriticConfig>,
    pub best: Option<usize>,
    pub rates: Vec<RateResult>,
    pub provenance: Provenance,
}

/// The page as one HTML document that needs nothing else.
pub fn render(report: &DistanceReport) -> Result<String> {
    let title = format!("{} and {}", report.a.name, report.b.name);
    let (chart, legend) = curve(report);
    let caption = "Estimates on the images for choosing, each divided by a rigorous bound of the critic at that step.";
    let curve = figure(&chart, &legend, (760, 380), caption)?;
    let synthetic = report.a.synthetic || report.b.synthetic;
    let body = html! {
        (header("Wasserstein distance", &title, "", synthetic, &[]))
        (headlines(&numbers(report)))
        section { h2 { "The estimate over the steps" } (curve) }
        section { h2 { "Learning rates" } (rates(report).html()) }
        (images(report))
        section { h2 { "To run the same again" } (facts(&conditions(report))) }
    };
    Ok(document(&title, &body))
}

/// The chart as a file of its own.
pub fn curve_svg(report: &DistanceReport) -> Result<String> {
    let svg = curve(report).0.draw(760, 380)?;
    // outside the page, the placeholders of the chart need their colours here
    let style = "<style>svg{background:#fff}text{font-family:sans-serif}\
        [stroke=\"#020202\"]{stroke:#e2dfd8}[stroke=\"#030303\"]{stroke:#646a73}[fill=\"#030303\"]{fill:#646a73}\
        [stroke=\"#101010\"]{stroke:#2b65a8}[stroke=\"#111111\"]{stroke:#c25b1f}[stroke=\"#121212\"]{stroke:#3a8a5f}\
        [stroke=\"#131313\"]{stroke:#8a4a9e}[stroke=\"#141414\"]{stroke:#b0892b}[stroke=\"#151515\"]{stroke:#7a7f87}</style>";
    Ok(svg.replacen('>', &format!(">{style}"), 1))
}

/// A line for each learning rate, the chosen one first.
fn curve(report: &DistanceReport) -> (Chart, Legend) {
    let mut order: Vec<usize> = (0..report.rates.len()).collect();
    order.sort_by_key(|i| Some(*i) != report.best);
    let (mut lines, mut legend) = (Vec::new(), Legend::new());
    for (series, rate) in order.iter().take(N_LINES).map(|i| &report.rates[*i]).enumerate() {
        let points = rate.curve.iter().map(|p| (p.step as f64, p.estimate.unwrap_or(f64::NAN)));
        let role = Role::Series(series as u8);
        lines.push(Line::new(role, points.collect()));
        legend.push((format!("rate {}", rate.learning_rate), role, Mark::Solid));
    }
    let last = lines.iter().flat_map(|line| &line.points).map(|p| p.0).fold(1.0, f64::max);
    if let Some(exact) = report.exact {
        let points = vec![(0.0, exact), (last, exact)];
        lines.push(Line::new(Role::Ink, points).dashed(true));
        legend.push(("exact".into(), Role::Ink, Mark::Dashed));
    }
    (over_steps("estimate over the steps", lines), legend)
}

fn numbers(report: &DistanceReport) -> Vec<(&'static str, String, &'static str, String)> {
    let found = &report.estimate;
    let mut items =
        vec![("W1 is at least", at_least(found.value, 3), "mean over the evaluated images")];
    if found.standard_error > 0.0 {
        let (error, confident) =
            (format!("{:.3}", found.standard_error), at_least(found.confident, 3));
        items.push(("standard error", error, "of two independent samples"));
        items.push(("99 % confidence", confident, "lower end of a one-sided interval"));
    }
    if let Some(exact) = report.exact {
        items.push(("exact", format!("{exact:.3}"), "by the best matching"));
    }
    items.into_iter().map(|(name, value, meaning)| (name, value, "", meaning.to_owned())).collect()
}

/// The learning rates that were tried.
pub fn rates(report: &DistanceReport) -> Table {
    let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.4}"));
    let row = |(i, rate): (usize, &RateResult)| {
        let chosen = if Some(i) == report.best { "chosen" } else { "" };
        let stopped = rate.stopped.as_deref().unwrap_or_default();
        vec![
            rate.learning_rate.to_string(),
            number(rate.select.map(|e| e.value)),
            number(rate.report.map(|e| e.value)),
            number(rate.report.map(|e| e.lipschitz)),
            format!("{chosen} {stopped}").trim().to_owned(),
        ]
    };
    let head = ["rate", "on images for choosing", "reported", "Lipschitz bound", ""];
    Table::plain(&head, report.rates.iter().enumerate().map(row).collect())
}

fn images(report: &DistanceReport) -> Markup {
    html! {
        section { div.pair {
            @for side in [&report.a, &report.b] { div {
                h3 { (side.name) }
                @if let Some(images) = &side.images { img.sheet src=(images) alt={"images of " (side.name)}; }
            } }
        } }
    }
}

fn conditions(report: &DistanceReport) -> Vec<(&'static str, String)> {
    let provenance = &report.provenance;
    let [c, h, w] = report.a.shape;
    let [n_a, n_b] = report.estimate.n_samples;
    let whole = if report.population { "the whole sets" } else { "not trained on" };
    let mut facts = vec![
        ("images", format!("{c} x {h} x {w} with values in [-1, 1]; {n_a} and {n_b}, {whole}")),
        ("Lipschitz bound", format!("{}, rigorous", at_most(report.estimate.lipschitz, 9))),
    ];
    if let Some(critic) = &report.critic {
        let steps = critic.n_steps();
        let text = format!(
            "{}, {steps} steps of {} images of each side, seed {}",
            critic.method, critic.batch_size, critic.seed
        );
        facts.push(("critic", text));
    }
    facts.push(("device", provenance.device.clone()));
    facts.push(("version", provenance.version.clone()));
    facts.push(("commit", provenance.commit.clone().unwrap_or_else(|| "unknown".into())));
    facts.push(("command", provenance.command.clone()));
    facts
}
