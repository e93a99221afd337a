//! Reference vectors from an independent float64 implementation.

use candle_core::{DType, Device, Tensor, safetensors};
use certify::{
    Arithmetic, AttackStart, AttackTarget, Certifier, Classifier, ExecutedNetwork, Fgsm, Loss,
    Objective, Pgd, Replay, Stopping, TracedAttack, margins, nominal_radii,
};
use lipconv::{Activation, CyclicConv, Dense, ImageShape, PlainLayer, PlainNetwork};
use ndarray_npy::NpzReader;

use crate::common::{largest_difference, rows};

type Tensors = std::collections::HashMap<String, Tensor>;

pub(crate) fn tensors() -> Tensors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/net_small_mnist.safetensors");
    safetensors::load(path, &Device::Cpu).unwrap()
}

pub(crate) fn small(tensors: &Tensors, dtype: DType) -> PlainNetwork {
    let get = |name: &str| tensors[name].to_dtype(dtype).unwrap();
    let conv = |name: &str| {
        let (weight, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        PlainLayer::CyclicConv(CyclicConv::new(weight, Some(bias), 2).unwrap())
    };
    let dense = |name: &str| {
        let (weight, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        PlainLayer::Dense(Dense::new(weight, Some(bias)).unwrap())
    };
    let layers = vec![
        conv("conv1"),
        PlainLayer::Activation(Activation::MaxMin),
        conv("conv2"),
        PlainLayer::Activation(Activation::MaxMin),
        PlainLayer::Flatten,
        dense("linear1"),
        PlainLayer::Activation(Activation::MaxMin),
        dense("linear2"),
    ];
    PlainNetwork::new(ImageShape::new(1, 28, 28), layers).unwrap()
}

fn labels(tensors: &Tensors) -> Vec<usize> {
    tensors["labels"].to_vec1::<i64>().unwrap().into_iter().map(|t| t as usize).collect()
}

/// 1e-10 in f64; in f32 a few hundred roundings of values near 1.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-10 } else { 200.0 * f64::from(f32::EPSILON) }
}

fn golden_pgd(steps: usize, step_size: f64) -> Pgd {
    let (start, stopping) = (AttackStart::Zero, Stopping::Never);
    Pgd { eps: 0.5, steps, step_size, start, stopping, batch_size: 4, ..Pgd::paper(0.5, 0) }
}

#[test]
fn logits_match_in_every_arithmetic() {
    let tensors = tensors();
    let network = small(&tensors, DType::F32);
    for arithmetic in Arithmetic::ALL {
        let executed = ExecutedNetwork::new(&network, arithmetic).unwrap();
        let images = tensors["input"].to_dtype(executed.dtype()).unwrap();
        let logits = executed.logits(&images).unwrap();
        let difference = largest_difference(&logits, &tensors["output_f64"]);
        // a factor loses 2^-10 at most, against f32's 2^-24
        let room = if arithmetic == Arithmetic::Tf32 { 2f64.powi(14) } else { 1.0 };
        assert!(
            difference < room * tolerance(executed.dtype()),
            "{}: {difference}",
            arithmetic.name()
        );
    }
}

/// The reference attacks images that the network takes for something else, which our attacks leave alone. A constant added to the
/// label's logit makes them right, and changes neither the best rival nor the gradient of Carlini and Wagner's loss.
struct Raised<'a> {
    network: &'a PlainNetwork,
    label: usize,
}

impl Raised<'_> {
    fn raised(&self, logits: &Tensor) -> candle_core::Result<Tensor> {
        let offsets: Vec<f64> = (0..10).map(|j| if j == self.label { 8.0 } else { 0.0 }).collect();
        logits.broadcast_add(&Tensor::new(offsets, &Device::Cpu)?.to_dtype(logits.dtype())?)
    }
}

impl Classifier for Raised<'_> {
    fn n_classes(&self) -> usize {
        10
    }

    fn device(&self) -> &Device {
        self.network.device()
    }

    fn dtype(&self) -> DType {
        self.network.dtype()
    }

    fn logits(&self, images: &Tensor) -> certify::Result<Tensor> {
        Ok(self.raised(&self.network.logits(images)?)?)
    }

    fn logits_and_input_gradient(
        &self,
        images: &Tensor,
        objective: &Objective<'_>,
    ) -> certify::Result<(Tensor, Tensor)> {
        let raised = |logits: &Tensor| objective(&self.raised(logits)?);
        let (logits, gradient) = self.network.logits_and_input_gradient(images, &raised)?;
        Ok((self.raised(&logits)?, gradient))
    }
}

