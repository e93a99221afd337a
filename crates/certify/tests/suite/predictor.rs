//! The predictor says what the certifier says, to any number of threads at once, and refuses what is no image.

use candle_core::{DType, Tensor};
use certify::{Arithmetic, Certifier, Prediction, Predictor, predicted_class};
use lipconv::{Dense, ImageShape, PlainLayer, PlainNetwork};

use crate::common::{images, mixed_network, rng, rows};

const N: usize = 37;

fn pixels(images: &Tensor) -> Vec<f32> {
    images.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// Two radii or margins whose sums may have another order.
#[track_caller]
fn check_near(got: f64, expected: f64) {
    assert!((got - expected).abs() <= 1e-11 * expected.abs(), "{got} {expected}");
}

#[test]
fn predictions_are_the_certifiers() {
    for (dtype, arithmetic) in [
        (DType::F32, Arithmetic::F32),
        (DType::F32, Arithmetic::F32Blocked),
        (DType::F32, Arithmetic::F32AccumulateF64),
        (DType::F32, Arithmetic::F64),
        (DType::F64, Arithmetic::F64),
    ] {
        let network = mixed_network([0.9, 1.3, 0.7, 1.1], dtype, 5);
        let images = images(N, network.input(), dtype, &mut rng(6));
        let wide = network.to_dtype(DType::F64).unwrap();
        let logits = rows(&wide.forward(&images.to_dtype(DType::F64).unwrap()).unwrap());
        let labels: Vec<usize> = logits.iter().map(|row| predicted_class(row)).collect();
        let certificates = Certifier::new(&network).unwrap().certify(&images, &labels).unwrap();
        let predictor = Predictor::new(&network, arithmetic).unwrap();
        assert_eq!((predictor.arithmetic(), predictor.n_classes()), (arithmetic, logits[0].len()));
        let pixels = pixels(&images);
        let together = predictor.predict_batch(&pixels).unwrap();
        assert_eq!(together.len(), N);
        let n_values = predictor.input().n_values();
        for (i, found) in together.iter().enumerate() {
            let alone = predictor.predict(&pixels[i * n_values..][..n_values]).unwrap();
            for got in [*found, alone] {
                assert_eq!(got.class, labels[i]);
                check_near(got.margin, certificates.margins[i]);
                check_near(got.radius, certificates.executed[&arithmetic][i]);
            }
        }
        assert!(together.iter().any(|found| found.radius > 0.0));
    }
}

#[test]
fn threads_share_a_predictor() {
    fn shared<T: Send + Sync>(_: &T) {}
    let network = mixed_network([1.0; 4], DType::F32, 7);
    let predictor = Predictor::new(&network, Arithmetic::F32).unwrap();
    shared(&predictor);
    let pixels = pixels(&images(24, network.input(), DType::F32, &mut rng(8)));
    let n_values = network.input().n_values();
    let alone: Vec<Prediction> =
        pixels.chunks(n_values).map(|image| predictor.predict(image).unwrap()).collect();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (predictor, pixels, alone) = (&predictor, &pixels, &alone);
            scope.spawn(move || {
                for call in 0..40 {
                    let i = (7 * call + thread) % alone.len();
                    let image = &pixels[i * n_values..][..n_values];
                    assert_eq!(predictor.predict(image).unwrap(), alone[i]);
                }
            });
        }
    });
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let serial = one_thread.install(|| predictor.predict_batch(&pixels).unwrap());
    assert_eq!(serial, predictor.predict_batch(&pixels).unwrap());
    assert!(predictor.predict_batch(&[]).unwrap().is_empty());
}

#[test]
fn what_is_no_image_is_refused_and_nothing_panics() {
    let network = mixed_network([1.0; 4], DType::F32, 9);
    let predictor = Predictor::new(&network, Arithmetic::F32).unwrap();
    let ImageShape { channels, height, width } = predictor.input();
    let n = channels * height * width;
    let one = |pixels: &[f32]| predictor.predict(pixels).unwrap_err().to_string();
    assert_eq!(one(&[]), format!("pixels has shape [0], expected {n}"));
    assert_eq!(one(&vec![0.5; n + 1]), format!("pixels has shape [{}], expected {n}", n + 1));
    let many = predictor.predict_batch(&vec![0.5; 2 * n - 1]).unwrap_err().to_string();
    assert_eq!(many, format!("pixels has shape [{}], expected a multiple of {n}", 2 * n - 1));
    let mut bad = vec![0.5; 20 * n];
    bad[13 * n + 3] = f32::NAN;
    let text = predictor.predict_batch(&bad).unwrap_err().to_string();
    assert_eq!(text, "sample 13: the image contains NaN, expected finite values");
    // and it goes on as if nothing had been asked
    for extreme in [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -0.0] {
        let found = predictor.predict(&vec![extreme; n]).unwrap();
        assert!(found.radius >= 0.0 && found.radius.is_finite() && found.class < 10, "{found:?}");
    }
    let error =
        Predictor::new(&network.to_dtype(DType::F64).unwrap(), Arithmetic::F32).unwrap_err();
    assert!(error.to_string().contains("cannot execute weights stored in f64"), "{error}");
}

/// Sums of 2^20 terms are too long for the model of TF32, and for no other.
#[test]
fn an_arithmetic_without_a_model_is_refused() {
    let n = 1 << 20;
    let weight = Tensor::ones((2, n), DType::F32, &candle_core::Device::Cpu).unwrap();
    let layers = vec![PlainLayer::Flatten, PlainLayer::Dense(Dense::new(weight, None).unwrap())];
    let network = PlainNetwork::new(ImageShape::new(1, 1 << 10, 1 << 10), layers).unwrap();
    let text = Predictor::new(&network, Arithmetic::Tf32).unwrap_err().to_string();
    let expected = "linear1: dot products of length 1048576 are too long for tf32 arithmetic";
    assert!(text.starts_with(expected), "{text}");
    Predictor::new(&network, Arithmetic::F32).unwrap();
}

#[test]
fn a_file_is_loaded_in_its_own_arithmetic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.safetensors");
    let network: PlainNetwork = mixed_network([1.0; 4], DType::F32, 3);
    network.save(&path).unwrap();
    let loaded = Predictor::load(&path, None).unwrap();
    assert_eq!(loaded.arithmetic(), Arithmetic::F32Blocked);
    let pixels = pixels(&images(1, network.input(), DType::F32, &mut rng(1)));
    let direct = Predictor::new(&network, Arithmetic::F32Blocked).unwrap();
    assert_eq!(loaded.predict(&pixels).unwrap(), direct.predict(&pixels).unwrap());
    let text = Predictor::load(&folder.path().join("none"), None).unwrap_err().to_string();
    assert!(text.contains("none"), "{text}");
}
