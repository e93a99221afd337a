//! Last layers with rows of norm 1: values, extremes, errors, and training with every optimiser and average.

use candle_core::{DType, Device, Tensor};
use lipconv::{
    Activation, Averaging, BatchSource, CrossEntropy, Error, ImageShape, LayerSpec, LinearMethod,
    Loss, Methods, NAdamConfig, Network, NetworkSpec, Optimizer, Schedule, Sizes, TrainConfig,
    Trainer, TrainingRadius, ops,
};

use crate::checkpoints::SaveAndStop;
use crate::support::{Stripes, check_close, eps, uniform, values};
use crate::training::{config, stripes};

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
        let trainer = match portable {
            true => Trainer::portable(network, config(1)).unwrap(),
            false => Trainer::new(network, config(1)).unwrap(),
        };
        let mut trainer = trainer.epochs_of(5).unwrap();
        let mut source = Stripes::new([1, 8, 8], 4, 6, DType::F32);
        let batch = source.batch(0).unwrap();
        let Err(Error::Step { step: 1, source }) = trainer.step(&batch) else {
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

/// Three epochs of today's recipe.
fn recipe(averaging: Averaging, radius: Option<TrainingRadius>) -> TrainConfig {
    let loss = CrossEntropy { radius, ..CrossEntropy::for_radius(0.2, 0.25) };
    TrainConfig {
        epochs: 3,
        schedule: Schedule::Cosine { warm_up: 0.2 },
        optimizer: Optimizer::NAdam(NAdamConfig::default()),
        averaging,
        loss: Loss::CrossEntropy(loss),
        ..config(3)
    }
}

fn recipes() -> [TrainConfig; 3] {
    let rising = TrainingRadius { start: 0.1, end: 0.4 };
    [
        recipe(Averaging::Exponential { decay: 0.9 }, None),
        recipe(Averaging::Lookahead { period: 4, rate: 0.5 }, None),
        recipe(Averaging::Exponential { decay: 0.9 }, Some(rising)),
    ]
}

fn trainer(config: TrainConfig, dtype: DType) -> Trainer {
    let trainer = Trainer::new(Network::new(&spec(), dtype, &CPU, 7).unwrap(), config);
    trainer.and_then(|trainer| trainer.epochs_of(5)).unwrap()
}

fn bits(network: &Network) -> Vec<u64> {
    network.variables().iter().flat_map(|(_, v)| values(v.as_tensor())).map(f64::to_bits).collect()
}

#[test]
fn a_resumed_run_ends_with_the_bits_of_parameters_and_average() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in [DType::F32, DType::F64] {
        for config in recipes() {
            let mut whole = trainer(config, dtype);
            assert!(bits(&whole.averaged_network().unwrap()) == bits(whole.network()));
            whole.fit(&mut stripes(dtype), &mut ()).unwrap();
            let average = whole.averaged_network().unwrap();
            assert!(bits(&average) != bits(whole.network()), "{config:?}: the average is the last");
            for after in [7, 10] {
                let path = folder.path().join("run.safetensors");
                let mut stop = SaveAndStop { after, path: path.clone() };
                trainer(config, dtype).fit(&mut stripes(dtype), &mut stop).unwrap();
                let mut resumed = Trainer::resume(&path, &CPU).unwrap();
                resumed.fit(&mut stripes(dtype), &mut ()).unwrap();
                let same = bits(resumed.network()) == bits(whole.network());
                assert!(same, "{config:?} {after}: parameters");
                let again = resumed.averaged_network().unwrap();
                assert!(bits(&again) == bits(&average), "{config:?} {after}: average");
            }
        }
    }
}

/// The last layer's rows keep norm 1, and the recipe learns.
#[test]
fn recipes_train_alike_on_the_engine_and_in_tensor_operations() {
    for config in recipes() {
        let mut engine = trainer(config, DType::F64);
        let mut portable = trainer(config, DType::F64).into_portable().unwrap();
        let mut source = stripes(DType::F64);
        source.start_epoch(0, 11);
        let mut losses = Vec::new();
        for n in 0..15 {
            let batch = source.batch(n % 5).unwrap();
            let (a, b) = (engine.step(&batch).unwrap(), portable.step(&batch).unwrap());
            assert!((a.loss - b.loss).abs() < 1e-6, "{config:?}: {a:?} and {b:?}");
            losses.push(a.loss);
        }
        assert!(losses[10..].iter().sum::<f64>() < losses[..5].iter().sum(), "{losses:?}");
        let pairs = [
            (engine.network().variables(), portable.network().variables()),
            (
                engine.averaged_network().unwrap().variables(),
                portable.averaged_network().unwrap().variables(),
            ),
        ];
        for ((name, a), (_, b)) in pairs.iter().flat_map(|(a, b)| a.iter().zip(b)) {
            check_close(&format!("{config:?} {name}"), a.as_tensor(), b.as_tensor(), 1e-6);
        }
    }
}

#[test]
fn a_loss_of_the_last_rows_needs_a_last_dense_layer() {
    let [_, _, config] = recipes();
    let mut spec = spec();
    spec.layers.push(LayerSpec::Activation(Activation::MaxMin));
    let network = Network::new(&spec, DType::F32, &CPU, 7).unwrap();
    assert!(matches!(Trainer::new(network, config), Err(Error::NoLastWeight)));
}
