//! The report page: every number in its place, nothing invented, nothing fetched.

use std::collections::BTreeMap;

use bench_apps::files::EpochMetrics;
use bench_apps::report::{CertifiedCurve, LayerFact, Report, Sample, compared, paper, render};
use bench_apps::results::{Certified, PaperFigures, ResultRow, write_results};
use bench_apps::{ByEps, Error};

fn at(eps: &str, value: f64) -> ByEps {
    [(eps.parse().unwrap(), value)].into_iter().collect()
}

fn row() -> ResultRow {
    let reference = paper::reference("mnist", "small", "bcop").unwrap();
    ResultRow {
        experiment: "reproduce".into(),
        dataset: "mnist".into(),
        synthetic: false,
        network: "small".into(),
        layer: "bcop".into(),
        activation: "maxmin".into(),
        seed: 3,
        budget: None,
        epochs: 12,
        device: "CPU, 2 threads".into(),
        commit: None,
        seconds: 61.0,
        clean: 97.11,
        certified: Certified {
            nominal: at("1.58", 43.94),
            real: at("1.58", 43.93),
            executed: at("1.58", 43.36),
        },
        attacks: [("pgd".to_owned(), at("1.58", 74.07))].into_iter().collect(),
        paper: Some(PaperFigures::from(reference)),
    }
}

fn report() -> Report {
    let epoch = |epoch: usize| EpochMetrics {
        epoch,
        loss: 1.0 / epoch as f64,
        train_clean: 90.0,
        test_clean: Some(91.0),
        ..EpochMetrics::default()
    };
    Report {
        row: row(),
        reference: paper::reference("mnist", "small", "bcop"),
        headline_eps: "1.58".into(),
        accumulate_f64: None,
        history: (1..=4).map(epoch).collect(),
        curve: CertifiedCurve::from_radii(
            vec![0.0, 1.0, 2.0],
            &[0.0, 1.5, 2.5, 1.0],
            &[0.0; 4],
            &[0.0; 4],
        ),
        samples: vec![Sample {
            shape: [1, 2, 2],
            pixels: vec![0, 50, 100, 255],
            label: 4,
            predicted: 9,
            radius: 0.0,
        }],
        samples_are: "The only image".into(),
        layers: vec![LayerFact {
            name: "conv1".into(),
            weight: "16 x 4 x 2 x 2".into(),
            bound: 1.000_001,
        }],
        lipschitz: 1.000_001,
        facts: vec![("command".into(), "lipconv <reproduce> & more".into())],
        notes: Vec::new(),
    }
}

#[test]
fn a_curve_counts_the_radii_strictly_beyond() {
    let curve = report().curve;
    assert_eq!(curve.nominal, [75.0, 50.0, 25.0]);
    assert_eq!(curve.real, [0.0; 3]);
}

#[test]
fn figures_stand_beside_the_paper_s_and_gaps_stay_empty() {
    let rows = compared(&report());
    let found: Vec<(&str, Option<f64>, Option<f64>)> =
        rows.iter().map(|r| (r.what.as_str(), r.ours, r.paper)).collect();
    assert_eq!(
        found,
        [
            ("clean", Some(97.11), Some(97.54)),
            ("certified at 1.58, nominal", Some(43.94), Some(45.84)),
            ("certified at 1.58, exact arithmetic", Some(43.93), None),
            ("certified at 1.58, as executed in f32", Some(43.36), None),
            ("under PGD at 1.58", Some(74.07), Some(78.0)),
        ]
    );
    assert!((rows[0].difference().unwrap() + 0.43).abs() < 1e-9);
    assert_eq!(rows[2].difference(), None);
    // at another radius the paper has nothing certified to compare with
    let mut elsewhere = report();
    elsewhere.headline_eps = "1".into();
    elsewhere.row.certified.nominal = at("1", 77.83);
    let rows = compared(&elsewhere);
    assert_eq!((rows[1].ours, rows[1].paper, rows[4].ours), (Some(77.83), None, None));
}

#[test]
fn the_page_shows_every_number_and_escapes_what_it_quotes() {
    let page = render(&report()).unwrap();
    for shown in [
        "BCOP-Small on MNIST",
        "97.11",
        "97.54",
        "43.36",
        "−0.43",
        "12 epochs, seed 3",
        "4 → 9",
        "1.0e−6",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(page.contains("lipconv &lt;reproduce&gt; &amp; more"));
    assert!(
        !page.contains("FGSM</p>") && !page.contains("synthetic data"),
        "nothing that was not computed"
    );
    assert!(page.contains("data:image/png;base64,iVBORw0KGgo"));
}

#[test]
fn a_report_without_history_images_or_curve_is_still_a_page() {
    let mut bare = report();
    bare.history.clear();
    bare.samples.clear();
    bare.layers.clear();
    bare.curve = CertifiedCurve::default();
    bare.reference = None;
    bare.row.attacks = BTreeMap::new();
    let page = render(&bare).unwrap();
    assert!(!page.contains("<svg ") && !page.contains("<img ") && page.contains("97.11"));
    let mut one_epoch = report();
    one_epoch.history.truncate(1);
    assert_eq!(render(&one_epoch).unwrap().matches("<svg ").count(), 6);
}

#[test]
fn an_image_that_is_no_image_is_an_error() {
    let mut broken = report();
    broken.samples[0].shape = [2, 2, 1];
    let error = render(&broken).unwrap_err();
    assert!(matches!(error, Error::Draw { .. }));
    assert_eq!(error.to_string(), "cannot draw a test image: it has 2 channels, expected 1 or 3");
    broken.samples[0].shape = [1, 3, 3];
    assert_eq!(
        render(&broken).unwrap_err().to_string(),
        "cannot draw a test image: it has 4 values, expected 9"
    );
}

#[test]
fn results_have_the_documented_keys_and_null_for_what_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("results.json");
    write_results(&path, &[row()]).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let expected = serde_json::json!([{
        "experiment": "reproduce", "dataset": "mnist", "synthetic": false, "network": "small", "layer": "bcop",
        "activation": "maxmin", "seed": 3, "epochs": 12, "device": "CPU, 2 threads", "commit": null, "seconds": 61.0,
        "clean": 97.11,
        "certified": { "nominal": { "1.58": 43.94 }, "real": { "1.58": 43.93 }, "executed": { "1.58": 43.36 } },
        "attacks": { "pgd": { "1.58": 74.07 } },
        "paper": { "clean": 97.54, "certified": 45.84 },
    }]);
    assert_eq!(json, expected);
    let back: Vec<ResultRow> = serde_json::from_value(json).unwrap();
    assert_eq!(back, [row()]);
}
