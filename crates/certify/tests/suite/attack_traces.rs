//! APGD, FAB and Square follow another implementation (torchattacks, in f64) step by step, from the same starts and with
//! the same random numbers; `golden/attacks.py` made the arrays.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, safetensors};
use certify::{Apgd, ApgdLoss, Fab, Replay, Square, Stopping, Trace, TracedAttack};
use lipconv::{Activation, Dense, ImageShape, PlainLayer, PlainNetwork};

use crate::common::rows;

const EPS: f64 = 0.6;
const SQUARE_EPS: f64 = 0.5;
const STEPS: usize = 60;
const QUERIES: usize = 120;

struct Golden {
    tensors: HashMap<String, Tensor>,
    network: PlainNetwork,
    images: Tensor,
    labels: Vec<usize>,
}

fn golden() -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/attacks.safetensors");
    let tensors = safetensors::load(path, &Device::Cpu).unwrap();
    let dense = |name: &str| {
        let [weight, bias] = ["weight", "bias"]
            .map(|part| tensors[&format!("{name}.{part}")].to_dtype(DType::F64).unwrap());
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
    let images = tensors["images"].clone();
    let labels = tensors["labels"].to_vec1::<i64>().unwrap();
    let labels = labels.into_iter().map(|t| t as usize).collect();
    Golden { tensors, network, images, labels }
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
        let run = attack.run_traced(&self.network, &self.images, &self.labels, replay, &mut |_| {});
        run.unwrap().1
    }

    fn check_apgd(&self, name: &str, loss: ApgdLoss, round: usize) {
        let stopping = Stopping::Never;
        let attack = Apgd { steps: STEPS, stopping, ..Apgd::standard(EPS, loss, 0) };
        let starts = &self.tensors["starts"];
        let replay = Replay { starts: Some(starts), ..Replay::default() };
        let traces = self.traces(&attack, replay);
        let get = |what: &str| rows(&self.tensors[&format!("{name}.{what}")]);
        let (losses, steps, best) = (get("losses"), get("steps"), get("best"));
        let traces: Vec<Trace> = traces.into_iter().filter(|t| t.round == round).collect();
        assert_eq!(traces.len(), self.labels.len());
        for trace in traces {
            let i = trace.sample;
            check_close(&format!("{name} losses of {i}"), &trace.values, &losses[i]);
            // theirs is the step that led to a point, ours the one after it
            assert_eq!(steps[i][0], 2.0 * EPS);
            check_close(&format!("{name} steps of {i}"), &trace.steps[..STEPS - 1], &steps[i][1..]);
            assert!(trace.steps[STEPS - 1] < 2.0 * EPS, "no step was ever halved");
            check_close(&format!("{name} best of {i}"), &trace.best, &best[i]);
        }
    }
}

#[test]
fn apgd_climbs_as_the_reference_does() {
    let golden = golden();
    golden.check_apgd("apgd_ce", ApgdLoss::CrossEntropy, 0);
    golden.check_apgd("apgd_dlr", ApgdLoss::Dlr, 0);
    for round in [0, 1] {
        let loss = ApgdLoss::TargetedDlr { targets: 9 };
        golden.check_apgd(&format!("apgd_t{}", round + 2), loss, round);
    }
}

#[test]
fn fab_approaches_as_the_reference_does() {
    let golden = golden();
    let attack = Fab { steps: STEPS, stopping: Stopping::Never, ..Fab::standard(EPS, 0) };
    let traces = golden.traces(&attack, Replay::default());
    assert_eq!(traces.len(), 5 * golden.labels.len(), "five other classes");
    for trace in traces.iter().filter(|trace| trace.round < 2) {
        let (i, name) = (trace.sample, format!("fab_t{}", trace.round + 2));
        let get = |what: &str| rows(&golden.tensors[&format!("{name}.{what}")]);
        check_close(&format!("{name} distances of {i}"), &trace.values, &get("distances")[i]);
        check_close(&format!("{name} nearest of {i}"), &trace.best, &get("best")[i]);
    }
}

#[test]
fn square_accepts_what_the_reference_accepts() {
    let golden = golden();
    let finite = |row: Vec<f64>| -> Vec<f64> { row.into_iter().filter(|v| !v.is_nan()).collect() };
    let get = |what: &str| rows(&golden.tensors[&format!("square.{what}")]);
    let draws: Vec<Vec<f64>> = get("draws").into_iter().map(finite).collect();
    let replay = Replay { draws: Some(&draws), ..Replay::default() };
    let attack = Square { queries: QUERIES, ..Square::standard(SQUARE_EPS, 0) };
    let traces = golden.traces(&attack, replay);
    assert_eq!(traces.len(), golden.labels.len());
    let mut n_found = 0;
    for (trace, (margins, best)) in traces.iter().zip(get("margins").into_iter().zip(get("best"))) {
        let margins = finite(margins);
        check_close("margins", &trace.values, &margins);
        let mut lowest = f64::INFINITY;
        for (&margin, &accepted) in margins.iter().zip(&trace.steps) {
            assert_eq!(accepted == 1.0, margin < lowest);
            lowest = lowest.min(margin);
        }
        let n_accepted = trace.steps.iter().sum::<f64>() as usize;
        assert!(n_accepted > 1 && n_accepted < margins.len(), "{n_accepted}");
        check_close("best point", &trace.best, &best);
        n_found += usize::from(lowest <= 0.0);
    }
    assert!(n_found < golden.labels.len(), "every search ended at once");
    // one number less, and the replay says so
    let mut fewer = draws.clone();
    fewer[1].pop();
    let replay = Replay { draws: Some(&fewer), ..Replay::default() };
    let Golden { network, images, labels, .. } = &golden;
    let error = attack.run_traced(network, images, labels, replay, &mut |_| {}).unwrap_err();
    let expected = format!(
        "sample 1: {} random numbers, expected more: the search went on after the last one",
        fewer[1].len()
    );
    assert_eq!(error.to_string(), expected);
    let replay = Replay { draws: Some(&draws[..3]), ..Replay::default() };
    let error = attack.run_traced(network, images, labels, replay, &mut |_| {}).unwrap_err();
    let expected = "3 lists of random numbers, expected 4: one for each sample";
    assert_eq!(error.to_string(), expected);
}
