//! A page: one HTML document that needs nothing else.
//!
//! Guarantee: figures are inline SVG, images inline PNG, and the style sheet is in the file. The page reads on paper, on a
//! telephone and on a dark screen.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{Chart, Legend, Mark, Role};
use crate::error::Result;

const STYLE: &str = include_str!("style.css");

/// A document with a title and the content of its `main` element.
pub(super) fn document(title: &str, body: &Markup) -> String {
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
            body { main { (body) } }
        }
    };
    page.into_string()
}

pub(super) fn header(
    kicker: &str,
    title: &str,
    lead: &str,
    synthetic: bool,
    notes: &[String],
) -> Markup {
    html! {
        header {
            p.kicker { "lipconv · " (kicker) }
            h1 { (title) }
            @if !lead.is_empty() { p.lead { (lead) } }
            @if synthetic { p.banner { strong { "Synthetic data. " } (SYNTHETIC) } }
            @for note in notes { p.note { (note) } }
        }
    }
}

/// The warning of every page and table with results on synthetic images.
pub(super) const SYNTHETIC: &str = "The program drew these images. Results on them cannot be compared with the paper's, nor with results on MNIST.";

/// A headline number with its name and its meaning.
pub(super) fn headlines(items: &[(&str, String, &str, String)]) -> Markup {
    html! {
        section.headlines aria-label="Headline figures" {
            @for (name, value, unit, meaning) in items {
                div.headline {
                    p.name { (name) }
                    p.value { (value) @if !unit.is_empty() { span.unit { " " (unit) } } }
                    p.meaning { (meaning) }
                }
            }
        }
    }
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

pub(super) fn facts(facts: &[(&str, String)]) -> Markup {
    html! { dl { @for (label, value) in facts { dt { (label) } dd { (value) } } } }
}
