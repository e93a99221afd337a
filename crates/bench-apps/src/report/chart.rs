//! Charts of lines and points as inline SVG.
//!
//! The colours written into the SVG are placeholders, one near-black for each role; the page's style sheet gives each its
//! colour for light, dark and printed pages by selecting on them. Text takes the page's font.
//!
//! Errors: [`Error::Draw`].

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};

/// What a colour is for; the style sheet knows the placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Ink,
    Grid,
    Muted,
    /// Series 0 to 5.
    Series(u8),
}

impl Role {
    /// The placeholder: #010101 ink, #020202 grid, #030303 muted, #101010 and so on series.
    pub(super) fn colour(self) -> RGBColor {
        let value = match self {
            Self::Ink => 1,
            Self::Grid => 2,
            Self::Muted => 3,
            Self::Series(i) => 16 + i,
        };
        RGBColor(value, value, value)
    }
}

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

/// A line through points; a gap where the ordinate is not finite.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) role: Role,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) dashed: bool,
}

/// A point with a label beside it.
#[derive(Debug, Clone)]
pub(super) struct Marker {
    pub(super) role: Role,
    pub(super) at: (f64, f64),
    pub(super) filled: bool,
    pub(super) label: String,
    /// How far the label is moved down, in units of the chart.
    pub(super) label_dy: i32,
}

/// A chart without its size: it is drawn once wide and once narrow.
#[derive(Debug, Clone, Default)]
pub(super) struct Chart {
    pub(super) name: &'static str,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) x_range: Range<f64>,
    pub(super) y_range: Range<f64>,
    pub(super) lines: Vec<Line>,
    pub(super) markers: Vec<Marker>,
    /// Many small points, each list in one colour.
    pub(super) dots: Vec<(Role, Vec<(f64, f64)>)>,
    /// A vertical line with its label.
    pub(super) rule: Option<(f64, String)>,
}

impl Line {
    pub(super) fn new(role: Role, points: Vec<(f64, f64)>) -> Self {
        Self { role, points, dashed: false }
    }

    pub(super) fn dashed(self, dashed: bool) -> Self {
        Self { dashed, ..self }
    }
}

/// Ordinates from 0, or from below, to a little above the largest value.
pub(super) fn y_range(lines: &[Line]) -> Range<f64> {
    let values =
        || lines.iter().flat_map(|line| &line.points).map(|p| p.1).filter(|y| y.is_finite());
    let (bottom, top) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
    1.08 * bottom..if top > 0.0 { 1.08 * top } else { 1.0 }
}

/// The estimates of a distance over the steps of its critics.
pub(super) fn over_steps(name: &'static str, lines: Vec<Line>) -> Chart {
    let last = lines.iter().flat_map(|line| &line.points).map(|p| p.0).fold(1.0, f64::max);
    let (x_range, y_range) = (0.0..last, y_range(&lines));
    Chart {
        name,
        x_label: "step",
        y_label: "estimate",
        x_range,
        y_range,
        lines,
        ..Chart::default()
    }
}

const TEXT: f64 = 15.0;
/// The backend rounds coordinates to whole units; a finer grid keeps lines smooth.
const FINENESS: i32 = 4;

/// `text_size` is in the units of plotters, whose SVG backend writes 1 / 1.24 of it as the font size.
fn text(role: Role) -> TextStyle<'static> {
    ("sans-serif", TEXT * 1.24 * f64::from(FINENESS)).into_font().color(&role.colour())
}

