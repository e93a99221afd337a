//! APGD, FAB and Square follow another implementation (torchattacks, in f64) step by step, from the same starts and with
//! the same random numbers, on a network of random numbers, an exported BCOP-Small and KW-Small; `golden/attacks.py` made the arrays.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, safetensors};
use certify::{
    Apgd, ApgdLoss, AttackTarget, Classifier, Fab, Replay, Square, Stopping, Trace, TracedAttack,
};
use lipconv::{Activation, Dense, ImageShape, PaddedConv, PlainLayer, PlainNetwork, Window};

use crate::common::rows;
use crate::golden;

const STEPS: usize = 60;
const QUERIES: usize = 120;

struct Golden {
    /// Of a file for several networks, those of one.
    tensors: HashMap<String, Tensor>,
    classifier: Box<dyn Classifier>,
    images: Tensor,
    starts: Tensor,
    labels: Vec<usize>,
    eps: f64,
    square_eps: f64,
}

/// The arrays of a file whose names begin with the prefix.
fn arrays(file: &str, prefix: &str) -> HashMap<String, Tensor> {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let tensors = safetensors::load(path, &Device::Cpu).unwrap().into_iter();
    let named = tensors.filter_map(|(name, values)| {
        let values = match values.dtype() {
            DType::F32 => values.to_dtype(DType::F64).unwrap(),
            _ => values,
        };
        Some((name.strip_prefix(prefix)?.to_owned(), values))
    });
    named.collect()
}

fn labels(tensors: &HashMap<String, Tensor>) -> Vec<usize> {
    let labels = tensors["labels"].to_vec1::<i64>().unwrap();
    labels.into_iter().map(|t| t as usize).collect()
}

/// A small network of random numbers.
fn toy() -> Golden {
    let tensors = arrays("attacks.safetensors", "");
    let dense = |name: &str| {
        let [weight, bias] =
            ["weight", "bias"].map(|part| tensors[&format!("{name}.{part}")].clone());
        PlainLayer::Dense(Dense::new(weight, Some(bias)).unwrap())
    };
    let relu = || PlainLayer::Activation(Activation::Relu);
    let layers = vec![
        PlainLayer::Flatten,
        dense("linear1"),
        relu(),
        dense("linear2"),
        relu(),
        dense("linear3"),
    ];
    let network = PlainNetwork::new(ImageShape::new(3, 10, 10), layers).unwrap();
    let [images, starts] = ["images", "starts"].map(|name| tensors[name].clone());
    let (labels, classifier) = (labels(&tensors), Box::new(network));
    Golden { tensors, classifier, images, starts, labels, eps: 0.6, square_eps: 0.5 }
}

/// A network on images that the reference started from in a direction that was recorded.
fn from_directions(prefix: &str, classifier: Box<dyn Classifier>, images: Tensor) -> Golden {
    let tensors = arrays("attacks_small.safetensors", prefix);
    let eps = 0.5;
    let starts = rows(&images).into_iter().zip(rows(&tensors["directions"])).flat_map(|(x, d)| {
        let length = d.iter().map(|v| v * v).sum::<f64>().sqrt();
        let pixel = move |(x, d): (f64, f64)| (x + eps * d / length).clamp(0.0, 1.0);
        x.into_iter().zip(d).map(pixel)
    });
    let starts = Tensor::from_vec(starts.collect::<Vec<_>>(), images.dims(), &Device::Cpu).unwrap();
    let labels = labels(&tensors);
    Golden { tensors, classifier, images, starts, labels, eps, square_eps: eps }
}

/// An exported BCOP-Small.
fn bcop_small() -> Golden {
    let network = golden::small(&golden::tensors(), DType::F64);
    let images = arrays("attacks_small.safetensors", "bcop_small.")["images"].clone();
    from_directions("bcop_small.", Box::new(network), images)
}

