//! Writes a report filled with invented numbers, to look at its layout in a browser without training anything.
//!
//!     cargo run -p bench-apps --example report_layout -- page.html [synthetic]
//!
//! Expected: a page whose every section has content; the second argument adds the banner of synthetic data.

use anyhow::{Context, Result};
use bench_apps::data::synthetic::{self, SyntheticDigits};
use bench_apps::files::EpochMetrics;
use bench_apps::report::{CertifiedCurve, LayerFact, Report, Sample, paper, render};
use bench_apps::results::{Certified, PaperFigures, ResultRow};
use bench_apps::{ByEps, Eps};

const N_SAMPLES: usize = 40;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().context("usage: report_layout FILE.html [synthetic]")?;
    let synthetic = args.next().is_some_and(|word| word == "synthetic");
    std::fs::write(&path, render(&invented(synthetic)?)?)
        .with_context(|| format!("cannot write {path}"))?;
    println!("wrote {path}: the layout of a report, with invented numbers");
    Ok(())
}

fn at(eps: &str, value: f64) -> ByEps {
    [(eps.parse::<Eps>().expect("a positive number"), value)].into_iter().collect()
}

fn invented(synthetic: bool) -> Result<Report> {
    let reference = if synthetic { None } else { paper::reference("mnist", "small", "bcop") };
    let radii: Vec<f64> =
        (0..10_000).map(|i| 2.9 * (1.0 - (f64::from(i) / 9_700.0).powf(1.6)).max(0.0)).collect();
    let executed: Vec<f64> = radii.iter().map(|r| (r - 0.03).max(0.0)).collect();
    let eps: Vec<f64> = (0..=100).map(|i| f64::from(i) * 0.03).collect();
    let row = ResultRow {
        experiment: "layout with invented numbers".into(),
        dataset: if synthetic { synthetic::NAME.into() } else { "mnist".into() },
        synthetic,
        network: "small".into(),
        layer: "bcop".into(),
        activation: "maxmin".into(),
        seed: 0,
        budget: None,
        epochs: 12,
        device: "CPU, 2 threads".into(),
        commit: None,
        seconds: 241.0,
        clean: 97.01,
        certified: Certified {
            nominal: at("1.58", 39.12),
            real: at("1.58", 39.11),
            executed: at("1.58", 37.98),
        },
        attacks: [("pgd".into(), at("1.58", 75.44)), ("fgsm".into(), at("1.58", 77.02))]
            .into_iter()
            .collect(),
        paper: reference.map(PaperFigures::from),
    };
    Ok(Report {
        row,
        reference,
        headline_eps: "1.58".into(),
        accumulate_f64: Some(39.11),
        history: (1..=12).map(epoch).collect(),
        curve: CertifiedCurve::from_radii(eps, &radii, &radii, &executed),
        samples: samples()?,
        samples_are: format!("The first {N_SAMPLES} images of a synthetic set"),
        layers: layers(),
        lipschitz: 1.0 + 3.4e-6,
        facts: facts(),
        notes: vec![
            "a note that a reader should see, such as a file that is not the published one".into(),
        ],
    })
}

fn epoch(epoch: usize) -> EpochMetrics {
    let t = epoch as f64;
    EpochMetrics {
        epoch,
        step: 469 * epoch as u64,
        loss: 0.12 + 0.5 / t,
        train_clean: 97.2 - 9.0 / t,
        learning_rate: 1e-3 * (1.0 - t / 12.0),
        seconds: 15.0 * t,
        test_clean: Some(97.0 - 7.0 / t),
        test_certified: Some(at("1.58", 39.0 - 22.0 / t)),
    }
}

fn samples() -> Result<Vec<Sample>> {
    let set = synthetic::dataset(&SyntheticDigits { seed: 1, n_train: 0, n_test: N_SAMPLES })?.test;
    let sample = |i: usize| {
        let label = usize::from(set.labels()[i]);
        let wrong = i % 13 == 5;
        Ok(Sample {
            shape: set.shape(),
            pixels: set.image(i)?.to_vec(),
            label,
            predicted: if wrong { (label + 3) % 10 } else { label },
            radius: if wrong { 0.0 } else { 0.3 + (i * 37 % 100) as f64 * 0.025 },
        })
    };
    (0..N_SAMPLES).map(sample).collect()
}

fn layers() -> Vec<LayerFact> {
    [
        ("conv1", "16 x 4 x 2 x 2"),
        ("conv2", "32 x 64 x 2 x 2"),
        ("linear1", "100 x 1568"),
        ("linear2", "10 x 100"),
    ]
    .map(|(name, weight)| LayerFact {
        name: name.into(),
        weight: weight.into(),
        bound: 1.0 + 8.5e-7,
    })
    .to_vec()
}

fn facts() -> Vec<(String, String)> {
    [
        ("command", "lipconv reproduce --out target/reproduce"),
        ("data", "files in a folder; test set SHA-256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ("commit", "unknown"),
        ("compiler", "rustc 1.95.0"),
        ("training", "12 epochs of 469 steps, batch 128, Adam 0.001 linear, hinge margin 2.1213"),
    ]
    .map(|(label, value)| (label.into(), value.into()))
    .to_vec()
}