/// The last iterates of an attack, image by image.
fn last_iterates(attack: &dyn TracedAttack, tensors: &Tensors, dtype: DType) -> Vec<Vec<f64>> {
    let network = small(tensors, dtype);
    let images = tensors["input"].to_dtype(dtype).unwrap();
    let iterate = |(i, &label): (usize, &usize)| {
        let raised = Raised { network: &network, label };
        let image = images.narrow(0, i, 1).unwrap();
        let run = attack.run_traced(
            AttackTarget::new(&raised, &image, &[label]),
            Replay::default(),
            &mut |_| {},
        );
        let [trace] = &run.unwrap().1[..] else { panic!("image {i} is not right") };
        trace.best.clone()
    };
    labels(tensors).iter().enumerate().map(iterate).collect()
}

fn difference(iterates: &[Vec<f64>], expected: &Tensor) -> f64 {
    let pairs = iterates.iter().flatten().zip(rows(expected).into_iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn attacks_match_in_f64_and_f32() {
    let tensors = tensors();
    for dtype in [DType::F64, DType::F32] {
        let fgsm = Fgsm { batch_size: 4, ..Fgsm::paper(0.5) };
        let attacks: [(&dyn TracedAttack, &str); 2] =
            [(&fgsm, "fgsm_eps0.5_f64"), (&golden_pgd(8, 0.1), "pgd_eps0.5_alpha0.1_steps8_f64")];
        for (attack, expected) in attacks {
            let iterates = last_iterates(attack, &tensors, dtype);
            let difference = difference(&iterates, &tensors[expected]);
            assert!(difference < tolerance(dtype), "{expected} {dtype:?}: {difference}");
        }
    }
}

#[test]
fn carlini_wagner_is_what_the_reference_climbs() {
    // cross-entropy must lead elsewhere, or the loss setting is ignored
    let tensors = tensors();
    let pgd = Pgd { loss: Loss::CrossEntropy, ..golden_pgd(8, 0.1) };
    let iterates = last_iterates(&pgd, &tensors, DType::F64);
    assert!(difference(&iterates, &tensors["pgd_eps0.5_alpha0.1_steps8_f64"]) > 1e-4);
}

#[test]
fn margins_and_radii_match() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/layers.npz");
    let mut npz = NpzReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let logits: ndarray::Array2<f64> = npz.by_name("logits").unwrap();
    let labels: ndarray::Array1<i64> = npz.by_name("labels").unwrap();
    let margin: ndarray::Array1<f64> = npz.by_name("margin").unwrap();
    let radius: ndarray::Array1<f64> = npz.by_name("radius_l1").unwrap();
    let labels: Vec<usize> = labels.iter().map(|&t| t as usize).collect();
    let logits =
        Tensor::from_vec(logits.iter().copied().collect(), logits.dim(), &Device::Cpu).unwrap();
    let close = |a: &[f64], b: &ndarray::Array1<f64>| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-10, "{a} {b}"));
    };
    close(&margins(&logits, &labels).unwrap(), &margin);
    close(&nominal_radii(&logits, &labels, 1.0).unwrap(), &radius);
}

#[test]
fn the_price_of_rigour_on_an_orthogonal_network_is_small() {
    let tensors = tensors();
    let network = small(&tensors, DType::F32);
    let certifier = Certifier::new(&network).unwrap();
    // four layers, orthogonal up to the rounding of their f32 entries
    assert!((1.0..1.0 + 1e-5).contains(&certifier.bounds().lipschitz()));
    let labels: Vec<usize> =
        rows(&tensors["output_f64"]).iter().map(|row| certify::predicted_class(row)).collect();
    let c = certifier.certify(&tensors["input"], &labels).unwrap();
    for i in 0..labels.len() {
        let (nominal, real) = (c.nominal[i], c.real[i]);
        assert!(real > 0.0 && (real / nominal - 1.0).abs() < 1e-5, "{real} {nominal}");
        for accurate in [Arithmetic::F32AccumulateF64, Arithmetic::F64] {
            let lost = real - c.executed[&accurate][i];
            assert!((0.0..1e-5).contains(&lost), "{}: {lost}", accurate.name());
        }
        let [lost, blocked] =
            [Arithmetic::F32, Arithmetic::F32Blocked].map(|a| real - c.executed[&a][i]);
        assert!(lost > 0.0 && lost < 2e-2, "f32: {lost}");
        assert!(blocked > 0.0 && blocked <= lost, "f32: {lost}, in blocks: {blocked}");
    }
}
