//! Every refused input names the thing, its value and what was expected.

use candle_core::{DType, Device, Tensor};
use lipconv::{
    Activation, AdamConfig, Batch, ConvMethod, CyclicConv, Dense, Error, ImageShape, LayerSpec,
    LinearMethod, Loss, Methods, NAdamConfig, Network, NetworkSpec, Optimizer, PlainLayer,
    PlainNetwork, RmsPropConfig, Schedule, Sizes, TrainConfig, Trainer, ops,
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
        network(image, vec![conv(3, 3, 1), LayerSpec::Activation(Activation::MaxMin)]),
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
    says(network(image, vec![]), "number of layers is 0, expected at least 1");
    says(
        network(ImageShape::new(0, 6, 6), vec![LayerSpec::Flatten, LINEAR]),
        "image size is 0, expected at least 1",
    );
}

#[test]
fn sizes_that_a_few_bytes_can_describe_and_no_memory_can_hold() {
    let flat = |input| network(input, vec![LayerSpec::Flatten, LINEAR]);
    says(
        flat(ImageShape::new(1, 8192, 8192)),
        "an image has 67108864 values, expected at most 4194304",
    );
    says(
        flat(ImageShape::new(1 << 40, 1 << 40, 1 << 40)),
        "an image has 18446744073709551615 values, expected at most 4194304",
    );
    says(
        network(ImageShape::new(1, 64, 64), vec![conv(1 << 60, 2, 2)]),
        "the output of conv1 has 18446744073709551615 values, expected at most 4194304",
    );
    let kernel = PlainLayer::CyclicConv(CyclicConv::new(zeros(&[1, 1, 5, 5]), None, 1).unwrap());
    says(
        PlainNetwork::new(ImageShape::new(1, 8192, 8192), vec![kernel, PlainLayer::Flatten]),
        "an image has 67108864 values, expected at most 4194304",
    );
}

