//! The page itself.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{Chart, Role};
use super::comparison::{Compared, compared};
use super::figures::{self, Legend, Mark};
use super::{Report, Sample, picture};
use crate::error::Result;
use crate::progress::spoken;
use crate::text_table::{counted, percent};

/// The style sheet of every page.
pub(super) const STYLE: &str = include_str!("style.css");

/// The report as one HTML document.
///
/// # Errors
/// [`crate::Error::Draw`].
pub fn render(report: &Report) -> Result<String> {
    let row = &report.row;
    let title = format!("{} on {}", network_name(report), dataset_name(&row.dataset));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · lipconv" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (header(report, &title))
                    (headlines(report))
                    (comparison(report))
                    (certified(report)?)
                    (training(report)?)
                    (images(report)?)
                    (layers(report))
                    (facts(report))
                }
            }
        }
    };
    Ok(page.into_string())
}

fn network_name(report: &Report) -> String {
    let row = &report.row;
    let name = sentence(&row.network);
    format!("{}-{name}", if row.layer == "bcop" { "BCOP".into() } else { row.layer.clone() })
}

/// A data set's name as people write it.
fn dataset_name(name: &str) -> &str {
    match name {
        "mnist" => "MNIST",
        "cifar10" => "CIFAR-10",
        other => other,
    }
}

fn header(report: &Report, title: &str) -> Markup {
    let row = &report.row;
    html! {
        header {
            p.kicker { "lipconv · " (row.experiment) }
            h1 { (title) }
            p.lead {
                "A provably 1-Lipschitz network after " (counted(row.epochs, "epoch")) ", seed " (row.seed) ", on the "
                (row.device) ": " (spoken(std::time::Duration::from_secs_f64(row.seconds.max(0.0))))
                " of training and evaluation."
            }
            @if row.synthetic {
                p.banner {
                    strong { "Synthetic data. " }
                    "Every image was drawn by the program, because the real data was not at hand. "
                    "No number on this page says anything about MNIST, and none can be compared with the paper's."
                }
            }
            @for note in &report.notes { p.note { (note) } }
        }
    }
}

fn headlines(report: &Report) -> Markup {
    let (row, eps) = (&report.row, report.headline_eps.as_str());
    let attack = |name: &str| row.attacks.get(name).and_then(|by_eps| by_eps.get(eps));
    let items = [
        ("clean", Some(row.clean), "correct on the test set".to_owned()),
        ("certified", row.certified.executed.get(eps), format!("as executed in f32, at ε = {eps}")),
        ("PGD", attack("pgd"), format!("not broken at ε = {eps}")),
        ("FGSM", attack("fgsm"), format!("not broken at ε = {eps}")),
    ];
    html! {
        section.headlines aria-label="Headline figures" {
            @for (name, value, meaning) in items {
                @if value.is_some() {
                    div.headline {
                        p.name { (name) @if row.synthetic { span.tag { "synthetic" } } }
                        p.value { (percent(value)) span.unit { " %" } }
                        p.meaning { (meaning) }
                    }
                }
            }
        }
    }
}

fn comparison(report: &Report) -> Markup {
    let row = &report.row;
    let has_paper = report.reference.is_some();
    html! {
        section {
            h2 { @if has_paper { "Beside the paper" } @else { "Results" } (synthetic_tag(report)) }
            div.scroll { table {
                thead { tr {
                    th { "Test accuracy, %" }
                    th.number { "ours" br; small { (counted(row.epochs, "epoch")) ", seed " (row.seed) } }
                    @if has_paper {
                        th.number { "paper" br; small { "200 epochs, 5 seeds" } }
                        th.number { "difference" }
                    }
                } }
                tbody { @for compared in compared(report) { (compared_row(&compared, has_paper)) } }
            } }
            p.fine {
                "A row without a figure was not computed. "
                @if has_paper {
                    "The paper reports nominal certificates: a Lipschitz constant of exactly 1 taken on faith, rounding \
                     ignored. Its PGD and FGSM figures are from the authors' released runs."
                } @else {
                    "The paper has no figures for this data."
                }
            }
        }
    }
}

fn compared_row(compared: &Compared, has_paper: bool) -> Markup {
    html! {
        tr {
            th scope="row" { (sentence(&compared.what)) }
            td.number { (percent(compared.ours)) }
            @if has_paper {
                td.number {
                    (percent(compared.paper))
                    @if let Some(sd) = compared.sd { span.sd { " ± " (format!("{sd:.2}")) } }
                }
                td.number { @if let Some(d) = compared.difference() { (format!("{d:+.2}").replace('-', "−")) } }
            }
        }
    }
}

/// With a capital at the start.
fn sentence(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    text
}

fn synthetic_tag(report: &Report) -> Markup {
    html! { @if report.row.synthetic { span.tag { "synthetic data" } } }
}

