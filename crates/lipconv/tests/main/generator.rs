//! Generators: seeds, statistics, freezing, files.

use candle_core::{DType, Device, Tensor};
use lipconv::generator::{FrozenGenerator, Generator, GeneratorSpec, latents};
use lipconv::{Error, ImageShape};

use crate::support::{check_close, distance, sum_tolerance, values};

const CPU: Device = Device::Cpu;

/// Small and not square.
pub(crate) fn small() -> GeneratorSpec {
    GeneratorSpec { latent: 5, hidden: 24, channels: 6, output: ImageShape::new(3, 8, 12) }
}

fn trained(dtype: DType) -> Generator {
    let generator = Generator::new(&small(), dtype, &CPU, 3).unwrap();
    for step in 0..4 {
        let z = latents(5, 16, 8, 16 * step, dtype, &CPU).unwrap();
        generator.forward_train(&z).unwrap();
    }
    generator
}

#[test]
fn images_have_the_shape_and_range_that_the_spec_says() {
    for spec in [small(), GeneratorSpec::paper(ImageShape::new(3, 32, 32))] {
        let generator = Generator::new(&spec, DType::F32, &CPU, 0).unwrap();
        let z = latents(spec.latent, 4, 1, 0, DType::F32, &CPU).unwrap();
        let ImageShape { channels, height, width } = spec.output;
        let images = generator.forward_train(&z).unwrap();
        assert_eq!(images.dims(), [4, channels, height, width]);
        assert!(values(&images).iter().all(|v| v.abs() <= 1.0));
        let n: usize = generator.variables().iter().map(|(_, v)| v.elem_count()).sum();
        assert_eq!(n, spec.n_parameters());
        let frozen = generator.freeze().unwrap();
        assert_eq!(frozen.sample(3, 0, 0).unwrap().dims(), [3, channels, height, width]);
        assert_eq!(frozen.sample(0, 0, 0).unwrap().dims(), [0, channels, height, width]);
    }
}

#[test]
fn latent_vectors_are_uniform_and_do_not_depend_on_their_company() {
    let all = latents(7, 3000, 11, 0, DType::F32, &CPU).unwrap();
    let part = latents(7, 5, 11, 1234, DType::F64, &CPU).unwrap();
    assert_eq!(distance(&all.narrow(0, 1234, 5).unwrap(), &part), 0.0);
    let numbers = values(&all);
    let n = numbers.len() as f64;
    assert!(numbers.iter().all(|v| (-1.0..1.0).contains(v)));
    let mean = numbers.iter().sum::<f64>() / n;
    let square = numbers.iter().map(|v| v * v).sum::<f64>() / n;
    // five standard errors of the mean (variance 1/3) and of the mean square (variance 4/45)
    assert!(mean.abs() < 5.0 / (3.0 * n).sqrt(), "{mean}");
    assert!((square - 1.0 / 3.0).abs() < 5.0 * (4.0 / 45.0 / n).sqrt(), "{square}");
    let other = latents(7, 5, 12, 1234, DType::F64, &CPU).unwrap();
    assert!(distance(&part, &other) > 0.1);
}

#[test]
fn seeds_decide_the_weights_in_both_element_types() {
    let wide = Generator::new(&small(), DType::F64, &CPU, 5).unwrap();
    let narrow = Generator::new(&small(), DType::F32, &CPU, 5).unwrap();
    let other = Generator::new(&small(), DType::F64, &CPU, 6).unwrap();
    for (((name, a), (_, b)), (_, c)) in
        wide.variables().iter().zip(narrow.variables()).zip(other.variables())
    {
        assert_eq!(distance(&a.to_dtype(DType::F32).unwrap(), &b), 0.0, "{name}");
        let drawn = name.ends_with("weight") && !name.starts_with("norm");
        assert_eq!(distance(a, &c) > 0.0, drawn, "{name}");
    }
}

/// `running ← 0.9 running + 0.1 batch`, the variance of the batch divided by n - 1.
#[test]
fn running_statistics_follow_the_batches() {
    let generator = Generator::new(&small(), DType::F64, &CPU, 3).unwrap();
    let before = generator.statistics().unwrap();
    let z = latents(5, 16, 8, 0, DType::F64, &CPU).unwrap();
    generator.forward_train(&z).unwrap();
    let weight = generator.variables()[0].1.clone();
    let x = z.matmul(&weight.t().unwrap()).unwrap();
    let mean = x.mean(0).unwrap();
    let variance = x.var(0).unwrap();
    for ((name, old), batch) in before.iter().zip([mean, variance]) {
        let expected = ((old.clone() * 0.9).unwrap() + (batch * 0.1).unwrap()).unwrap();
        let new = generator.statistics().unwrap().into_iter().find(|(n, _)| n == name).unwrap().1;
        check_close(name, &new, &expected, sum_tolerance(DType::F64, 16, 1.0));
    }
}

