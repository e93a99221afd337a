//! AutoAttack in evaluations and tables, and nearest adversarial examples against certified radii.

use std::fs;
use std::path::Path;

use bench_apps::experiment::evaluation::EvalSummary;
use bench_apps::jobs::cell::CellResult;
use bench_apps::jobs::collect::sorted;
use bench_apps::jobs::job::JobResult;
use bench_apps::jobs::spec::Experiment;
use bench_apps::report;
use bench_apps::results::{AutoAttacked, Nearest};

use crate::command::Place;

/// `eval --auto-attack` on a run that was trained; its configuration gets budgets of seconds.
pub(crate) fn check_auto_attack(place: &Place) {
    let path = place.path("run/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    let short = config.replace("queries = 5000", "queries = 20");
    let at = short.find("[evaluation.auto_attack]").unwrap();
    let (before, after) = short.split_at(at);
    fs::write(&path, before.to_owned() + &after.replacen("steps = 100", "steps = 8", 1)).unwrap();
    let args = ["eval", "run", "--auto-attack", "12", "--pgd-steps", "3", "--quiet"];
    let text = place.succeed(&[&args[..], &["--json", "auto.json"]].concat());
    fs::write(&path, config).unwrap();
    for row in
        ["clean, of the first 12", "certified at 1.58, of the", "under AutoAttack at 1.58, of"]
    {
        assert!(text.contains(row), "{text}");
    }
    assert!(text.contains("AutoAttack at 1.58 took "), "{text}");
    let json = fs::read_to_string(place.path("auto.json")).unwrap();
    let eval: EvalSummary = serde_json::from_str(&json).unwrap();
    assert!(!eval.attacks.contains_key("auto"), "a part is not the whole test set");
    let [auto] = &eval.auto_attack[..] else { panic!("{json}") };
    assert_eq!((auto.eps.as_str(), auto.n_images, auto.parts.len()), ("1.58", 12, 4));
    let certified = auto.certified.unwrap();
    assert!(certified <= auto.accuracy && auto.accuracy <= auto.clean, "{auto:?}");
    assert!(auto.seconds > 0.0 && auto.parts[0].n_attacked <= 12);
    let Nearest { radii, distances } = &eval.nearest;
    assert_eq!((radii.len(), distances.len(), eval.nearest.n_refuted()), (12, 12, 0));
    assert!(eval.nearest.points().count() >= 6, "{:?}", eval.nearest);
    assert!(eval.nearest.points().any(|(radius, _)| radius > 0.0));
}

fn stored() -> CellResult {
    let folder = "tests/data/v0.1/reproduction/cells/default/mnist-small-bcop-seed0";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    match JobResult::read(&folder).unwrap() {
        Some(JobResult::Classifier(cell)) => *cell,
        _ => panic!("no classifier"),
    }
}

fn page(cell: CellResult) -> (String, String) {
    let experiment = Experiment::find("table1").unwrap();
    let all = sorted(vec![JobResult::Classifier(Box::new(cell))], Vec::new(), &[experiment]);
    (report::page(&all).unwrap(), report::markdown(&all))
}

const TITLE: &str = "Certified radius against nearest adversarial example";
const REFUTED: &str = "A certificate is refuted.";

#[test]
fn the_page_shows_every_point_and_flags_one_under_the_diagonal() {
    let (none, _) = page(stored());
    assert!(!none.contains(TITLE) && !none.contains(REFUTED));
    let mut cell = stored();
    cell.nearest = Nearest {
        radii: vec![0.5, 1.0, 0.0, 2.0, 0.25],
        distances: vec![Some(0.75), Some(2.0), Some(0.0), None, Some(0.25)],
    };
    let (sound, _) = page(cell.clone());
    assert!(sound.contains(TITLE) && !sound.contains(REFUTED));
    // three points, in the wide form and in the narrow one; a mistake has no point, nor has what withstood
    let chart = &sound[sound.find(TITLE).unwrap()..];
    let chart = &chart[..chart.find("</section>").unwrap()];
    assert_eq!(chart.matches("<circle").count(), 2 * 3);
    assert!(chart.contains("3 of the first 5 images; no adversarial example was found for 1 more"));
    assert!(chart.contains("the median of distance / radius is 1.50"), "{chart}");
    cell.nearest.distances[1] = Some(0.99);
    let (refuted, _) = page(cell.clone());
    assert!(refuted.contains(REFUTED) && refuted.contains("1 image lies under the diagonal"));
    // no number at all is no proof of anything
    cell.nearest.distances[1] = Some(f64::NAN);
    assert_eq!(cell.nearest.n_refuted(), 1);
}

#[test]
fn auto_attack_has_rows_of_its_own_images() {
    let mut cell = stored();
    cell.data = Some(bench_apps::jobs::cell::DataFacts {
        n_train: 60_000,
        n_test: 10_000,
        test_sha256: String::new(),
    });
    let eps = cell.eps().to_owned();
    let auto = |n_images| AutoAttacked {
        eps: eps.clone(),
        n_images,
        clean: 97.5,
        certified: Some(43.5),
        accuracy: 52.25,
        seconds: 1.0,
        parts: Vec::new(),
        flags: Vec::new(),
    };
    let with = |n_images| {
        let mut cell = cell.clone();
        cell.row.auto_attack = vec![auto(n_images)];
        let mut experiment = Experiment::find("table1").unwrap();
        experiment.quantities = None;
        report::markdown(&sorted(
            vec![JobResult::Classifier(Box::new(cell))],
            Vec::new(),
            &[experiment],
        ))
    };
    let part = with(200);
    for text in ["under AutoAttack", "clean, AutoAttack's images", "97.50", "43.50", "52.25"] {
        assert!(part.contains(text), "{text}: {part}");
    }
    assert!(part.contains("the first 200 of them for AutoAttack"), "{part}");
    let whole = with(10_000);
    assert!(whole.contains("under AutoAttack") && whole.contains("52.25"));
    assert!(!whole.contains("AutoAttack's images") && !whole.contains("for AutoAttack"));
}
