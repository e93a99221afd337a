//! The layers and the training step in candle's operations, against the CPU's own: one body for every device.
//!
//! The reference is always computed on the CPU. With the `cuda` feature the same checks run on the first GPU, which then has
//! to be there.

use candle_core::{DType, Device, Tensor, Var};
use lipconv::ops::{self, portable};
use lipconv::{
    Activation, AdamConfig, BatchSource, ConvMethod, Error, ImageShape, LayerSpec, LinearMethod,
    Method, Network, NetworkSpec, Optimizer, RmsPropConfig, Sizes, Trainer,
};

use crate::support::{Stripes, check_close, distance, eps, uniform};
use crate::training::config;

pub(crate) fn devices() -> Vec<Device> {
    let mut devices = vec![Device::Cpu];
    if cfg!(feature = "cuda") {
        devices.push(Device::new_cuda(0).unwrap());
    }
    devices
}

/// A function of one tensor.
type Function<'a> = &'a dyn Fn(&Tensor) -> Tensor;

/// Values and gradients of two functions that are to be the same, the first on `device`, the second on the CPU.
#[track_caller]
fn check(what: &str, device: &Device, x: &Tensor, portable: Function<'_>, reference: Function<'_>) {
    let evaluate = |x: &Tensor, f: Function<'_>| {
        let x = Var::from_tensor(x).unwrap();
        let y = f(x.as_tensor());
        let cotangent = uniform(y.dims(), -1.0, 1.0, y.dtype(), 77).to_device(y.device()).unwrap();
        let gradients = (&y * cotangent).unwrap().sum_all().unwrap().backward().unwrap();
        let host = |t: &Tensor| t.to_device(&Device::Cpu).unwrap();
        (host(&y), host(gradients.get(x.as_tensor()).unwrap()))
    };
    let (y, dx) = evaluate(&x.to_device(device).unwrap(), portable);
    let (expected, d_expected) = evaluate(x, reference);
    // values of size one, conditioned like a random square matrix
    let allowed = 4000.0 * eps(x.dtype());
    check_close(&format!("{what} on {device:?}"), &y, &expected, allowed);
    let scale = distance(&d_expected, &d_expected.zeros_like().unwrap()).max(1.0);
    check_close(
        &format!("gradient, {what} on {device:?}"),
        &dx,
        &d_expected,
        10.0 * allowed * scale,
    );
}

/// Output channels, input channels, kernel size.
const KERNELS: [(usize, usize, usize); 8] =
    [(1, 1, 1), (3, 3, 1), (4, 4, 2), (3, 5, 3), (6, 4, 3), (2, 7, 4), (5, 2, 2), (4, 4, 5)];

