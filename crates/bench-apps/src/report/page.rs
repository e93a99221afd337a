//! The write-up of finished jobs: one page, the same tables as Markdown, and for the terminal.
//!
//! Guarantee: every number stands with its budget, seeds and images, and beside the paper's where that has one. A number that
//! was not computed is an empty cell. Synthetic images are announced at the top and under every table.

use lipconv::{CrossEntropy, Optimizer};
use lipconv_datasets::RandAugment;
use maud::{Markup, html};

use super::document::{document, facts, header, headlines};
use super::table::Table;
use super::{accuracy, distances, evidence, layers, nearest};
use crate::config::{AugmentationKind, RunConfig, ScheduleKind};
use crate::error::Result;
use crate::jobs::cell::CellResult;
use crate::jobs::collect::{Reproduction, Section};
use crate::progress::spoken_seconds;
use crate::words::{counted, percent};

/// The page as one HTML document that needs nothing else.
pub fn page(reproduction: &Reproduction) -> Result<String> {
    let results = unique(reproduction);
    let alone = alone(reproduction);
    // a heading names the recipe where there are several
    let of = |result: &CellResult| match alone.len() {
        0 | 1 => String::new(),
        _ => format!(", {}", result.plan.cell.recipe_title()),
    };
    let sections = reproduction.sections.iter().map(section).collect::<Result<Vec<_>>>()?;
    let body = html! {
        (beginning(reproduction, alone, &results))
        @for section in sections { (section) }
        (evidence::certified(&results)?)
        (nearest::nearest(&results)?)
        (evidence::training(&results)?)
        @for result in alone { (evidence::loss(result, &of(result))?) }
        (evidence::images(&results))
        @for result in alone { (evidence::layers(result, &of(result))) }
        section {
            h2 { "To run the same again" }
            @for result in alone {
                @if alone.len() > 1 { h3 { "By " (result.plan.cell.recipe_title()) } }
                (facts(&conditions(result)))
            }
            @if alone.is_empty() { (provenance(reproduction).html()) }
        }
    };
    Ok(document(&title(alone), &body))
}

/// The results of `reproduce` without a name, or the only one of a table: they are described one by one.
fn alone(reproduction: &Reproduction) -> &[CellResult] {
    match reproduction.sections.as_slice() {
        [section] if section.distances.is_none() => {
            let few = section.results.len() == 1 || section.experiment.name == "reproduce";
            if few { &section.results } else { &[] }
        }
        _ => &[],
    }
}

fn title(alone: &[CellResult]) -> String {
    alone.first().map_or_else(|| "Tables and figures".into(), evidence::title)
}

/// Every finished cell once, in the order of the sections.
fn unique(reproduction: &Reproduction) -> Vec<&CellResult> {
    let key = |result: &CellResult| (result.plan.cell.id(), result.plan.cell.budget.clone());
    let mut results: Vec<&CellResult> = Vec::new();
    for result in reproduction.sections.iter().flat_map(|section| &section.results) {
        if results.iter().all(|other| key(other) != key(result)) {
            results.push(result);
        }
    }
    results
}

fn is_synthetic(reproduction: &Reproduction) -> bool {
    let distances = reproduction.sections.iter().filter_map(|section| section.distances.as_ref());
    reproduction.sections.iter().flat_map(|s| &s.results).any(|result| result.row.synthetic)
        || distances.flat_map(|d| &d.rows).any(|row| row.first.synthetic)
}

fn beginning(reproduction: &Reproduction, alone: &[CellResult], results: &[&CellResult]) -> Markup {
    let synthetic = is_synthetic(reproduction);
    let notes = &reproduction.notes;
    let Some(first) = alone.first() else {
        let distances = reproduction.sections.iter().filter_map(|s| s.distances.as_ref());
        let n_critics: usize = distances.map(|distances| distances.critics.len()).sum();
        let mut lead = format!("Results of {}", counted(results.len(), "trained network"));
        if n_critics > 0 {
            lead += &format!(" and {}", counted(n_critics, "critic"));
        }
        lead += " beside the figures of Li et al. 2019 (arXiv 1911.00937).";
        return header("reproduction", &title(alone), &lead, synthetic, notes);
    };
    let row = &first.row;
    let by = if alone.len() > 1 { ", trained by each of two recipes" } else { "" };
    let lead = format!(
        "A provably 1-Lipschitz network{by}, after {}, seed {}, on the {}: {} of training and evaluation.",
        counted(row.epochs, "epoch"),
        row.seed,
        row.device,
        spoken_seconds(alone.iter().map(|result| result.row.seconds).sum())
    );
    html! {
        (header("reproduce", &title(alone), &lead, synthetic, notes))
        @if alone.len() == 1 {
            (headlines(&headline_numbers(first)))
        } @else {
            @for result in alone {
                section {
                    h2 { "By " (result.plan.cell.recipe_title()) }
                    (headlines(&headline_numbers(result)))
                }
            }
        }
    }
}

