//! Experiments, budgets, statistics: what is to be run, and what a row says.

use bench_apps::Error;
use bench_apps::config::{DatasetName, NetworkName, ScheduleKind};
use bench_apps::reproduction::collect::Statistic;
use bench_apps::reproduction::evidence::Histogram;
use bench_apps::reproduction::spec::{Experiment, NAMES};

#[test]
fn the_compiled_in_experiments_are_the_papers_cells() {
    for name in NAMES {
        let experiment = Experiment::find(name).unwrap();
        assert_eq!(experiment.name, name);
        for budget in ["quick", "default", "full"] {
            experiment.budget(budget).unwrap();
            let cells = experiment.cells(budget, None, None).unwrap();
            let mut ids: Vec<String> = cells.iter().map(|cell| cell.id()).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), cells.len(), "{name} {budget}: a cell appears twice");
        }
    }
    let table1 = Experiment::find("table1").unwrap();
    assert_eq!(table1.cells("quick", None, None).unwrap().len(), 2 * 2 * 6);
    let full = table1.cells("full", None, None).unwrap();
    assert_eq!(full.len(), 2 * 2 * 6 * 5);
    // the whole table with one seed comes before the second seed
    assert!(full[..24].iter().all(|cell| cell.seed == 0) && full[24].seed == 1);
    let only = ["bcop".to_owned()];
    let some = table1.cells("full", Some(&[0, 7]), Some(&only)).unwrap();
    let ids: Vec<String> = some.iter().map(|cell| cell.id()).collect();
    assert_eq!(ids.len(), 8);
    assert!(ids.contains(&"cifar10-large-bcop-seed7".to_owned()), "{ids:?}");
}

#[test]
fn a_cell_takes_its_settings_from_budget_and_data_set() {
    let experiment = Experiment::find("table1").unwrap();
    let cells = experiment.cells("full", None, Some(&["bcop".to_owned()])).unwrap();
    let cell = cells
        .iter()
        .find(|cell| {
            cell.dataset == DatasetName::Cifar10 && cell.network == "large" && cell.seed == 3
        })
        .unwrap();
    let config = experiment.budget("full").unwrap().config(cell).unwrap();
    assert_eq!((config.training.epochs, config.training.seed), (200, 3));
    assert_eq!(config.training.schedule, ScheduleKind::Exponential);
    assert_eq!(config.network.name, NetworkName::Large);
    assert_eq!(config.training.margin, 0.5 * std::f64::consts::SQRT_2);
    assert_eq!(config.data.test_limit, None);
    assert_eq!((config.evaluation.pgd.steps, config.evaluation.pgd.step_size), (200, 0.01));
    let quick = experiment.budget("quick").unwrap().config(cell).unwrap();
    let eps = 36.0 / 255.0;
    assert_eq!(quick.evaluation.pgd.step_size, 2.5 * eps / quick.evaluation.pgd.steps as f64);
}

#[test]
fn names_that_nothing_has_are_refused() {
    let text = Experiment::find("table9").unwrap_err().to_string();
    let expected = "expected table1, table2, table3, table4, figure2, table4-stl10, all or a file that ends in .toml";
    assert_eq!(text, format!("experiment is table9, {expected}"));
    assert!(matches!(Experiment::find("no/such.toml").unwrap_err(), Error::Read { .. }));
    let experiment = Experiment::find("table1").unwrap();
    let text = experiment.budget("huge").unwrap_err().to_string();
    assert_eq!(text, "budget is huge, expected default, full, quick");
    let mut cell = experiment.cells("quick", None, None).unwrap().remove(0);
    cell.method = "cayley".into();
    let text = experiment.budget("quick").unwrap().config(&cell).unwrap_err().to_string();
    assert!(
        text.starts_with("network.layer is cayley, expected bjorck or a method that"),
        "{text}"
    );
    cell.network = "medium".into();
    let text = experiment.budget("quick").unwrap().config(&cell).unwrap_err().to_string();
    assert_eq!(text, "network.name is medium, expected small, large or fc-3");
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
