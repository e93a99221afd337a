//! Critics against distances that are known exactly, and the distributions that they see.

use std::time::Duration;

use bench_apps::config::{Activation, Method};
use bench_apps::progress::{Display, Progress};
use bench_apps::wasserstein::critic::{Critic, CriticEnd, CriticJob, train_critic};
use bench_apps::wasserstein::{
    CriticConfig, CriticNetwork, Estimate, ImagePool, SourceName, estimate,
};
use candle_core::Device;
use certify::{Anchor, Distribution, SamplePart};
use lipconv::ConvMethod;
use lipconv_datasets::{ImageSet, ImageSetParts};

fn config(method: ConvMethod, activation: Activation, learning_rate: f64) -> CriticConfig {
    CriticConfig {
        network: CriticNetwork::Vector,
        method: Method::Conv(method),
        activation,
        epochs: 12,
        epoch_steps: 25,
        batch_size: 64,
        learning_rate,
        seed: 0,
    }
}

fn trained(config: &CriticConfig, a: &dyn Distribution, b: &dyn Distribution) -> Critic {
    let device = Device::Cpu;
    let checkpoint_every = Duration::MAX;
    let job = CriticJob { config, a, b, device: &device, folder: None, checkpoint_every };
    let mut progress = Progress::new(Display::Silent, "critic", 0, config.n_steps());
    match train_critic(&job, &mut progress, 0, "critic").unwrap() {
        CriticEnd::Finished(critic) => *critic,
        other => panic!("training ended with {other:?}"),
    }
}

/// A critic's estimate of an anchor, which no anchor lets exceed the exact distance.
#[track_caller]
fn check_anchor(anchor: &Anchor, config: &CriticConfig) -> Estimate {
    let critic = trained(config, &anchor.a, &anchor.b);
    let found = estimate(&critic.network, &anchor.a, &anchor.b, SamplePart::Report, 4096).unwrap();
    anchor.check(found.value, found.standard_error).unwrap();
    assert!(found.confident <= anchor.exact * (1.0 + 1e-6), "{}: {found:?}", anchor.name);
    found
}

#[test]
fn bcop_with_maxmin_comes_close_to_every_exact_distance() {
    for anchor in Anchor::all(0).unwrap() {
        let found = check_anchor(&anchor, &config(ConvMethod::Bcop, Activation::MAXMIN, 1e-3));
        let ratio = found.value / anchor.exact;
        assert!(ratio > 0.9, "{}: {ratio}", anchor.name);
    }
}

#[test]
fn relu_loses_what_maxmin_keeps() {
    let circles = &Anchor::all(0).unwrap()[2];
    let found = check_anchor(circles, &config(ConvMethod::Bcop, Activation::RELU, 1e-3));
    let ratio = found.value / circles.exact;
    assert!((0.3..0.85).contains(&ratio), "{ratio}");
}

/// An estimate of a norm is not a bound, and training would run away with the gap; what is divided by a bound stays below.
#[test]
fn a_critic_that_runs_away_is_still_a_lower_bound() {
    for anchor in Anchor::all(1).unwrap() {
        let config =
            CriticConfig { epochs: 6, ..config(ConvMethod::Ossn, Activation::MAXMIN, 0.3) };
        let found = check_anchor(&anchor, &config);
        assert!(found.value <= found.difference / found.lipschitz * (1.0 + 1e-9), "{found:?}");
    }
}

#[test]
fn the_curve_has_points_that_are_bounds_too() {
    let anchor = &Anchor::all(2).unwrap()[0];
    let critic = trained(&config(ConvMethod::Rko, Activation::MAXMIN, 1e-2), &anchor.a, &anchor.b);
    assert_eq!(critic.n_steps, 300);
    assert!(critic.curve.len() == 12 && critic.stopped.is_none(), "{:?}", critic.curve);
    for point in &critic.curve {
        let (value, lipschitz) = (point.estimate.unwrap(), point.lipschitz.unwrap());
        assert!(value <= anchor.exact * (1.0 + 1e-6) && lipschitz > 0.0, "{point:?}");
    }
}