#[test]
fn tensors_that_do_not_fit() {
    says(
        Activation::MaxMin.forward(&zeros(&[1, 3, 2, 2])),
        "maxmin: 3 channels do not divide into groups of 2",
    );
    says(
        Activation::GroupSort { group: 0 }.forward(&zeros(&[1, 3])),
        "groupsort: 3 channels do not divide into groups of 0",
    );
    says(
        CyclicConv::new(zeros(&[2, 2, 3, 2]), None, 1),
        "conv weight has shape [2, 2, 3, 2], expected [any, any, 3, 3]",
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
    let trainer = self::trainer(DType::F32, 1);
    let batch = |pixel: f32, label: u32| Batch {
        images: zeros(&[1, 1, 8, 8]).affine(1.0, f64::from(pixel)).unwrap(),
        labels: vec![label],
    };
    let before: Vec<f32> =
        trainer.network().variables()[0].1.flatten_all().unwrap().to_vec1().unwrap();
    let mut untold = self::trainer(DType::F32, 1);
    says(untold.step(&batch(0.5, 1)), "number of batches in an epoch is 0, expected at least 1");
    let mut trainer = trainer.epochs_of(5).unwrap();
    says(trainer.step(&batch(0.5, 4)), "label 4 at index 0 is not a class: expected 0 … 3");
    says(
        trainer.step(&batch(f32::NAN, 1)),
        "step 1: logits holds NaN at flat index 0, expected finite numbers",
    );
    let f64s =
        Batch { images: Tensor::zeros((1, 1, 8, 8), DType::F64, &CPU).unwrap(), labels: vec![1] };
    says(trainer.step(&f64s), "batch of images has dtype f64, expected f32");
    let two = Batch { images: zeros(&[2, 1, 8, 8]), labels: vec![1] };
    says(trainer.step(&two), "batch of images has shape [2, 1, 8, 8], expected [1, 1, 8, 8]");
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

/// A step whose logits are finite and whose gradient is not: large pixels, small weights.
#[test]
fn a_gradient_that_overflows_stops_the_step_and_changes_nothing() {
    let conv =
        LayerSpec::Conv { c_out: 2, kernel_size: 1, stride: 1, method: ConvMethod::Unconstrained };
    let linear = LayerSpec::Linear { out_features: 2, method: LinearMethod::Unconstrained };
    let ossn = LayerSpec::Conv { c_out: 2, kernel_size: 1, stride: 1, method: ConvMethod::Ossn };
    let layers = vec![conv, ossn, LayerSpec::Flatten, linear];
    let network = network(ImageShape::new(1, 4, 4), layers).unwrap();
    let (_, weight) = &network.variables()[0];
    weight.set(&(weight.as_tensor() * 1e-38).unwrap()).unwrap();
    // all pixels pull the same way
    let (_, weight) = &network.variables()[4];
    let signs = Tensor::new(&[[1.0_f32], [-1.0]], &CPU).unwrap();
    weight.set(&signs.broadcast_as(weight.shape()).unwrap().contiguous().unwrap()).unwrap();
    let mut trainer = Trainer::new(network, config(1)).unwrap().epochs_of(5).unwrap();
    let before = state(&trainer);
    let pixel = f64::from(f32::MAX) / 2.0;
    let images = zeros(&[8, 1, 4, 4]).affine(1.0, pixel).unwrap();
    let batch = Batch { images, labels: vec![0, 1, 0, 1, 0, 1, 0, 1] };
    let error = trainer.step(&batch).unwrap_err();
    let Error::Step { step: 1, source } = &error else { panic!("{error}") };
    assert!(matches!(&**source, Error::NonFinite { .. }), "{error}");
    let text = error.to_string();
    let (start, end) =
        ("step 1: gradient of conv1.weight holds ", " at flat index 0, expected finite numbers");
    assert!(text.starts_with(start) && text.ends_with(end), "{text}");
    assert_eq!((state(&trainer), trainer.n_steps()), (before, 0), "a refused step changes nothing");
}

/// Everything that a checkpoint of the run would hold.
fn state(trainer: &Trainer) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    trainer.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_start_without_full_rank_is_refused_with_its_step_and_layer() {
    let cases = [
        (ConvMethod::Rko, "step 1: conv1: "),
        (ConvMethod::Bcop, "step 1: conv1: parameter matrix 0 of "),
        (
            ConvMethod::RkL2ne,
            "step 1: conv1.weight is zero, expected a nonzero value: it is divided by its norm",
        ),
    ];
    for (method, start) in cases {
        let conv = LayerSpec::Conv { c_out: 2, kernel_size: 3, stride: 1, method };
        let layers = vec![conv, LayerSpec::Flatten, LINEAR];
        let network = network(ImageShape::new(1, 6, 6), layers).unwrap();
        let (_, weight) = &network.variables()[0];
        weight.set(&weight.zeros_like().unwrap()).unwrap();
        let mut trainer = Trainer::new(network, config(1)).unwrap().epochs_of(5).unwrap();
        let images = zeros(&[1, 1, 6, 6]);
        let error = trainer.step(&Batch { images, labels: vec![1] }).unwrap_err().to_string();
        assert!(error.starts_with(start), "{method:?}: {error}");
        // materialising says the same without a step
        let error = trainer.network().materialize().unwrap_err().to_string();
        assert!(error.starts_with(&start["step 1: ".len()..]), "{method:?}: {error}");
    }
    // the zero kernel is within the unit ball: nothing to divide by
    for method in [ConvMethod::Ossn, ConvMethod::Svcm] {
        let conv = LayerSpec::Conv { c_out: 2, kernel_size: 3, stride: 1, method };
        let network =
            network(ImageShape::new(1, 6, 6), vec![conv, LayerSpec::Flatten, LINEAR]).unwrap();
        let (_, weight) = &network.variables()[0];
        weight.set(&weight.zeros_like().unwrap()).unwrap();
        assert!(network.materialize().unwrap().lipschitz_bounds().unwrap()[0].value() == 0.0);
    }
}

/// Two devices need a machine that has them; the text does not.
#[test]
fn a_device_mismatch_names_both_devices() {
    let (expected, got) = ("Cuda { gpu_id: 0 }".to_owned(), "Cpu".to_owned());
    says::<()>(
        Err(Error::DeviceMismatch { what: "batch of images".into(), expected, got }),
        "batch of images is on Cpu, expected Cuda { gpu_id: 0 }; move it with to_device",
    );
}

#[test]
fn weight_operations_refuse_what_does_not_fit() {
    let image = (4, 4);
    let of = |method: ConvMethod, sizes: Sizes, parameter: &Tensor| {
        ops::weight(method, &sizes, parameter, None)
    };
    says(
        of(ConvMethod::Bcop, Sizes::conv(4, 2, 2, image), &zeros(&[3, 4, 5])),
        "BCOP parameter has shape [3, 4, 5], expected [3, 4, 4]",
    );
    says(
        ops::weight(LinearMethod::Bjorck, &Sizes::dense(3, 2), &zeros(&[3]), None),
        "Björck parameter has shape [3], expected [3, 2]",
    );
    says(
        of(ConvMethod::Rko, Sizes::conv(2, 2, 3, image), &zeros(&[2, 2, 3, 2])),
        "RKO parameter has shape [2, 2, 3, 2], expected [2, 2, 3, 3]",
    );
    says(
        of(ConvMethod::RkL2ne, Sizes::conv(2, 0, 1, image), &zeros(&[2, 0, 1, 1])),
        "RK-L2NE: a size of the weight is 0, expected at least 1",
    );
    let (weight, sizes) = (zeros(&[2, 3, 3, 3]), Sizes::conv(2, 3, 3, image));
    let ossn = |sizes: Sizes, weight: &Tensor, vector: &Tensor| {
        ops::weight(ConvMethod::Ossn, &sizes, weight, Some(vector))
    };
    says(of(ConvMethod::Ossn, sizes, &weight), "OSSN vector has shape [], expected [3, 4, 4]");
    says(
        ossn(sizes, &weight, &zeros(&[2, 4, 4])),
        "OSSN vector has shape [2, 4, 4], expected [3, 4, 4]",
    );
    says(
        ossn(Sizes::conv(2, 3, 3, (4, 2)), &weight, &zeros(&[3, 4, 2])),
        "OSSN: a 3 x 3 kernel exceeds its 4 x 2 image; a cyclic convolution needs an image at least as \
         large as the kernel",
    );
    let vector = Tensor::zeros((3, 4, 4), DType::F64, &CPU).unwrap();
    says(ossn(sizes, &weight, &vector), "OSSN vector has dtype f64, expected f32");
    let huge = weight.affine(0.0, 1e38).unwrap();
    let vector = zeros(&[3, 4, 4]).affine(0.0, 1.0).unwrap();
    let overflow = ossn(sizes, &huge, &vector).unwrap_err().to_string();
    assert!(overflow.contains("ossn: the estimated norm holds "), "{overflow}");
    let zero = of(ConvMethod::RkL2ne, sizes, &weight).unwrap_err().to_string();
    assert!(zero.contains("rk-l2ne.weight is zero, expected a nonzero value"), "{zero}");
}

#[test]
fn unknown_methods_are_refused_with_the_known_ones() {
    let error = "none".parse::<ConvMethod>().unwrap_err().to_string();
    let text =
        "unknown method of a convolution `none`, expected one of `bcop`, `bcop-fixed`, `rko`, ";
    assert!(error.starts_with(text), "{error}");
    let error = serde_json::from_str::<LinearMethod>("\"bcop\"").unwrap_err().to_string();
    assert!(
        error.starts_with("unknown method of a dense layer `bcop`, expected one of `bjorck`"),
        "{error}"
    );
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
        |c| c.schedule = Schedule::Cosine { warm_up: 1.0 },
        "warm_up is 1, expected a number in [0, 1)",
    );
    says_of(
        |c| {
            let settings = NAdamConfig { momentum_decay: f64::NAN, ..NAdamConfig::default() };
            c.optimizer = Optimizer::NAdam(settings);
        },
        "momentum_decay is NaN, expected a number of at least 0",
    );
    says_of(
        |c| c.loss = Loss::MultiClassHinge { margin: -1.0 },
        "margin is -1, expected a positive number",
    );
    says(
        NetworkSpec::large(ImageShape::new(3, 32, 32), 10, Methods::BCOP, 0.03),
        "width is 0.03, expected a positive factor that leaves every width an even whole number",
    );
    let mut without_head = small_spec();
    without_head.layers.push(LayerSpec::Activation(Activation::MaxMin));
    says(
        without_head.with_head(LinearMethod::Lln),
        "last layer is Activation(MaxMin), expected a dense layer",
    );
    let network = Network::new(&small_spec(), DType::F16, &CPU, 0);
    says(network, "dtype is f16, expected f32 or f64");
    let network = Network::new(&small_spec(), DType::F32, &CPU, 0).unwrap();
    says(
        Trainer::new(network, TrainConfig { epochs: 0, ..config(1) }),
        "epochs is 0, expected at least 1",
    );
}
