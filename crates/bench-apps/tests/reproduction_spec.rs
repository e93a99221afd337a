//! Experiments, budgets, statistics: what is to be run, and what a row says.

use bench_apps::Error;
use bench_apps::config::{DatasetName, DeviceKind, Net, ScheduleKind};
use bench_apps::jobs::cell::ClassifierJob;
use bench_apps::jobs::evidence::{CertifiedCurve, Histogram};
use bench_apps::jobs::job::{Choice, Job};
use bench_apps::jobs::spec::{Experiment, names};
use bench_apps::statistic::{Figure, Statistic, What};

fn choice(budget: &str) -> Choice<'_> {
    Choice { budget, seeds: None, only: None, device: DeviceKind::Cpu }
}

fn cells(experiment: &Experiment, choice: Choice<'_>) -> Vec<ClassifierJob> {
    let found = experiment.jobs(choice).unwrap();
    assert!(found.impossible.is_empty(), "{:?}", found.impossible);
    let cell = |job: Job| match job {
        Job::Classifier(job) | Job::Published(job) => Some(*job),
        _ => None,
    };
    found.jobs.into_iter().filter_map(cell).collect()
}

#[test]
fn the_compiled_in_experiments_are_the_papers_cells() {
    for name in names() {
        let experiment = Experiment::find(name).unwrap();
        assert!(
            experiment.name == name || (name, experiment.name.as_str()) == ("default", "reproduce")
        );
        for budget in ["quick", "default", "full"] {
            let found = experiment.jobs(choice(budget)).unwrap();
            let mut ids: Vec<String> = found.jobs.iter().map(Job::id).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), found.jobs.len(), "{name} {budget}: a job appears twice");
        }
    }
    let table1 = Experiment::find("table1").unwrap();
    assert_eq!(cells(&table1, choice("quick")).len(), 2 * 2 * 6);
    let full = cells(&table1, choice("full"));
    assert_eq!(full.len(), 2 * 2 * 6 * 5);
    // the whole table with one seed comes before the second seed
    assert!(full[..24].iter().all(|job| job.cell.seed == 0) && full[24].cell.seed == 1);
    let only = ["bcop".to_owned()];
    let some = cells(&table1, Choice { seeds: Some(&[0, 7]), only: Some(&only), ..choice("full") });
    let ids: Vec<String> = some.iter().map(|job| job.cell.id()).collect();
    assert_eq!(ids.len(), 8);
    assert!(ids.contains(&"cifar10-large-bcop-seed7".to_owned()), "{ids:?}");
}

#[test]
fn a_cell_takes_its_settings_from_budget_and_data_set() {
    let experiment = Experiment::find("table1").unwrap();
    let find = |budget| {
        let wanted = |job: &ClassifierJob| job.cell.id() == "cifar10-large-bcop-seed0";
        cells(&experiment, choice(budget)).into_iter().find(wanted).unwrap()
    };
    let job = find("full");
    let config = &job.config;
    assert_eq!((&job.cell.dataset, job.cell.network), (&DatasetName::Cifar10, Net::Large));
    assert_eq!((config.training.epochs, config.training.seed), (200, 0));
    assert_eq!(config.training.schedule, ScheduleKind::Exponential);
    assert_eq!(config.network.name, Net::Large);
    assert_eq!(config.training.margin, 0.5 * std::f64::consts::SQRT_2);
    assert_eq!(config.data.test_limit, None);
    assert_eq!((config.evaluation.pgd.steps, config.evaluation.pgd.step_size), (200, 0.01));
    let quick = find("quick").config;
    let eps = 36.0 / 255.0;
    assert_eq!(quick.evaluation.pgd.step_size, 2.5 * eps / quick.evaluation.pgd.steps as f64);
}

#[test]
fn the_papers_figures_stand_with_the_cells() {
    let table3 = Experiment::find("table3").unwrap();
    let all = cells(&table3, choice("full"));
    let figure = |id: &str, what| {
        let job = all.iter().find(|job| job.cell.id() == id).unwrap();
        table3.paper(&job.cell, what)
    };
    // its own, and those of another table
    let bcop = "cifar10-large-bcop-seed0";
    assert_eq!(figure(bcop, What::Boundary), Some(Figure::Mean([71.0, 2.3])));
    assert_eq!(figure(bcop, What::Certified), Some(Figure::Mean([58.26, 0.17])));
    assert_eq!(figure(bcop, What::BestCertified), Some(Figure::Mean([58.26, 0.17])));
    assert_eq!(figure(bcop, What::Executed), None);
    let kw = "cifar10-kw-small-published-seed0";
    assert_eq!(
        (figure(kw, What::Pgd), figure(kw, What::Certified)),
        (Some(Figure::Single(49.94)), None)
    );
    let mut synthetic = all[0].cell.clone();
    synthetic.dataset = DatasetName::Synthetic;
    assert_eq!(table3.paper(&synthetic, What::Clean), None);
}

