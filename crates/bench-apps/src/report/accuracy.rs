//! Accuracies as a table in the paper's shape.
//!
//! Definition. Methods (or networks with their methods) are columns; data set, network and quantity are rows. Groups of cells
//! that belong to one data set, network and budget share a *block* of rows. Two groups that differ in anything but the
//! column never share a block.
//!
//! Guarantee: the conditions of every number, its budget, seeds and images, stand once: under the table where all numbers share
//! them, else with the block or the column that they belong to.

use super::document::SYNTHETIC;
use super::table::{Cell, Head, Row, Table};
use crate::config::{Method, Net};
use crate::jobs::collect::{Group, Section};
use crate::jobs::spec::{Figures, SideBySide};
use crate::statistic::{Figure, Statistic, What};
use crate::words::{counted, distinct, once, sentence};

const CERTIFIED_NOTE: &str = "Nominal certificates take a Lipschitz constant of 1 for granted and ignore rounding, as in the paper. \
    Certificates as executed hold for this program's computation in f32: they use a rigorous bound of the constant and of every \
    rounding error. Where the bound is well below 1, they certify more.";

/// Explanation of the nominal certificates of a last layer whose norm exceeds 1.
const PAIRWISE_NOTE: &str = "Where the norm of the last layer exceeds 1, as with rows of norm 1, nominal certificates take no constant for \
    granted: they use the distance of each pair of its rows and rigorous bounds of the other layers, and ignore rounding.";

const PAPER_NOTE: &str = "With our number stand the paper's figure and the difference. The paper's figures are means of 5 seeds after \
    200 epochs; a figure without ± is one released run.";

pub(super) fn table(section: &Section) -> Table {
    let layout = Layout::new(section);
    let conditions = Conditions::of(&layout);
    let mut table = if layout.columns.len() == 1 {
        layout.beside_the_paper(&conditions)
    } else {
        layout.side_by_side(&conditions)
    };
    let quantities = &layout.quantities;
    let mut notes = vec![conditions.shared.clone()];
    if table.rows.iter().any(|row| row.cells.iter().any(|cell| !cell.paper.is_empty())) {
        notes.push(PAPER_NOTE.into());
    }
    if quantities.contains(&What::Executed) {
        notes.push(CERTIFIED_NOTE.into());
    }
    if section.groups.iter().any(|group| group.pairwise) {
        notes.push(PAIRWISE_NOTE.into());
    }
    if section.groups.iter().any(|group| group.synthetic) {
        notes.push(format!("SYNTHETIC DATA: {SYNTHETIC}"));
    }
    notes.retain(|note| !note.is_empty());
    table.note = notes.join(" ");
    table
}

/// What a column shows.
#[derive(Debug, Clone, PartialEq)]
enum Column {
    /// A method, for every network.
    Method(Method),
    /// A network with its method.
    Network(Net, Method),
    /// A recipe, in words.
    Recipe(String),
    /// A network that is not run here.
    Quoted(String),
}

impl Column {
    fn title(&self) -> String {
        match self {
            Self::Method(method) => method.title().into(),
            Self::Network(Net::KwSmall, _) => Net::KwSmall.title().into(),
            Self::Network(net, method) => format!("{} {}", method.title(), net.title()),
            Self::Recipe(title) => title.clone(),
            Self::Quoted(name) => format!("{name} (quoted)"),
        }
    }
}

/// Rows that share data set, network and budget, with a place for each column.
struct Block<'a> {
    first: &'a Group,
    places: Vec<Option<&'a Group>>,
}

/// A quantity at a radius: that of the tables where none is given.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    what: What,
    eps: Option<&'a str>,
}

impl Line<'_> {
    fn label(&self) -> String {
        let eps = self.eps.map_or_else(String::new, |eps| format!(", ε = {eps}"));
        format!("{}{eps}", self.what.title())
    }
}

struct Layout<'a> {
    section: &'a Section,
    side_by_side: SideBySide,
    columns: Vec<Column>,
    blocks: Vec<Block<'a>>,
    quantities: Vec<What>,
}