/// Nearly orthogonal matrices, so that nothing is ill-conditioned: the identity and some noise.
fn near_identity(shape: &[usize], dtype: DType) -> Tensor {
    let (rows, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    let noise = uniform(shape, -0.3, 0.3, dtype, 3);
    let eye = Tensor::eye(rows.max(columns), dtype, &Device::Cpu).unwrap();
    let eye = eye.narrow(0, 0, rows).unwrap().narrow(1, 0, columns).unwrap();
    noise.broadcast_add(&eye).unwrap()
}

#[test]
fn weights_equal_those_of_the_cpu() {
    let kernels = KERNELS.map(|(c_out, c_in, k)| Sizes::conv(c_out, c_in, k, (6, 5)));
    for (method, sizes) in ConvMethod::ALL.iter().flat_map(|m| kernels.map(|s| (*m, s))) {
        check_weights(method.into(), &sizes);
    }
    let matrices = [(1, 1), (1, 4), (3, 3), (4, 9), (9, 4)].map(|(o, i)| Sizes::dense(o, i));
    for (method, sizes) in LinearMethod::ALL.iter().flat_map(|m| matrices.map(|s| (*m, s))) {
        check_weights(method.into(), &sizes);
    }
}

/// A method's weight, its gradient and its next vector, inside and outside of the unit ball.
#[track_caller]
fn check_weights(method: Method, sizes: &Sizes) {
    for (device, dtype) in devices().iter().flat_map(|d| [(d, DType::F64), (d, DType::F32)]) {
        let case = format!("{method:?} {sizes:?} {dtype:?}");
        let shape = method.parameter_shape(sizes);
        // a stack of matrices, or the reshape of one
        let matrices = match shape.len() {
            3 => near_identity(&shape, dtype),
            _ => near_identity(&[shape[0], shape[1..].iter().product()], dtype),
        };
        let parameter = matrices.reshape(shape).unwrap();
        let vector = method.vector_shape(sizes).map(|s| uniform(&s, -1.0, 1.0, dtype, 9));
        let on_device = vector.as_ref().map(|v| v.to_device(device).unwrap());
        let portable = |x: &Tensor| portable::weight(method, sizes, x, on_device.as_ref()).unwrap();
        let reference = |x: &Tensor| ops::weight(method, sizes, x, vector.as_ref()).unwrap();
        for scale in [0.1, 1.0, 3.0] {
            let parameter = (&parameter * scale).unwrap();
            let what = format!("{case} scale {scale}");
            check(&what, device, &parameter, &|x| portable(x).weight, &|x| reference(x).weight);
            if !device.is_cpu() {
                let own = |x: &Tensor| ops::weight(method, sizes, x, on_device.as_ref()).unwrap();
                let what = format!("{what}, the engine's");
                check(&what, device, &parameter, &|x| own(x).weight, &|x| reference(x).weight);
            }
            let next = portable(&parameter.to_device(device).unwrap()).vector;
            let expected = reference(&parameter).vector;
            assert_eq!(next.is_some(), expected.is_some(), "{what}");
            if let (Some(next), Some(expected)) = (next, expected) {
                let next = next.to_device(&Device::Cpu).unwrap();
                check_close(&format!("vector, {what}"), &next, &expected, 4000.0 * eps(dtype));
            }
        }
    }
}

#[test]
fn polar_factors_equal_those_of_the_cpu_and_say_when_they_are_not() {
    for device in &devices() {
        for dtype in [DType::F64, DType::F32] {
            for (rows, columns) in [(1, 1), (1, 4), (3, 3), (4, 9), (9, 4), (33, 40)] {
                check(
                    &format!("polar {rows} x {columns} {dtype:?}"),
                    device,
                    &near_identity(&[rows, columns], dtype),
                    &|x| portable::polar(x).unwrap().matrix,
                    &|x| {
                        ops::weight(LinearMethod::Bjorck, &Sizes::dense(rows, columns), x, None)
                            .unwrap()
                            .weight
                    },
                );
            }
            let defect = |w: Tensor| {
                let defect = portable::polar(&w.to_device(device).unwrap()).unwrap().defect;
                defect.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
            };
            assert!(defect(near_identity(&[2, 8, 5], dtype)) < 100.0 * eps(dtype));
            assert!(defect(Tensor::ones((3, 3), dtype, &Device::Cpu).unwrap()) > 0.5);
            assert!(defect(Tensor::zeros((3, 3), dtype, &Device::Cpu).unwrap()).is_nan());
        }
    }
}

#[test]
fn convolutions_equal_those_of_the_cpu() {
    for device in &devices() {
        for dtype in [DType::F64, DType::F32] {
            for (c_out, c_in, k) in KERNELS {
                for stride in [1, 2] {
                    let x = uniform(&[3, c_in, 12, 10], -1.0, 1.0, dtype, 1);
                    let weight =
                        uniform(&[c_out, c_in * stride * stride, k, k], -1.0, 1.0, dtype, 2);
                    let weight = (weight / (c_in * k * k) as f64).unwrap();
                    let bias = uniform(&[c_out], -1.0, 1.0, dtype, 3);
                    let on = |t: &Tensor, x: &Tensor| t.to_device(x.device()).unwrap();
                    let case = format!("conv {c_in} -> {c_out} k{k} s{stride} {dtype:?}");
                    let portable = |x: &Tensor, w: &Tensor| {
                        portable::cyclic_conv(x, w, Some(&on(&bias, x)), stride).unwrap()
                    };
                    let reference = |x: &Tensor, w: &Tensor| {
                        ops::cyclic_conv(x, w, Some(&bias), stride).unwrap()
                    };
                    check(&case, device, &x, &|x| portable(x, &on(&weight, x)), &|x| {
                        reference(x, &weight)
                    });
                    check(
                        &format!("{case}, weight"),
                        device,
                        &weight,
                        &|w| portable(&on(&x, w), w),
                        &|w| reference(&x, w),
                    );
                    if device.is_cpu() {
                        continue;
                    }
                    let own = |x: &Tensor, w: &Tensor| {
                        ops::cyclic_conv(x, w, Some(&on(&bias, x)), stride).unwrap()
                    };
                    let by_kernels = format!("{case}, by kernels");
                    check(&by_kernels, device, &x, &|x| own(x, &on(&weight, x)), &|x| {
                        reference(x, &weight)
                    });
                    let by_kernels = format!("{by_kernels}, weight");
                    check(&by_kernels, device, &weight, &|w| own(&on(&x, w), w), &|w| {
                        reference(&x, w)
                    });
                }
            }
        }
    }
}

#[test]
fn activations_equal_those_of_the_cpu() {
    let activations = [Activation::MaxMin, Activation::Relu, Activation::GroupSort { group: 3 }];
    for (device, dtype) in devices().iter().flat_map(|d| [(d, DType::F64), (d, DType::F32)]) {
        for shape in [&[3, 6][..], &[1, 12, 1, 5], &[2, 6, 7, 3]] {
            let x = uniform(shape, -1.0, 1.0, dtype, 5);
            for activation in activations {
                let f = |x: &Tensor| activation.forward(x).unwrap();
                check(&format!("{activation} {shape:?} {dtype:?}"), device, &x, &f, &f);
            }
        }
    }
}

fn spec(conv: ConvMethod, linear: LinearMethod) -> NetworkSpec {
    let conv =
        |c_out, kernel_size, stride| LayerSpec::Conv { c_out, kernel_size, stride, method: conv };
    let linear = |out_features| LayerSpec::Linear { out_features, method: linear };
    NetworkSpec {
        input: ImageShape::new(1, 8, 8),
        layers: vec![
            conv(4, 3, 1),
            LayerSpec::Activation(Activation::MaxMin),
            conv(6, 4, 2),
            LayerSpec::Activation(Activation::GroupSort { group: 3 }),
            LayerSpec::Flatten,
            linear(8),
            LayerSpec::Activation(Activation::Relu),
            linear(4),
        ],
    }
}

/// Adds the same noise to both: an orthogonal start has rows of equal sums, between which RK-L2NE's gradient may choose.
pub(crate) fn perturb(networks: &[&Network], size: f64) {
    for (name, variable) in networks.iter().flat_map(|network| network.variables()) {
        let noise = uniform(variable.dims(), -size, size, variable.dtype(), name.len() as u64);
        let noise = noise.to_device(variable.device()).unwrap();
        variable.set(&(variable.as_tensor() + noise).unwrap()).unwrap();
    }
}

/// A few steps in candle's operations leave the parameters that the engine leaves.
#[test]
fn training_steps_equal_those_of_the_engine() {
    let optimizers =
        [Optimizer::Adam(AdamConfig::default()), Optimizer::RmsProp(RmsPropConfig::default())];
    for device in &devices() {
        for (method, optimizer) in ConvMethod::ALL.iter().flat_map(|&m| optimizers.map(|o| (m, o)))
        {
            let spec = spec(method, LinearMethod::Bjorck);
            let config = lipconv::TrainConfig { optimizer, learning_rate: 1e-3, ..config(1) };
            let network = |device| Network::new(&spec, DType::F64, device, 3).unwrap();
            let mut engine =
                Trainer::new(network(&Device::Cpu), config).unwrap().epochs_of(4).unwrap();
            let mut portable =
                Trainer::portable(network(device), config).unwrap().epochs_of(4).unwrap();
            let mut changed =
                Trainer::new(network(&Device::Cpu), config).unwrap().epochs_of(4).unwrap();
            perturb(&[engine.network(), portable.network(), changed.network()], 0.05);
            let mut source = Stripes::new([1, 8, 8], 4, 6, DType::F64);
            source.start_epoch(0, 11);
            for step in 0..4 {
                let mut batch = source.batch(step).unwrap();
                let expected = engine.step(&batch).unwrap();
                if step == 2 {
                    changed = changed.into_portable().unwrap();
                }
                changed.step(&batch).unwrap();
                batch.images = batch.images.to_device(device).unwrap();
                let got = portable.step(&batch).unwrap();
                assert!(
                    (got.loss - expected.loss).abs() < 1e-6,
                    "{method:?}: {got:?}, {expected:?}"
                );
                assert_eq!(got.n_correct, expected.n_correct, "{method:?}");
            }
            let pairs =
                engine.network().variables().into_iter().zip(portable.network().variables());
            for (((name, expected), (_, got)), (_, changed)) in
                pairs.zip(changed.network().variables())
            {
                let got = got.as_tensor().to_device(&Device::Cpu).unwrap();
                check_close(&format!("{method:?} {name}"), &got, expected.as_tensor(), 1e-8);
                check_close(
                    &format!("changed, {method:?} {name}"),
                    changed.as_tensor(),
                    expected.as_tensor(),
                    1e-8,
                );
            }
        }
    }
}

#[test]
fn a_portable_run_is_saved_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for device in &devices() {
        let path = folder.path().join("run.safetensors");
        let network =
            Network::new(&spec(ConvMethod::Ossn, LinearMethod::Bjorck), DType::F32, device, 3);
        let mut trainer =
            Trainer::portable(network.unwrap(), config(2)).unwrap().epochs_of(5).unwrap();
        let mut source = Stripes::new([1, 8, 8], 4, 6, DType::F32);
        source.start_epoch(0, 11);
        let mut step = |trainer: &mut Trainer, index| {
            let mut batch = source.batch(index).unwrap();
            batch.images = batch.images.to_device(device).unwrap();
            trainer.step(&batch).unwrap().loss
        };
        step(&mut trainer, 0);
        trainer.save(&path).unwrap();
        let expected = step(&mut trainer, 1);
        let mut resumed = Trainer::resume(&path, device).unwrap().epochs_of(5).unwrap();
        let got = step(&mut resumed, 1);
        assert!((got - expected).abs() < 1e-5, "{got} {expected}");
        assert_eq!(resumed.n_steps(), 2);
    }
}

