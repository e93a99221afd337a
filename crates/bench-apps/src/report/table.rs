//! Tables and their three forms: HTML, Markdown and plain text.
//!
//! Definition. A table has a heading, rows and a note. Rows that follow one another with the same group stand under one heading.
//! A cell holds a number or words, and where there is a published figure for it, that figure and the difference.
//!
//! Guarantee: a number that was not computed is an empty cell, in every form. The best number of a row is marked: bold in HTML
//! and Markdown, with a star in plain text.
//!
//! Not here: the tables' contents.

use certify::Eps;
use maud::{Markup, html};

use crate::statistic::{Figure, Statistic};
use crate::words::{percent, text_table};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Headings, that of the rows' labels first.
    pub head: Vec<Head>,
    pub rows: Vec<Row>,
    /// Conditions that all numbers share.
    pub note: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Head {
    pub text: String,
    /// Conditions of this column alone.
    pub small: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// What the row shares with its neighbours, such as a data set; empty where there are no groups.
    pub group: String,
    /// Conditions of the group.
    pub small: String,
    pub label: String,
    /// One cell for each column.
    pub cells: Vec<Cell>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    /// Our number, or words.
    pub ours: String,
    pub paper: String,
    /// Ours less the published one.
    pub difference: String,
    pub best: bool,
}

impl From<&str> for Head {
    fn from(text: &str) -> Self {
        Self { text: text.into(), small: String::new() }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { ours: text, ..Self::default() }
    }
}

impl Cell {
    /// A number of ours beside a published one; either may be absent.
    pub fn compared(ours: Option<Statistic>, paper: Option<Figure>) -> Self {
        let difference = ours.zip(paper).map(|(ours, paper)| ours.mean - paper.mean());
        Self {
            ours: ours.map_or_else(String::new, |ours| ours.text()),
            paper: paper.map_or_else(String::new, Figure::text),
            difference: difference
                .map_or_else(String::new, |d| format!("{d:+.2}").replace('-', "−")),
            best: false,
        }
    }
}

impl Row {
    /// Marks the cell with the largest value, where at least two cells have one.
    pub fn mark_best(&mut self, values: &[Option<f64>]) {
        let known = values.iter().flatten();
        if known.clone().count() < 2 {
            return;
        }
        let largest = known.copied().fold(f64::NEG_INFINITY, f64::max);
        for (cell, value) in self.cells.iter_mut().zip(values) {
            cell.best = *value == Some(largest);
        }
    }
}

impl Table {
    /// A table of words or numbers without groups.
    pub fn plain(head: &[&str], rows: Vec<Vec<String>>) -> Self {
        let row = |cells: Vec<String>| {
            let mut cells = cells.into_iter();
            let label = cells.next().unwrap_or_default();
            Row { label, cells: cells.map(Cell::from).collect(), ..Row::default() }
        };
        Self {
            head: head.iter().map(|text| Head::from(*text)).collect(),
            rows: rows.into_iter().map(row).collect(),
            note: String::new(),
        }
    }

    /// Whether the row of that position begins a group.
    fn begins_group(&self, i: usize) -> bool {
        let of = |i: usize| (&self.rows[i].group, &self.rows[i].small);
        !self.rows[i].group.is_empty() && (i == 0 || of(i) != of(i - 1))
    }

    fn has_groups(&self) -> bool {
        self.rows.iter().any(|row| !row.group.is_empty())
    }

    /// The table for a page; it scrolls sideways where the page is narrow.
    pub fn html(&self) -> Markup {
        html! {
            div.scroll { table.cells {
                thead { tr {
                    @for (i, head) in self.head.iter().enumerate() {
                        th.number[i > 0] scope="col" {
                            (head.text) @if !head.small.is_empty() { small { (head.small) } }
                        }
                    }
                } }
                tbody { @for (i, row) in self.rows.iter().enumerate() {
                    @if self.begins_group(i) { tr.group { th colspan=(self.head.len()) scope="rowgroup" {
                        span { (row.group) @if !row.small.is_empty() { small { (row.small) } } }
                    } } }
                    tr { th scope="row" { (row.label) } @for cell in &row.cells { (html_cell(cell)) } }
                } }
            } }
            @if !self.note.is_empty() { p.fine { (self.note) } }
        }
    }