/// A figure: legend, the chart once for wide and once for narrow pages, caption.
pub(super) fn figure(
    chart: &Chart,
    legend: &Legend,
    wide: (u32, u32),
    caption: &str,
) -> Result<Markup> {
    let (large, small) = (chart.draw(wide.0, wide.1)?, chart.draw(400, 330)?);
    Ok(html! {
        figure.chart {
            @if !legend.is_empty() { ul.legend {
                @for (name, role, mark) in legend {
                    li { span class=(swatch(*role, *mark)) {} (name) }
                }
            } }
            div.wide { (PreEscaped(large)) }
            div.narrow { (PreEscaped(small)) }
            @if !caption.is_empty() { figcaption { (caption) } }
        }
    })
}

fn swatch(role: Role, mark: Mark) -> String {
    let colour = match role {
        Role::Series(i) => format!("s{i}"),
        _ => "ink".into(),
    };
    let mark = match mark {
        Mark::Solid => "solid",
        Mark::Dashed => "dashed",
        Mark::Dot => "dot",
        Mark::Ring => "ring",
    };
    format!("swatch {colour} {mark}")
}

fn certified(report: &Report) -> Result<Markup> {
    if report.curve.eps.len() < 2 {
        return Ok(html! {});
    }
    let (chart, legend) = figures::certified(report);
    let caption = "Share of all test images that are classified correctly with a certified radius beyond ε. \
                   Nominal: Lipschitz constant 1 and exact arithmetic, as in the literature. Exact arithmetic: rigorous for \
                   the weights as stored. As executed: rigorous for the f32 computation, every rounding error included.";
    Ok(html! {
        section {
            h2 { "Certified accuracy over the radius" (synthetic_tag(report)) }
            (figure(&chart, &legend, (860, 400), caption)?)
        }
    })
}

fn training(report: &Report) -> Result<Markup> {
    if report.history.is_empty() {
        return Ok(html! {});
    }
    let (accuracy, legend) = figures::accuracy(&report.history, &report.headline_eps);
    Ok(html! {
        section {
            h2 { "Training" (synthetic_tag(report)) }
            div.pair {
                (figure(&accuracy, &legend, (460, 330), "")?)
                (figure(&figures::loss(&report.history), &vec![("training loss".into(), Role::Series(0), Mark::Solid)], (460, 330), "")?)
            }
            p.fine { "Training figures are means over an epoch, taken while the weights moved." }
        }
    })
}

fn images(report: &Report) -> Result<Markup> {
    if report.samples.is_empty() {
        return Ok(html! {});
    }
    let eps = report.headline_eps.parse::<crate::Eps>().map_or(1.0, |e| e.value());
    let widest = report.samples.iter().map(|s| s.radius).fold(1.25 * eps, f64::max);
    let cards = report.samples.iter().map(|s| card(s, eps, widest)).collect::<Result<Vec<_>>>()?;
    Ok(html! {
        section {
            h2 { "Images and their certified radii" (synthetic_tag(report)) }
            p.fine {
                (report.samples_are) ", in order. No change of an image by less than its radius (in L2, pixels from 0 to 1) \
                changes the answer of the network as executed in f32. The bar shows the radius, the tick ε = "
                (report.headline_eps) "; a wrong answer has no radius."
            }
            ol.grid { @for card in cards { (card) } }
        }
    })
}

fn card(sample: &Sample, eps: f64, widest: f64) -> Result<Markup> {
    let correct = sample.label == sample.predicted;
    let share = |value: f64| format!("{:.1}%", (100.0 * value / widest).clamp(0.0, 100.0));
    let class = match (correct, sample.radius > eps) {
        (false, _) => "card wrong",
        (true, true) => "card beyond",
        (true, false) => "card",
    };
    let spoken = format!("a {} taken for a {}", sample.label, sample.predicted);
    Ok(html! {
        li class=(class) {
            img src=(picture::data_url(sample)?) alt=(spoken) width=(sample.shape[2]) height=(sample.shape[1]);
            div.bar { span style={"width:" (share(sample.radius))} {} i style={"left:" (share(eps))} {} }
            @if correct { p.radius { (format!("{:.2}", sample.radius)) } }
            @else { p.radius { (sample.label) " → " (sample.predicted) } }
        }
    })
}

fn layers(report: &Report) -> Markup {
    html! {
        @if !report.layers.is_empty() {
            section {
                h2 { "Layer bounds" }
                div.scroll { table {
                    thead { tr { th { "Layer" } th { "weight" } th.number { "‖W‖₂ at most 1 + …" } } }
                    tbody {
                        @for layer in &report.layers { tr {
                            th scope="row" { (layer.name) }
                            td { (layer.weight) }
                            td.number { (excess(layer.bound)) }
                        } }
                        tr.total { th scope="row" { "product" } td {} td.number { (excess(report.lipschitz)) } }
                    }
                } }
                p.fine { "Rigorous upper bounds for the stored f32 weights, computed in f64 with accounted rounding." }
            }
        }
    }
}

fn excess(bound: f64) -> String {
    format!("{:.1e}", bound - 1.0).replace('-', "−")
}

fn facts(report: &Report) -> Markup {
    html! {
        section {
            h2 { "To run the same again" }
            dl { @for (label, value) in &report.facts { dt { (label) } dd { (value) } } }
        }
    }
}