/// A frozen generator is the function that normalises by the running statistics.
#[test]
fn frozen_equals_running_statistics() {
    for dtype in [DType::F32, DType::F64] {
        let generator = trained(dtype);
        let frozen = generator.freeze().unwrap();
        let z = latents(5, 9, 1, 0, dtype, &CPU).unwrap();
        let parameters: std::collections::BTreeMap<_, _> = generator
            .variables()
            .into_iter()
            .map(|(name, v)| (name, v.as_tensor().clone()))
            .chain(generator.statistics().unwrap())
            .collect();
        let of = |name: &str| parameters[name].clone();
        let mut x = z.clone();
        for (n, name) in ["linear1", "linear2", "deconv1", "deconv2"].into_iter().enumerate() {
            let weight = of(&format!("{name}.weight"));
            x = match n {
                0 | 1 => x.matmul(&weight.t().unwrap()).unwrap(),
                _ => {
                    let x = if n == 2 { x.reshape((9, 6, 2, 3)).unwrap() } else { x };
                    x.conv_transpose2d(&weight, 1, 0, 2, 1).unwrap()
                }
            };
            let shape: &[usize] =
                if n < 2 { &[1, weight.dims()[0]] } else { &[1, weight.dims()[1], 1, 1] };
            let channel = |name: String| of(&name).reshape(shape).unwrap();
            if n == 3 {
                x = x.broadcast_add(&channel("deconv2.bias".into())).unwrap().tanh().unwrap();
                continue;
            }
            let norm = |part: &str| channel(format!("norm{}.{part}", n + 1));
            let deviation = (norm("variance") + 1e-5).unwrap().sqrt().unwrap();
            x = x.broadcast_sub(&norm("mean")).unwrap().broadcast_div(&deviation).unwrap();
            x = x.broadcast_mul(&norm("weight")).unwrap().broadcast_add(&norm("bias")).unwrap();
            x = x.relu().unwrap();
        }
        let allowed = 64.0 * sum_tolerance(dtype, 100, 1.0);
        check_close("images", &frozen.forward(&z).unwrap(), &x, allowed);
    }
}

#[test]
fn image_i_of_a_seed_is_the_same_in_every_call() {
    let frozen = trained(DType::F32).freeze().unwrap();
    let all = frozen.sample(200, 9, 0).unwrap();
    for (offset, n) in [(0, 1), (63, 2), (64, 64), (130, 70)] {
        let part = frozen.sample(n, 9, offset as u64).unwrap();
        assert_eq!(distance(&all.narrow(0, offset, n).unwrap(), &part), 0.0, "{offset} {n}");
    }
    assert!(distance(&all, &frozen.sample(200, 10, 0).unwrap()) > 0.0);
}

#[test]
fn frozen_generators_survive_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("generator.safetensors");
    for dtype in [DType::F32, DType::F64] {
        let generator = trained(dtype);
        let frozen = generator.freeze().unwrap();
        frozen.save(&path).unwrap();
        let read = FrozenGenerator::load(&path, &CPU).unwrap();
        assert_eq!((read.spec(), read.dtype()), (frozen.spec(), dtype));
        let (a, b) = (frozen.sample(70, 4, 5).unwrap(), read.sample(70, 4, 5).unwrap());
        assert_eq!(distance(&a, &b), 0.0);
        // what training does later does not reach it
        for (_, variable) in generator.variables() {
            variable.set(&variable.zeros_like().unwrap()).unwrap();
        }
        assert_eq!(distance(&a, &frozen.sample(70, 4, 5).unwrap()), 0.0);
    }
}

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, Error>, text: &str) {
    assert_eq!(result.unwrap_err().to_string(), text);
}

#[test]
fn bad_specs_and_vectors_are_refused() {
    let with = |change: fn(&mut GeneratorSpec)| {
        let mut spec = small();
        change(&mut spec);
        Generator::new(&spec, DType::F32, &CPU, 0)
    };
    says(with(|s| s.latent = 0), "generator: latent is 0, expected at least 1");
    says(with(|s| s.output.width = 0), "generator: image size is 0, expected at least 1");
    says(with(|s| s.channels = 5), "generator: 5 channels do not divide into groups of 2");
    says(
        with(|s| s.output.height = 10),
        "generator: image height 10 is not divisible by the stride 4",
    );
    says(
        with(|s| s.hidden = usize::MAX),
        "hidden is 18446744073709551615, expected a whole number up to 8192",
    );
    says(Generator::new(&small(), DType::F16, &CPU, 0), "dtype is f16, expected f32 or f64");
    let generator = trained(DType::F32);
    let z = |n, length| Tensor::zeros((n, length), DType::F32, &CPU).unwrap();
    says(generator.forward_train(&z(4, 6)), "latent vectors has shape [4, 6], expected [any, 5]");
    says(
        generator.forward_train(&z(1, 5)),
        "values in a channel of a batch is 1, expected at least 2 to normalise them",
    );
    says(
        generator.freeze().unwrap().forward(&z(4, 6)),
        "latent vectors has shape [4, 6], expected [any, 5]",
    );
}