    /// The table as Markdown; the published figure and the difference stand in parentheses.
    pub fn markdown(&self) -> String {
        let groups = self.has_groups();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut head: Vec<String> =
            self.head.iter().map(|head| joined(&head.text, &head.small)).collect();
        if groups {
            head.insert(0, String::new());
        }
        let mut text = line(&head) + &line(&vec!["---".to_owned(); head.len()]);
        for (i, row) in self.rows.iter().enumerate() {
            let group =
                if self.begins_group(i) { joined(&row.group, &row.small) } else { String::new() };
            let mut cells = if groups { vec![group] } else { Vec::new() };
            cells.push(row.label.clone());
            cells.extend(row.cells.iter().map(|cell| {
                let ours = if cell.best { format!("**{}**", cell.ours) } else { cell.ours.clone() };
                beside(&ours, cell)
            }));
            text += &line(&cells);
        }
        if !self.note.is_empty() {
            text += &format!("\n{}\n", self.note);
        }
        text
    }

    pub fn terminal(&self) -> String {
        let indent = if self.has_groups() { "  " } else { "" };
        let mut lines = vec![self.head.iter().map(|head| head.text.clone()).collect::<Vec<_>>()];
        if self.head.iter().any(|head| !head.small.is_empty()) {
            lines.push(self.head.iter().map(|head| head.small.clone()).collect());
        }
        for (i, row) in self.rows.iter().enumerate() {
            if self.begins_group(i) {
                lines.push(vec![joined(&row.group, &row.small)]);
            }
            let cells = row.cells.iter().map(|cell| {
                let star = if cell.best { "*" } else { "" };
                beside(&format!("{}{star}", cell.ours), cell)
            });
            lines.push(std::iter::once(format!("{indent}{}", row.label)).chain(cells).collect());
        }
        let text = text_table(&lines);
        text + &wrapped(&self.note)
    }
}

/// Shares in percent for a terminal: a row for each radius, a column for each name.
pub fn certified_at(
    names: &[&str],
    eps: &[Eps],
    share: impl Fn(usize, &Eps) -> Option<f64>,
) -> String {
    let row = |eps: &Eps| {
        let shares = (0..names.len()).map(|i| percent(share(i, eps)));
        std::iter::once(eps.to_string()).chain(shares).collect()
    };
    Table::plain(&[&["certified at"][..], names].concat(), eps.iter().map(row).collect()).terminal()
}

/// A paragraph in lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a first line");
        if line.chars().count() + word.chars().count() >= 100 {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.retain(|line| !line.is_empty());
    lines.into_iter().map(|line| line + "\n").collect()
}

fn joined(text: &str, small: &str) -> String {
    match (text.is_empty(), small.is_empty()) {
        (false, false) => format!("{text}, {small}"),
        _ => format!("{text}{small}"),
    }
}

/// "97.12 ± 0.05 (97.54 ± 0.06, −0.42)".
fn beside(ours: &str, cell: &Cell) -> String {
    match (cell.paper.is_empty(), cell.difference.is_empty()) {
        (true, _) => ours.to_owned(),
        (false, true) => format!("{ours} ({})", cell.paper).trim_start().to_owned(),
        (false, false) => format!("{ours} ({}, {})", cell.paper, cell.difference),
    }
}

fn html_cell(cell: &Cell) -> Markup {
    html! {
        td.number {
            @if cell.best { strong { (cell.ours) } } @else { (cell.ours) }
            @if !cell.paper.is_empty() {
                span.paper { (cell.paper) @if !cell.difference.is_empty() { i { (cell.difference) } } }
            }
        }
    }
}
