//! Every refused input names the thing, its value and what was expected.

use candle_core::{DType, Device, Tensor};
use lipconv::{
    AdamConfig, Batch, CyclicConv, Dense, Error, ImageShape, LayerSpec, LinearMethod, Loss,
    Methods, Network, NetworkSpec, Optimizer, PlainLayer, PlainNetwork, RmsPropConfig, Schedule,
    TrainConfig, Trainer, ops,
};

use crate::training::{config, small_spec, trainer};

const CPU: Device = Device::Cpu;

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &CPU).unwrap()
}

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, Error>, text: &str) {
    let error = result.unwrap_err().to_string();
    assert_eq!(error, text);
}

fn network(input: ImageShape, layers: Vec<LayerSpec>) -> Result<Network, Error> {
    Network::new(&NetworkSpec { input, layers }, DType::F32, &CPU, 0)
}

fn conv(c_out: usize, kernel_size: usize, stride: usize) -> LayerSpec {
    LayerSpec::Conv { c_out, kernel_size, stride, method: Methods::BCOP.conv }
}

const LINEAR: LayerSpec = LayerSpec::Linear { out_features: 2, method: LinearMethod::Bjorck };

#[test]
fn layers_that_do_not_fit() {
    let image = ImageShape::new(1, 6, 6);
    says(
        network(image, vec![conv(2, 7, 1)]),
        "conv1: a 7 x 7 kernel exceeds its 6 x 6 image; a cyclic convolution needs an image at least as \
         large as the kernel",
    );
    says(
        network(image, vec![conv(2, 4, 4)]),
        "conv1: image height 6 is not divisible by the stride 4",
    );
    says(
        network(image, vec![conv(2, 3, 2)]),
        "conv1: kernel size 3 is not divisible by the stride 2",
    );
    says(network(image, vec![conv(0, 3, 1)]), "conv1: c_out is 0, expected at least 1");
    says(network(image, vec![conv(2, 3, 0)]), "conv1: stride is 0, expected at least 1");
    says(
        network(image, vec![conv(3, 3, 1), LayerSpec::MaxMin]),
        "maxmin: 3 channels do not divide into groups of 2",
    );
    says(
        network(image, vec![LINEAR]),
        "linear1 cannot follow an image: a dense layer needs a vector; put flatten before it",
    );
    says(
        network(image, vec![LayerSpec::Flatten, conv(2, 3, 1)]),
        "conv1 cannot follow a vector: a convolution needs an image",
    );
    says(
        network(image, vec![conv(2, 3, 1)]),
        "the output cannot follow an image: a network ends with a vector of logits",
    );
    says(
        network(ImageShape::new(0, 6, 6), vec![LayerSpec::Flatten, LINEAR]),
        "image size is 0, expected at least 1",
    );
}

#[test]
fn tensors_that_do_not_fit() {
    says(ops::max_min(&zeros(&[1, 3, 2, 2])), "max_min: 3 channels do not divide into groups of 2");
    says(
        ops::group_sort(&zeros(&[1, 3]), 0),
        "group_sort: 3 channels do not divide into groups of 0",
    );
    says(
        CyclicConv::new(zeros(&[2, 2, 3, 2]), None, 1),
        "conv weight has shape [2, 2, 3, 2], expected [0, 0, 3, 3]",
    );
    says(Dense::new(zeros(&[2, 3]), Some(zeros(&[3]))), "dense bias has shape [3], expected [2]");
    let bias = Tensor::zeros(2, DType::F64, &CPU).unwrap();
    says(Dense::new(zeros(&[2, 3]), Some(bias)), "dense bias has dtype f64, expected f32");
    let plain = trainer(DType::F32, 1).network().materialize().unwrap();
    says(
        plain.forward(&zeros(&[2, 1, 8, 7])),
        "batch of images has shape [2, 1, 8, 7], expected [2, 1, 8, 8]",
    );
    let f64s = Tensor::zeros((2, 1, 8, 8), DType::F64, &CPU).unwrap();
    says(plain.forward(&f64s), "batch of images has dtype f64, expected f32");
    let dense = PlainLayer::Dense(Dense::new(zeros(&[2, 3]), None).unwrap());
    says(
        PlainNetwork::new(ImageShape::new(1, 2, 2), vec![PlainLayer::Flatten, dense]).map(|_| ()),
        "linear1.weight has shape [2, 3], expected [2, 4]",
    );
    says(
        PlainNetwork::new(ImageShape::new(1, 2, 2), vec![PlainLayer::Flatten]).map(|_| ()),
        "number of layers with weights is 0, expected at least 1",
    );
}