fn headline_numbers(result: &CellResult) -> Vec<(&'static str, String, &'static str, String)> {
    let (row, eps) = (&result.row, result.eps());
    let attack = |name: &str| row.attacks.get(name).and_then(|by_eps| by_eps.get(eps));
    let items = [
        ("clean", Some(row.clean), "correct on the test set".to_owned()),
        ("certified", row.certified.executed.get(eps), format!("as executed in f32, at ε = {eps}")),
        ("PGD", attack("pgd"), format!("not broken at ε = {eps}")),
        ("FGSM", attack("fgsm"), format!("not broken at ε = {eps}")),
        ("AutoAttack", attack("auto"), format!("not broken at ε = {eps}")),
    ];
    let known = items.into_iter().filter(|(_, value, _)| value.is_some());
    known.map(|(name, value, meaning)| (name, percent(value), "%", meaning)).collect()
}

/// The tables of a section, each with its heading; the first has none.
fn tables(section: &Section) -> Vec<(&'static str, Table)> {
    match &section.distances {
        Some(distances) => distances::tables(distances),
        None if section.groups.is_empty() => Vec::new(),
        None if section.experiment.spectra => vec![("", evidence::spectra_table(section))],
        None if section.experiment.costs => vec![("", layers::table(section))],
        None => vec![("", accuracy::table(section))],
    }
}

const NOTHING: &str = "No job is finished.";

fn section(section: &Section) -> Result<Markup> {
    let tables = tables(section);
    let charts = match &section.distances {
        Some(of) => html! {
            (distances::charts(of)?) @for generator in &of.generators { (distances::grids(generator)) }
        },
        None if section.experiment.spectra => evidence::spectra(section)?,
        None if section.experiment.costs => layers::charts(section)?,
        None => html! {},
    };
    Ok(html! {
        section {
            h2 { (section.experiment.title) }
            @if !section.experiment.note.is_empty() { p.fine { (section.experiment.note) } }
            @if tables.is_empty() { p.fine { (NOTHING) } }
            @for (heading, table) in &tables {
                @if !heading.is_empty() { h3 { (heading) } }
                (table.html())
            }
            (charts)
        }
    })
}

/// The tables as Markdown: ours, in parentheses the paper's and the difference; the best of a row in bold.
pub fn markdown(reproduction: &Reproduction) -> String {
    let mut text = String::from(
        "# Tables and figures of Li et al. 2019\n\nOur numbers are means ± standard deviations over the seeds. The paper's number and the \
         difference stand in parentheses. The best number of a row is bold.\n",
    );
    for note in &reproduction.notes {
        text += &format!("\n> {note}\n");
    }
    for section in &reproduction.sections {
        text += &format!("\n## {}\n", section.experiment.title);
        if !section.experiment.note.is_empty() {
            text += &format!("\n{}\n", section.experiment.note);
        }
        let tables = tables(section);
        if tables.is_empty() {
            text += &format!("\n{NOTHING}\n");
        }
        for (heading, table) in tables {
            if !heading.is_empty() {
                text += &format!("\n### {heading}\n");
            }
            text += &format!("\n{}", table.markdown());
        }
    }
    text + &format!("\n## To run the same again\n\n{}", provenance(reproduction).markdown())
}

/// The tables for the terminal; the best number of a row has a star.
pub fn terminal(reproduction: &Reproduction) -> String {
    let mut text = String::new();
    for section in &reproduction.sections {
        text += &format!("\n{}\n", section.experiment.title);
        let tables = tables(section);
        if tables.is_empty() {
            text += &format!("\n{NOTHING}\n");
        }
        for (_, table) in tables {
            text += &format!("\n{}", table.terminal());
        }
    }
    text + "\n"
}