/// The published network, where the data folder is known.
fn kw_small() -> Option<Golden> {
    let folder = std::env::var_os("LIPCONV_DATA")?;
    let path = std::path::Path::new(&folder).join("models/kw_cifar10_small_36px.safetensors");
    let weights = safetensors::load(path, &Device::Cpu).ok()?;
    let tensor = |name: String| weights[&name].to_dtype(DType::F64).unwrap();
    let parts =
        |name: &str| (tensor(format!("{name}.weight")), Some(tensor(format!("{name}.bias"))));
    let conv = |(weight, bias), window| {
        PlainLayer::PaddedConv(PaddedConv::new(weight, bias, window).unwrap())
    };
    let dense = |(weight, bias)| PlainLayer::Dense(Dense::new(weight, bias).unwrap());
    let relu = || PlainLayer::Activation(Activation::Relu);
    // channels less their means, divided by one scale
    let scale = Tensor::full(1.0 / 0.225, (3, 1, 1, 1), &Device::Cpu).unwrap();
    let shift = Tensor::new(&[0.485, 0.456, 0.406], &Device::Cpu).unwrap();
    let shift = (shift * (-1.0 / 0.225)).unwrap();
    let window = Window { stride: [2; 2], before: [1; 2], after: [1; 2], ..Window::default() };
    let layers = vec![
        conv((scale, Some(shift)), Window { groups: 3, ..Window::default() }),
        conv(parts("conv1"), window),
        relu(),
        conv(parts("conv2"), window),
        relu(),
        PlainLayer::Flatten,
        dense(parts("linear1")),
        relu(),
        dense(parts("linear2")),
    ];
    let network = PlainNetwork::new(ImageShape::new(3, 32, 32), layers).unwrap();
    // bytes, as shares of 255
    let images = arrays("attacks_small.safetensors", "kw_small.")["images"].clone();
    let images = ((images * 255.0).unwrap().round().unwrap() / 255.0).unwrap();
    Some(from_directions("kw_small.", Box::new(network), images))
}

fn all() -> Vec<Golden> {
    let mut all = vec![toy(), bcop_small()];
    match kw_small() {
        Some(golden) => all.push(golden),
        None => println!("skipped: KW-Small, whose weights are looked for in LIPCONV_DATA"),
    }
    all
}

/// Sixty steps amplify the rounding of f64; what is compared are numbers near 1.
const TOLERANCE: f64 = 1e-6;

#[track_caller]
fn check_close(what: &str, ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() < TOLERANCE, "{what}, {i}: {a} {b}");
    }
}

impl Golden {
    fn traces(&self, attack: &dyn TracedAttack, replay: Replay<'_>) -> Vec<Trace> {
        let classifier = self.classifier.as_ref();
        let run = attack.run_traced(
            AttackTarget::new(classifier, &self.images, &self.labels),
            replay,
            &mut |_| {},
        );
        run.unwrap().1
    }

    fn check_apgd(&self, name: &str, loss: ApgdLoss, round: usize) {
        let stopping = Stopping::Never;
        let attack = Apgd { steps: STEPS, stopping, ..Apgd::standard(self.eps, loss, 0) };
        let replay = Replay { starts: Some(&self.starts), ..Replay::default() };
        let traces = self.traces(&attack, replay);
        let get = |what: &str| rows(&self.tensors[&format!("{name}.{what}")]);
        let (losses, steps, best) = (get("losses"), get("steps"), get("best"));
        let traces: Vec<Trace> = traces.into_iter().filter(|t| t.round == round).collect();
        assert_eq!(traces.len(), self.labels.len());
        for trace in traces {
            let i = trace.sample;
            check_close(&format!("{name} losses of {i}"), &trace.values, &losses[i]);
            // theirs is the step that led to a point, ours the one after it
            assert_eq!(steps[i][0], 2.0 * self.eps);
            check_close(&format!("{name} steps of {i}"), &trace.steps[..STEPS - 1], &steps[i][1..]);
            assert!(trace.steps[STEPS - 1] < 2.0 * self.eps, "no step was ever halved");
            check_close(&format!("{name} best of {i}"), &trace.best, &best[i]);
        }
    }