#[test]
fn the_papers_certified_is_below_attacked_is_below_clean() {
    let table1 = Experiment::find("table1").unwrap();
    let figures =
        || table1.paper.values().flat_map(|nets| nets.values()).flat_map(|nets| nets.values());
    assert_eq!(figures().count(), 24);
    for figures in figures() {
        let of = |what| figures.get(&what).map(|figure: &Figure| figure.mean());
        let (clean, certified) = (of(What::Clean).unwrap(), of(What::Certified).unwrap());
        assert!(certified < clean, "{figures:?}");
        for attacked in [of(What::Pgd), of(What::Fgsm)].into_iter().flatten() {
            assert!(certified < attacked && attacked < clean, "{figures:?}");
        }
    }
}

#[test]
fn names_that_nothing_has_are_refused() {
    let text = Experiment::find("table9").unwrap_err().to_string();
    let expected = "expected ablation, default, figure2, layers, methods, records, table1, table2, table3, table4-stl10, table4, all or a file that ends in .toml";
    assert_eq!(text, format!("experiment is table9, {expected}"));
    assert!(matches!(Experiment::find("no/such.toml").unwrap_err(), Error::Read { .. }));
    let experiment = Experiment::find("table1").unwrap();
    let text = experiment.budget("huge").unwrap_err().to_string();
    assert_eq!(text, "budget is huge, expected default, full, quick");
    let mut cell = cells(&experiment, choice("quick")).remove(0).cell;
    cell.network = Net::KwSmall;
    let text = experiment.budget("quick").unwrap().config(&cell, None).unwrap_err().to_string();
    assert_eq!(
        text,
        "network.name is kw-small, expected a network that is trained here: small, large or fc-3"
    );
}

#[test]
fn an_experiment_has_recipes_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.toml");
    let text = |recipe: &str, key: &str| {
        format!(
            r#"
            name = "own"
            title = "Own"
            [[cells]]
            datasets = ["cifar10", "mnist"]
            networks = ["small"]
            methods = ["bcop"]
            recipe = "{recipe}"
            [recipes.mine]
            source = "nobody"
            trade_off = "nothing"
            target_eps = {{ digits = "1", images = "0.5" }}
            [recipes.mine.config.training]
            {key} = 0.25
            "#
        )
    };
    let find = |text: String| {
        std::fs::write(&path, text).unwrap();
        Experiment::find(path.to_str().unwrap())
    };
    let own = find(text("mine", "learning_rate")).unwrap();
    let rates = |experiment: &Experiment| -> Vec<(f64, f64)> {
        let jobs = cells(experiment, choice("default"));
        jobs.iter()
            .map(|job| (job.config.training.learning_rate, job.config.training.margin))
            .collect()
    };
    let [half, one] = [0.5, 1.0].map(|eps| std::f64::consts::SQRT_2 * eps);
    assert_eq!(rates(&own)[0], (0.25, half));
    assert!(rates(&own).contains(&(0.25, one)));
    // one that ships with the program may be named beside it
    let shipped = find(text("certified", "learning_rate")).unwrap();
    assert!(rates(&shipped).iter().all(|(rate, _)| *rate == 1e-3));
    let unknown = find(text("mien", "learning_rate")).unwrap_err().to_string();
    assert!(unknown.contains("mien: unknown recipe"), "{unknown}");
    let bad = find(text("mine", "learning_rat")).unwrap_err().to_string();
    assert!(bad.contains("learning_rat") && bad.contains("mine"), "{bad}");
}

#[test]
fn figures_for_networks_that_do_not_exist_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    let find = |text: &str| {
        std::fs::write(&path, format!("name = \"mine\"\ntitle = \"Mine\"\n{text}")).unwrap();
        Experiment::find(path.to_str().unwrap()).unwrap_err().to_string()
    };
    let text = find("[paper.mnist.medium]\nbcop = { clean = 1.0 }\n");
    assert_eq!(text, "network.name is medium, expected small, large or fc-3");
    let text = find("[quoted.nmist]\nOther = { clean = 1.0 }\n");
    assert!(text.starts_with("data.dataset is nmist, expected mnist, "), "{text}");
    let text = find("[paper.mnist.small]\nbcop = { claen = 1.0 }\n");
    assert!(text.contains("line 4: unknown variant `claen`"), "{text}");
}

/// What is said of an experiment file that is refused, without its name.
#[track_caller]
fn refused(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    std::fs::write(&path, format!("name = \"mine\"\ntitle = \"Mine\"\n{text}")).unwrap();
    let error = Experiment::find(path.to_str().unwrap()).unwrap_err();
    assert!(matches!(error, Error::ConfigSyntax { .. }), "{error}");
    error.to_string().replace(&format!("{}: ", path.display()), "")
}