impl<'a> Layout<'a> {
    fn new(section: &'a Section) -> Self {
        let experiment = &section.experiment;
        let side_by_side = experiment.side_by_side;
        let column = |group: &Group| match side_by_side {
            SideBySide::Methods => Column::Method(group.cell.method),
            SideBySide::Networks => Column::Network(group.cell.network, group.cell.method),
            SideBySide::Recipes => Column::Recipe(group.cell.recipe_title()),
        };
        // as the experiment lists them, whatever is finished
        let mut in_order: Vec<&Group> = section.groups.iter().collect();
        in_order.sort_by_key(|group| {
            let [_, network, block, method] = experiment.position(&group.cell).unwrap_or_default();
            match side_by_side {
                SideBySide::Methods | SideBySide::Recipes => (block, method, network),
                SideBySide::Networks => (block, network, method),
            }
        });
        let mut columns = distinct(in_order.into_iter().map(column));
        let n_run = columns.len();
        let quoted = experiment.quoted.values().flat_map(|by_name| by_name.keys().cloned());
        columns.extend(distinct(quoted.map(Column::Quoted)));
        let mut blocks: Vec<Block<'_>> = Vec::new();
        for group in &section.groups {
            let place = columns.iter().position(|c| *c == column(group)).unwrap_or_default();
            let fits = |block: &&mut Block<'_>| {
                let (a, b) = (block.first, group);
                let same_network =
                    side_by_side == SideBySide::Networks || a.cell.network == b.cell.network;
                let same_method =
                    side_by_side != SideBySide::Recipes || a.cell.method == b.cell.method;
                let same = a.cell.dataset == b.cell.dataset && a.synthetic == b.synthetic;
                same && same_network
                    && same_method
                    && a.cell.budget == b.cell.budget
                    && block.places[place].is_none()
            };
            match blocks.iter_mut().find(fits) {
                Some(block) => block.places[place] = Some(group),
                None => {
                    let mut places = vec![None; n_run];
                    places[place] = Some(group);
                    blocks.push(Block { first: group, places });
                }
            }
        }
        Self { section, side_by_side, columns, blocks, quantities: section.quantities() }
    }

    fn block_title(&self, block: &Block<'_>) -> String {
        let group = block.first;
        let mut title = group.dataset();
        match self.side_by_side {
            SideBySide::Methods => title += &format!(", {}", group.cell.network.title()),
            SideBySide::Recipes => {
                let (network, method) = (group.cell.network.title(), group.cell.method.title());
                title += &format!(", {method}-{network}");
            }
            SideBySide::Networks => {}
        }
        if !group.eps.is_empty() && !self.section.experiment.curves {
            title += &format!(", ε = {}", group.eps);
        }
        title
    }

    /// The rows of a block: every quantity, at all radii of the evaluation where the experiment asks for curves.
    fn lines<'b>(&'b self, block: &'b Block<'_>) -> impl Iterator<Item = Line<'b>> {
        self.quantities.iter().flat_map(|&what| {
            let certified = matches!(what, What::Certified | What::Real | What::Executed);
            if self.section.experiment.curves && certified {
                let radii = block.first.radii.iter();
                radii.map(|eps| Line { what, eps: Some(eps.as_str()) }).collect::<Vec<_>>()
            } else {
                vec![Line { what, eps: None }]
            }
        })
    }

    /// Methods, networks or recipes side by side.
    fn side_by_side(&self, conditions: &Conditions) -> Table {
        let mut head = vec![Head::from("Test accuracy, %")];
        head.extend(self.columns.iter().enumerate().map(|(i, column)| Head {
            text: column.title(),
            small: conditions.columns.get(i).cloned().unwrap_or_default(),
        }));
        let mut rows = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            for line in self.lines(block) {
                let values: Vec<_> = self
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(i, c)| self.value(block, i, c, line))
                    .collect();
                if values.iter().all(|(ours, _)| ours.is_none()) {
                    continue;
                }
                let mut row = Row {
                    group: self.block_title(block),
                    small: conditions.blocks[i].clone(),
                    label: line.label(),
                    cells: values
                        .iter()
                        .map(|(ours, paper)| Cell::compared(*ours, *paper))
                        .collect(),
                };
                let means: Vec<_> =
                    values.iter().map(|(ours, _)| ours.map(|ours| ours.mean)).collect();
                row.mark_best(&means);
                rows.push(row);
            }
        }
        Table { head, rows, note: String::new() }
    }

    fn value(
        &self,
        block: &Block<'_>,
        i: usize,
        column: &Column,
        Line { what, eps }: Line<'_>,
    ) -> (Option<Statistic>, Option<Figure>) {
        match column {
            Column::Quoted(name) => {
                let dataset = block.first.cell.dataset.to_string();
                let by_name = self.section.experiment.quoted.get(&dataset);
                let figures: Option<&Figures> = by_name.and_then(|by_name| by_name.get(name));
                (None, figures.and_then(|figures| figures.get(&what).copied()))
            }
            _ => block.places[i].map_or((None, None), |group| match eps {
                Some(eps) if *eps != group.eps => (group.value_at(what, eps), None),
                _ => group.value(what),
            }),
        }
    }

    /// One method or network alone: ours, the paper's and the difference are the columns.
    fn beside_the_paper(&self, conditions: &Conditions) -> Table {
        let mut rows = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            for line in self.lines(block) {
                let (ours, paper) = self.value(block, 0, &self.columns[0], line);
                let Cell { ours, paper, difference, .. } = Cell::compared(ours, paper);
                if !ours.is_empty() {
                    rows.push(Row {
                        group: self.block_title(block),
                        small: conditions.blocks[i].clone(),
                        label: line.label(),
                        cells: vec![ours.into(), paper.into(), difference.into()],
                    });
                }
            }
        }
        let has_paper = rows.iter().any(|row| !row.cells[1].ours.is_empty());
        let mut head: Vec<Head> = vec!["Test accuracy, %".into()];
        head.push(Head {
            text: self.columns[0].title(),
            small: conditions.columns.first().cloned().unwrap_or_default(),
        });
        if has_paper {
            head.extend([Head::from("paper"), Head::from("difference")]);
        } else {
            rows.iter_mut().for_each(|row| row.cells.truncate(1));
        }
        Table { head, rows, note: String::new() }
    }
}