fn numbered(n: usize) -> ImageSet {
    ImageSet::new(ImageSetParts {
        name: "numbers".into(),
        shape: [1, 1, 1],
        n_classes: 1,
        pixels: (0..n).map(|i| i as u8).collect(),
        labels: vec![0; n],
        synthetic: false,
    })
    .unwrap()
}

fn held_out(pool: &ImagePool, part: SamplePart) -> Vec<u8> {
    let n = pool.n_held_out(part).unwrap();
    let values = pool.held_out(part, 0..n).unwrap().flatten_all().unwrap().to_vec1::<f32>();
    values.unwrap().iter().map(|v| ((v + 1.0) * 127.5).round() as u8).collect()
}

#[test]
fn no_image_is_trained_on_and_reported() {
    let pool = ImagePool::cut(&numbered(100)).unwrap();
    let mut all = pool.training_images().pixels().to_vec();
    let (select, report) =
        (held_out(&pool, SamplePart::Select), held_out(&pool, SamplePart::Report));
    assert_eq!((all.len(), select.len(), report.len()), (63, 12, 25));
    all.extend(select.iter().chain(&report));
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<u8>>());
    let drawn = pool.draw(500, 7).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let pixels = pool.training_images().pixels();
    assert!(drawn.iter().all(|v| pixels.contains(&(((v + 1.0) * 127.5).round() as u8))));
    assert_eq!(drawn, pool.draw(500, 7).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
}

#[test]
fn a_data_set_reports_on_its_test_images() {
    let pool = ImagePool::of_dataset(&numbered(80), &numbered(5)).unwrap();
    assert_eq!(pool.training_images().pixels(), (0..70).collect::<Vec<u8>>());
    assert_eq!(held_out(&pool, SamplePart::Select), (70..80).collect::<Vec<u8>>());
    assert_eq!(held_out(&pool, SamplePart::Report), [0, 1, 2, 3, 4]);
    let population = ImagePool::population(&numbered(3)).unwrap();
    assert!(population.is_population() && !pool.is_population());
    assert_eq!(
        held_out(&population, SamplePart::Select),
        held_out(&population, SamplePart::Report)
    );
}

#[test]
fn too_few_images_are_refused() {
    let text = ImagePool::cut(&numbered(3)).unwrap_err().to_string();
    assert_eq!(text, "number of images is 3, expected at least 6, or a population");
    let text = ImagePool::of_dataset(&numbered(1), &numbered(5)).unwrap_err().to_string();
    assert_eq!(text, "number of training images is 1, expected at least 4");
    let text = ImagePool::of_dataset(&numbered(5), &numbered(1)).unwrap_err().to_string();
    assert_eq!(text, "number of test images is 1, expected at least 2");
}

#[test]
fn sources_have_names() {
    for name in ["cifar10", "stl10", "mnist", "synthetic", "idx:a/b", "images:a", "generator:g.s"] {
        assert_eq!(name.parse::<SourceName>().unwrap().to_string(), name);
    }
    for name in ["generator:", "cifar100", "images:"] {
        let text = name.parse::<SourceName>().unwrap_err().to_string();
        assert!(text.starts_with(&format!("images is {name}, expected cifar10, ")), "{text}");
    }
}

#[test]
fn a_method_that_bounds_nothing_is_refused() {
    for method in [Method::Bjorck, Method::Conv(ConvMethod::Unconstrained)] {
        let config = CriticConfig { method, ..config(ConvMethod::Bcop, Activation::MAXMIN, 1e-3) };
        let text = config.spec([1, 8, 8]).unwrap_err().to_string();
        assert!(text.starts_with(&format!("critic.method is {method}, expected ")), "{text}");
    }
}
