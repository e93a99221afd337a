//! Last layers with rows of norm 1: values, extremes, errors, and training with every optimiser and average.

use candle_core::{DType, Device, Tensor};
use lipconv::{
    Error, ImageShape, LayerSpec, LinearMethod, Methods, Network, NetworkSpec, Sizes, Trainer, ops,
};

use crate::support::{Stripes, eps, uniform, values};
use crate::training::config;

const CPU: Device = Device::Cpu;

pub(crate) fn spec() -> NetworkSpec {
    let small = NetworkSpec::small(ImageShape::new(1, 8, 8), 4, Methods::BCOP);
    small.with_head(LinearMethod::Lln).unwrap()
}

fn weight(parameter: &Tensor) -> lipconv::Result<Tensor> {
    let (rows, columns) = parameter.dims2()?;
    let weight = ops::weight(LinearMethod::Lln, &Sizes::dense(rows, columns), parameter, None)?;
    Ok(weight.weight)
}

#[test]
fn rows_have_norm_one_whatever_their_size() {
    for (dtype, sizes) in [(DType::F32, [1e-30, 1.0, 1e30]), (DType::F64, [1e-200, 1.0, 1e200])] {
        for size in sizes {
            let parameter = (uniform(&[5, 9], -1.0, 1.0, dtype, 3) * size).unwrap();
            let weight = weight(&parameter).unwrap();
            let pairs = values(&weight).into_iter().zip(values(&parameter)).collect::<Vec<_>>();
            for row in pairs.chunks(9) {
                let norm = row.iter().map(|(w, _)| w * w).sum::<f64>().sqrt();
                assert!((norm - 1.0).abs() <= 8.0 * eps(dtype), "{dtype:?} {size:e}: {norm}");
                let length = row.iter().map(|(_, v)| (v / size).powi(2)).sum::<f64>().sqrt();
                for (w, v) in row {
                    assert!((w * length - v / size).abs() <= 8.0 * eps(dtype), "{w} and {v}");
                }
            }
        }
    }
}

/// Rows that point the same way: the norm of the weight is the root of their number.
#[test]
fn the_norm_of_the_whole_may_exceed_one() {
    let parameter = Tensor::ones((4, 6), DType::F64, &CPU).unwrap();
    let weight = weight(&parameter).unwrap();
    let layer = lipconv::PlainLayer::Dense(lipconv::Dense::new(weight, None).unwrap());
    let bound = layer.lipschitz_bound("head").unwrap().value();
    assert!((bound - 2.0).abs() < 1e-12, "{bound}");
}

#[test]
fn a_zero_row_is_named() {
    let parameter = Tensor::new(&[[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]], &CPU).unwrap();
    let error = weight(&parameter).unwrap_err().to_string();
    let expected =
        "lln.weight has the zero row 1, expected nonzero rows: each is divided by its norm";
    assert!(error.contains(expected), "{error}");
    for portable in [false, true] {
        let network = Network::new(&spec(), DType::F32, &CPU, 7).unwrap();
        let (_, head) =
            network.variables().into_iter().find(|(n, _)| n == "linear2.weight").unwrap();
        head.set(&head.zeros_like().unwrap()).unwrap();
        assert!(matches!(network.materialize(), Err(Error::ZeroRow { row: 0, .. })));
        let mut trainer = match portable {
            true => Trainer::portable(network, config(1)).unwrap(),
            false => Trainer::new(network, config(1)).unwrap(),
        };
        let mut source = Stripes::new([1, 8, 8], 4, 6, DType::F32);
        let batch = lipconv::BatchSource::batch(&mut source, 0).unwrap();
        let Err(Error::Step { step: 1, source }) = trainer.step(&batch, 5) else {
            panic!("a step with a zero row succeeded");
        };
        let fits = match *source {
            Error::ZeroRow { ref layer, row: 0 } => !portable && layer == "linear2",
            Error::NonFiniteSomewhere { ref what } => portable && what == "logits",
            _ => false,
        };
        assert!(fits, "{source}");
    }
}

#[test]
fn the_last_layer_is_the_only_one_that_changes() {
    let (plain, headed) = (NetworkSpec::small(ImageShape::new(1, 8, 8), 4, Methods::BCOP), spec());
    let n = plain.layers.len();
    assert_eq!(plain.layers[..n - 1], headed.layers[..n - 1]);
    let expected = LayerSpec::Linear { out_features: 4, method: LinearMethod::Lln };
    assert_eq!(headed.layers[n - 1], expected);
}