#[test]
fn a_step_that_fails_names_the_layer_and_changes_nothing() {
    for device in &devices() {
        let network =
            Network::new(&spec(ConvMethod::Bcop, LinearMethod::Bjorck), DType::F32, device, 3);
        let mut trainer =
            Trainer::portable(network.unwrap(), config(2)).unwrap().epochs_of(5).unwrap();
        let mut source = Stripes::new([1, 8, 8], 4, 6, DType::F32);
        source.start_epoch(0, 11);
        let mut batch = source.batch(0).unwrap();
        batch.images = batch.images.to_device(device).unwrap();
        let variables = trainer.network().variables();
        let (name, weight) = variables.iter().find(|(name, _)| name == "linear1.weight").unwrap();
        let good = weight.as_tensor().copy().unwrap();
        weight.set(&good.ones_like().unwrap()).unwrap();
        let error = trainer.step(&batch).unwrap_err();
        assert!(matches!(error, Error::Step { step: 1, .. }), "{name}: {error}");
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(text.contains("linear1"), "{text}");
        weight.set(&good).unwrap();
        let bad = (&batch.images * f64::NAN).unwrap();
        let images = std::mem::replace(&mut batch.images, bad);
        let error = trainer.step(&batch).unwrap_err();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.ends_with("holds a value that is not a finite number"), "{text}");
        batch.images = images;
        let bias = variables[1].1.as_tensor().to_device(&Device::Cpu).unwrap();
        let fresh = Network::new(trainer.network().spec(), DType::F32, &Device::Cpu, 3).unwrap();
        assert_eq!(distance(&bias, fresh.variables()[1].1.as_tensor()), 0.0);
        batch.labels[2] = 4;
        assert!(matches!(
            trainer.step(&batch),
            Err(Error::LabelOutOfRange { index: 2, label: 4, n_classes: 4 })
        ));
    }
}