#[test]
fn training_input_that_does_not_fit() {
    let mut trainer = trainer(DType::F32, 1);
    let batch = |pixel: f32, label: u32| Batch {
        images: zeros(&[1, 1, 8, 8]).affine(1.0, f64::from(pixel)).unwrap(),
        labels: vec![label],
    };
    let before: Vec<f32> =
        trainer.network().variables()[0].1.flatten_all().unwrap().to_vec1().unwrap();
    says(trainer.step(&batch(0.5, 4), 5), "label 4 at index 0 is not a class: expected 0 … 3");
    says(
        trainer.step(&batch(f32::NAN, 1), 5),
        "step 1: logits holds NaN at flat index 0, expected finite numbers",
    );
    let after: Vec<f32> =
        trainer.network().variables()[0].1.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!((before, trainer.n_steps()), (after, 0), "a refused step changes nothing");
}

#[test]
fn a_rank_deficient_or_nan_weight_names_its_layer() {
    for value in [0.0, f64::NAN] {
        let network = Network::new(&small_spec(), DType::F32, &CPU, 0).unwrap();
        let (name, weight) = &network.variables()[4];
        assert_eq!(name, "linear1.weight");
        weight.set(&weight.zeros_like().unwrap().affine(1.0, value).unwrap()).unwrap();
        let text = network.materialize().unwrap_err().to_string();
        assert!(text.starts_with("linear1: "), "{text}");
    }
}

#[test]
fn settings_outside_their_domain() {
    let says_of = |change: fn(&mut TrainConfig), text: &str| {
        let mut settings = config(1);
        change(&mut settings);
        says(settings.validate(), text);
    };
    says_of(|c| c.epochs = 0, "epochs is 0, expected at least 1");
    says_of(|c| c.learning_rate = f64::NAN, "learning_rate is NaN, expected a positive number");
    says_of(
        |c| c.optimizer = Optimizer::Adam(AdamConfig { beta1: 1.0, ..AdamConfig::default() }),
        "beta1 is 1, expected a number in [0, 1)",
    );
    says_of(
        |c| c.optimizer = Optimizer::RmsProp(RmsPropConfig { alpha: -0.5, epsilon: 1e-8 }),
        "alpha is -0.5, expected a number in [0, 1)",
    );
    says_of(
        |c| c.optimizer = Optimizer::RmsProp(RmsPropConfig { alpha: 0.5, epsilon: 0.0 }),
        "epsilon is 0, expected a positive number",
    );
    says_of(
        |c| c.schedule = Schedule::Exponential { gamma: 0.0 },
        "gamma is 0, expected a number in (0, 1]",
    );
    says_of(
        |c| c.loss = Loss::MultiClassHinge { margin: -1.0 },
        "margin is -1, expected a positive number",
    );
    says(
        NetworkSpec::large(ImageShape::new(3, 32, 32), 10, Methods::BCOP, 0.03),
        "width is 0.03, expected a positive factor that leaves every width an even whole number",
    );
    says(
        small_spec().with_activation(LayerSpec::Flatten),
        "activation is flatten, expected maxmin, groupsort or relu",
    );
    let network = Network::new(&small_spec(), DType::F16, &CPU, 0);
    says(network, "dtype is f16, expected f32 or f64");
    let network = Network::new(&small_spec(), DType::F32, &CPU, 0).unwrap();
    says(
        Trainer::new(network, TrainConfig { epochs: 0, ..config(1) }),
        "epochs is 0, expected at least 1",
    );
}