    /// The same points accepted, from the same random numbers.
    fn check_square(&self) {
        let get = |what: &str| rows(&self.tensors[&format!("square.{what}")]);
        let draws: Vec<Vec<f64>> = get("draws").into_iter().map(finite).collect();
        let replay = Replay { draws: Some(&draws), ..Replay::default() };
        let attack = Square { queries: QUERIES, ..Square::standard(self.square_eps, 0) };
        let traces = self.traces(&attack, replay);
        assert_eq!(traces.len(), self.labels.len());
        let mut n_found = 0;
        for (trace, (margins, best)) in
            traces.iter().zip(get("margins").into_iter().zip(get("best")))
        {
            let margins = finite(margins);
            check_close("margins", &trace.values, &margins);
            let mut lowest = f64::INFINITY;
            for (&margin, &accepted) in margins.iter().zip(&trace.steps) {
                assert_eq!(accepted == 1.0, margin < lowest);
                lowest = lowest.min(margin);
            }
            let n_accepted = trace.steps.iter().sum::<f64>() as usize;
            let found = lowest <= 0.0;
            assert!(n_accepted > 1 && (found || n_accepted < margins.len()), "{n_accepted}");
            check_close("best point", &trace.best, &best);
            n_found += usize::from(found);
        }
        assert!(n_found < self.labels.len(), "every search ended at once");
    }
}

#[test]
fn apgd_climbs_as_the_reference_does() {
    for golden in all() {
        golden.check_apgd("apgd_ce", ApgdLoss::CrossEntropy, 0);
        golden.check_apgd("apgd_dlr", ApgdLoss::Dlr, 0);
        for round in [0, 1] {
            let loss = ApgdLoss::TargetedDlr { targets: 2 };
            golden.check_apgd(&format!("apgd_t{}", round + 2), loss, round);
        }
    }
}

#[test]
fn fab_approaches_as_the_reference_does() {
    for golden in all() {
        let (steps, stopping) = (STEPS, Stopping::Never);
        let attack = Fab { steps, stopping, targets: 2, ..Fab::standard(golden.eps, 0) };
        let traces = golden.traces(&attack, Replay::default());
        assert_eq!(traces.len(), 2 * golden.labels.len());
        for trace in traces {
            let (i, name) = (trace.sample, format!("fab_t{}", trace.round + 2));
            let get = |what: &str| rows(&golden.tensors[&format!("{name}.{what}")]);
            check_close(&format!("{name} distances of {i}"), &trace.values, &get("distances")[i]);
            check_close(&format!("{name} nearest of {i}"), &trace.best, &get("best")[i]);
        }
    }
}

#[test]
fn square_accepts_what_the_reference_accepts() {
    for golden in all() {
        golden.check_square();
    }
}

fn finite(row: Vec<f64>) -> Vec<f64> {
    row.into_iter().filter(|v| !v.is_nan()).collect()
}

#[test]
fn a_list_of_random_numbers_may_end_too_early() {
    let golden = toy();
    let draws: Vec<Vec<f64>> =
        rows(&golden.tensors["square.draws"]).into_iter().map(finite).collect();
    let attack = Square { queries: QUERIES, ..Square::standard(golden.square_eps, 0) };
    // one number less, and the replay says so
    let mut fewer = draws.clone();
    fewer[1].pop();
    let replay = Replay { draws: Some(&fewer), ..Replay::default() };
    let Golden { classifier, images, labels, .. } = &golden;
    let network = classifier.as_ref();
    let error = attack
        .run_traced(AttackTarget::new(network, images, labels), replay, &mut |_| {})
        .unwrap_err();
    let expected = format!(
        "sample 1: {} random numbers, expected more: the search went on after the last one",
        fewer[1].len()
    );
    assert_eq!(error.to_string(), expected);
    let replay = Replay { draws: Some(&draws[..3]), ..Replay::default() };
    let error = attack
        .run_traced(AttackTarget::new(network, images, labels), replay, &mut |_| {})
        .unwrap_err();
    let expected = "3 lists of random numbers, expected 4: one for each sample";
    assert_eq!(error.to_string(), expected);
}