const CELLS: &str = r#"
[[cells]]
datasets = ["synthetic"]
networks = ["small"]
methods = ["bcop"]
seeds = [0]

[budgets.quick]
seeds = [1]
schedule = "linear"
"#;

#[test]
fn a_budget_that_no_call_would_use_is_refused() {
    for name in ["qick", "Quick", "mine"] {
        let text = refused(&CELLS.replace("budgets.quick", &format!("budgets.{name}")));
        let expected = "expected one of default, full, quick";
        assert_eq!(text, format!("unknown budget `{name}` in budgets, {expected}"));
    }
}

#[test]
fn lists_and_files_that_make_no_cells_are_refused() {
    let empty = |text: &str, list: &str, what: &str| {
        let text = refused(&text.replace(&format!("= {list}"), "= []"));
        assert_eq!(text, format!("{what} is [], expected one entry at least"));
    };
    empty(CELLS, "[\"synthetic\"]", "datasets of [[cells]] 1");
    empty(CELLS, "[\"small\"]", "networks of [[cells]] 1");
    empty(CELLS, "[\"bcop\"]", "methods of [[cells]] 1");
    empty(CELLS, "[0]", "seeds of [[cells]] 1");
    empty(CELLS, "[1]", "seeds of [budgets.quick]");
    let distances = r#"
[wasserstein]
datasets = ["cifar10"]
size = 32
methods = ["bcop"]
activations = ["maxmin"]
"#;
    empty(distances, "[\"cifar10\"]", "datasets of [wasserstein]");
    empty(distances, "[\"bcop\"]", "methods of [wasserstein]");
    empty(distances, "[\"maxmin\"]", "activations of [wasserstein]");
    for text in ["", "cells = []\n"] {
        assert_eq!(refused(text), "no cells, expected a [[cells]] or a [wasserstein] table");
    }
}

#[test]
fn without_a_method_of_its_own_no_generator_is_trained() {
    let table4 = Experiment::find("table4").unwrap();
    let only = ["aoc".to_owned()];
    assert!(table4.jobs(Choice { only: Some(&only), ..choice("quick") }).unwrap().jobs.is_empty());
}

#[test]
fn lists_whose_product_nobody_can_run_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("many.toml");
    let list = |word: &str| vec![word; 400].join(", ");
    let (datasets, networks, methods) = (list("\"mnist\""), list("\"small\""), list("\"bcop\""));
    let text = format!(
        "name = \"many\"\ntitle = \"Many\"\n[[cells]]\ndatasets = [{datasets}]\nnetworks = [{networks}]\nmethods = [{methods}]\n"
    );
    std::fs::write(&path, text).unwrap();
    let experiment = Experiment::find(path.to_str().unwrap()).unwrap();
    let text = experiment.jobs(choice("quick")).unwrap_err().to_string();
    assert!(
        text.starts_with("number of cells is ") && text.ends_with(", expected at most 100000"),
        "{text}"
    );
}

#[test]
fn a_curve_counts_the_radii_strictly_beyond() {
    let curve = CertifiedCurve::from_radii(
        vec![0.0, 1.0, 2.0],
        &[0.0, 1.5, 2.5, 1.0],
        &[0.0; 4],
        &[0.0; 4],
    );
    assert_eq!(curve.nominal, [75.0, 50.0, 25.0]);
    assert_eq!(curve.real, [0.0; 3]);
}

#[test]
fn a_mistake_in_an_experiment_file_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    std::fs::write(&path, "name = \"mine\"\ntitle = \"Mine\"\n[[cells]]\ndataset = [\"mnist\"]\n")
        .unwrap();
    let text = Experiment::find(path.to_str().unwrap()).unwrap_err().to_string();
    let start = format!("{}, line 4: unknown field `dataset`, expected one of", path.display());
    assert!(text.starts_with(&start), "{text}");
}

#[test]
fn the_deviation_is_that_of_a_sample() {
    assert_eq!(Statistic::of(&[]), None);
    assert_eq!(Statistic::of(&[3.0]), Some(Statistic { n: 1, mean: 3.0, sd: None }));
    assert_eq!(
        Statistic::of(&[1.0, 3.0]),
        Some(Statistic { n: 2, mean: 2.0, sd: Some(2_f64.sqrt()) })
    );
}

#[test]
fn a_histogram_counts_every_value_once() {
    let histogram = Histogram::of(&[0.0, 0.5, 0.999, 1.0], 1.0);
    let n = histogram.counts.len();
    assert_eq!(histogram.counts.iter().sum::<u64>(), 4);
    assert_eq!((histogram.counts[0], histogram.counts[n / 2], histogram.counts[n - 1]), (1, 1, 2));
    assert_eq!((histogram.min, histogram.max), (0.0, 1.0));
}