/// Where the conditions of the numbers stand.
#[derive(Debug, Default)]
struct Conditions {
    shared: String,
    blocks: Vec<String>,
    columns: Vec<String>,
}

impl Conditions {
    fn of(layout: &Layout<'_>) -> Self {
        let text = |group: &Group| conditions_text(group, &layout.quantities);
        let of = |places: &mut dyn Iterator<Item = &Group>| once(places.map(text));
        let blocks = &layout.blocks;
        let empty = || vec![String::new(); blocks.len()];
        let all = of(&mut blocks.iter().flat_map(|block| block.places.iter().flatten().copied()));
        if let [one] = all.as_slice() {
            return Self { shared: sentence(one), blocks: empty(), columns: Vec::new() };
        }
        let by_block: Vec<Vec<String>> =
            blocks.iter().map(|block| of(&mut block.places.iter().flatten().copied())).collect();
        if by_block.iter().all(|texts| texts.len() == 1) {
            return Self { blocks: by_block.concat(), ..Self::default() };
        }
        let n = layout.columns.len();
        let by_column: Vec<Vec<String>> = (0..n)
            .map(|i| {
                of(&mut blocks.iter().filter_map(|block| block.places.get(i).copied().flatten()))
            })
            .collect();
        if by_column.iter().all(|texts| texts.len() <= 1) {
            let columns = by_column.into_iter().map(|texts| texts.concat()).collect();
            return Self { blocks: empty(), columns, ..Self::default() };
        }
        let each = |block: &Block<'_>| {
            let named = layout.columns.iter().zip(&block.places);
            let texts = named.filter_map(|(column, group)| {
                Some(format!("{}: {}", column.title(), text((*group)?)))
            });
            texts.collect::<Vec<_>>().join("; ")
        };
        Self { blocks: blocks.iter().map(each).collect(), ..Self::default() }
    }
}

/// The budget, as in "quick budget: 1 epoch on 12800 images, 1 seed, 1000 test images".
pub(super) fn conditions_text(group: &Group, quantities: &[What]) -> String {
    let (budget, extent) = (&group.cell.budget, &group.extent);
    let mut parts = Vec::new();
    if group.cell.method == Method::Published {
        parts.push("not trained here".into());
    } else {
        let on = extent.train_limit.map_or_else(String::new, |n| format!(" on {n} images"));
        parts.push(counted(extent.epochs, "epoch") + &on);
        parts.push(counted(group.seeds.len(), "seed"));
    }
    if let Some(n) = extent.test_limit {
        parts.push(counted(n, "test image"));
    }
    if let Some(n) = extent.first_images.filter(|_| quantities.contains(&What::FirstClean)) {
        parts.push(format!("the first {n} of them for the boundary and pointwise attacks"));
    }
    if let Some(n) = extent.auto_images.filter(|_| quantities.contains(&What::AutoAttack)) {
        parts.push(format!("the first {n} of them for AutoAttack"));
    }
    let name = if budget.is_empty() { String::new() } else { format!("{budget} budget: ") };
    name + &parts.join(", ")
}