/// Seeds, device, commit and time of every row.
fn provenance(reproduction: &Reproduction) -> Table {
    let mut rows = Vec::new();
    let seeds =
        |seeds: &[u64]| seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let commits = |commits: &[String]| {
        if commits.is_empty() { "unknown".into() } else { commits.join(", ") }
    };
    for section in &reproduction.sections {
        let name = &section.experiment.name;
        for group in &section.groups {
            let cell = &group.cell;
            let budget =
                if cell.budget.is_empty() { String::new() } else { format!(", {}", cell.budget) };
            let (net, method) = (cell.network.title(), cell.method.title());
            let recipe = cell.recipe.as_ref().map(|_| format!(", {}", cell.recipe_title()));
            let recipe = recipe.unwrap_or_default();
            rows.push(vec![
                format!("{name}: {method} {net}{recipe}, {}{budget}", group.dataset()),
                seeds(&group.seeds),
                group.devices.join("; "),
                commits(&group.commits),
                spoken_seconds(group.seconds),
            ]);
        }
        for row in section.distances.iter().flat_map(|d| &d.rows) {
            let (dataset, plan) = (&row.first.dataset, &row.first.plan);
            let (activation, generator) = (plan.activation.title(), &plan.generator);
            let (size, budget) = (generator.size, &generator.budget);
            rows.push(vec![
                format!("{name}: {activation}, {dataset} {size} px, {budget}"),
                seeds(&row.seeds),
                row.devices.join("; "),
                commits(&row.commits),
                spoken_seconds(row.seconds),
            ]);
        }
    }
    let mut table = Table::plain(&["Row", "seeds", "device", "commit", "time for each seed"], rows);
    table.note = "`lipconv reproduce NAME` runs the jobs again, with --quick or --full for those budgets. The settings of every job are in its \
                  cell.json.".into();
    table
}

fn conditions(result: &CellResult) -> Vec<(&'static str, String)> {
    let (config, provenance) = (&result.plan.config, &result.provenance);
    let versions =
        provenance.dependencies.iter().map(|(name, v)| format!("{name} {}", v.join(", ")));
    let versions = versions.collect::<Vec<_>>().join(", ");
    let mut facts = vec![
        ("command", provenance.command.clone()),
        ("commit", provenance.commit.clone().unwrap_or_else(|| "unknown".into())),
        ("started", provenance.started.clone()),
        ("training", training_text(config)),
        ("attacks", attacks_text(result)),
        ("time", spoken_seconds(result.row.seconds)),
        ("data", result.row.dataset.clone()),
    ];
    if let Some(data) = &result.data {
        facts.extend([
            ("images", format!("{} for training, {} for testing", data.n_train, data.n_test)),
            ("test set SHA-256", data.test_sha256.clone()),
        ]);
    }
    facts.extend([
        ("device", format!("{}, {}", provenance.device, provenance.platform)),
        ("compiler", provenance.rustc.clone()),
        ("versions", format!("lipconv {}, {versions}", provenance.version)),
    ]);
    facts
}

fn training_text(config: &RunConfig) -> String {
    let training = &config.training;
    let schedule = match training.schedule {
        ScheduleKind::Exponential => "falling exponentially",
        ScheduleKind::Linear => "falling linearly to 0",
        ScheduleKind::Cosine => "falling to 0 as a cosine",
        ScheduleKind::Constant => "constant",
    };
    let augmentation = match training.augmentation {
        AugmentationKind::None => "",
        AugmentationKind::CropFlip => ", random crops after padding by 4, random mirror images",
    };
    let random = training.rand_augment.map_or_else(String::new, |random| {
        let RandAugment { operations, magnitude, probability, after } = random;
        let share = 100.0 * probability;
        format!(
            ", RandAugment ({operations} operations, magnitude {magnitude}) of {share} % of the images after epoch {after}"
        )
    });
    let gain = config.network.gain;
    let gain = gain.map_or_else(String::new, |gain| format!(", free matrices of gain {gain}"));
    let optimizer = match training.optimizer.unwrap_or_default() {
        Optimizer::NAdam(_) => "NAdam",
        Optimizer::RmsProp(_) => "RMSprop",
        _ => "Adam",
    };
    let loss = match training.cross_entropy {
        Some(CrossEntropy { offset, temperature, .. }) => {
            format!("cross-entropy with offset {offset:.4} and temperature {temperature}")
        }
        None => format!("hinge margin {:.4}", training.margin),
    };
    format!(
        "{}, batch {}, {optimizer} {} {schedule}, {loss}, seed {}{gain}{augmentation}{random}",
        counted(training.epochs, "epoch"),
        training.batch_size,
        training.learning_rate,
        training.seed
    )
}

fn attacks_text(result: &CellResult) -> String {
    let evaluation = &result.plan.config.evaluation;
    let pgd = &evaluation.pgd;
    let mut text = format!(
        "PGD with {} steps of {} from a random start, and FGSM, with the Carlini-Wagner loss, κ = {}",
        pgd.steps, pgd.step_size, pgd.kappa
    );
    let strong = &evaluation.strong_pgd;
    if strong.restarts > 0 {
        let (steps, starts) = (strong.steps, counted(strong.restarts, "start"));
        text += &format!("; strong PGD with {steps} steps of 2.5 ε / {steps} from {starts}");
    }
    let auto = &evaluation.auto_attack;
    if auto.images > 0 {
        let n = result.nearest.distances.len();
        text += &format!(
            "; AutoAttack, standard version, on the uncertified of the first {} ({} steps, {} queries)",
            counted(n, "image"),
            auto.steps,
            auto.queries
        );
    }
    text
}