impl Chart {
    /// The chart as an `svg` element, `width` x `height` units.
    pub(super) fn draw(&self, width: u32, height: u32) -> Result<String> {
        let mut svg = String::new();
        {
            let root =
                SVGBackend::with_string(&mut svg, (fine(width), fine(height))).into_drawing_area();
            self.draw_on(&root).map_err(|reason| Error::Draw { what: self.name, reason })?;
            root.present().map_err(|e| Error::Draw { what: self.name, reason: e.to_string() })?;
        }
        Ok(svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{}\" ", self.name), 1))
    }

    fn draw_on(
        &self,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
    ) -> std::result::Result<(), String> {
        let mut context = ChartBuilder::on(root)
            .margin(fine(6))
            .margin_right(fine(14))
            .x_label_area_size(fine(46))
            .y_label_area_size(fine(58))
            .build_cartesian_2d(self.x_range.clone(), self.y_range.clone())
            .map_err(|e| e.to_string())?;
        let (width, _) = root.dim_in_pixel();
        context
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Role::Grid.colour().stroke_width(fine(1)))
            .axis_style(Role::Muted.colour().stroke_width(fine(1)))
            .set_all_tick_mark_size(fine(5))
            .label_style(text(Role::Muted))
            .axis_desc_style(text(Role::Muted))
            .x_labels(if width < fine(500) { 5 } else { 8 })
            .y_labels(6)
            .x_label_formatter(&|x| tick(*x))
            .y_label_formatter(&|y| tick(*y))
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .draw()
            .map_err(|e| e.to_string())?;
        self.draw_rule(&mut context)?;
        self.draw_dots(&mut context)?;
        self.draw_lines(&mut context)?;
        self.draw_markers(&mut context)
    }

    fn draw_rule(&self, context: &mut Context<'_, '_>) -> std::result::Result<(), String> {
        let Some((x, label)) = &self.rule else { return Ok(()) };
        let (bottom, top) = (self.y_range.start, self.y_range.end);
        let style = Role::Muted.colour().stroke_width(fine(1));
        context
            .draw_series(DashedLineSeries::new([(*x, bottom), (*x, top)], fine(4), fine(4), style))
            .map_err(|e| e.to_string())?;
        let style = text(Role::Muted).pos(Pos::new(HPos::Left, VPos::Top));
        let at = EmptyElement::at((*x, top)) + Text::new(label.clone(), (6 * FINENESS, 0), style);
        context.draw_series([at]).map(drop).map_err(|e| e.to_string())
    }

    fn draw_dots(&self, context: &mut Context<'_, '_>) -> std::result::Result<(), String> {
        for (role, points) in &self.dots {
            // translucent, so that a crowd is seen to be one
            let style = role.colour().mix(0.5).filled();
            let dots = points.iter().map(|&at| Circle::new(at, fine(3), style));
            context.draw_series(dots).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn draw_lines(&self, context: &mut Context<'_, '_>) -> std::result::Result<(), String> {
        for line in &self.lines {
            let style = line.role.colour().stroke_width(fine(2));
            for run in line.points.split(|(_, y)| !y.is_finite()).filter(|run| run.len() > 1) {
                let run = run.to_vec();
                let drawn = if line.dashed {
                    context
                        .draw_series(DashedLineSeries::new(run, fine(7), fine(5), style))
                        .map(drop)
                } else {
                    context.draw_series(LineSeries::new(run, style)).map(drop)
                };
                drawn.map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    fn draw_markers(&self, context: &mut Context<'_, '_>) -> std::result::Result<(), String> {
        for marker in &self.markers {
            let colour = marker.role.colour();
            let shape = if marker.filled { colour.filled() } else { colour.stroke_width(fine(2)) };
            let style = text(Role::Ink).pos(Pos::new(HPos::Left, VPos::Center));
            let element = EmptyElement::at(marker.at)
                + Circle::new((0, 0), fine(5), shape)
                + Text::new(
                    marker.label.clone(),
                    (10 * FINENESS, marker.label_dy * FINENESS),
                    style,
                );
            context.draw_series([element]).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

type Context<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A length on the fine grid.
fn fine(length: u32) -> u32 {
    length * FINENESS.unsigned_abs()
}

/// A tick's label without digits that say nothing.
fn tick(value: f64) -> String {
    let rounded = (value * 1e4).round() / 1e4;
    if rounded == 0.0 { "0".into() } else { rounded.to_string() }
}
