//! The synthetic digits.

use lipconv_datasets::synthetic::{self, SyntheticDigits};
use lipconv_datasets::{DataSource, ImageSet};

fn digits(seed: u64, n_train: usize, n_test: usize) -> (ImageSet, ImageSet) {
    let dataset = synthetic::dataset(&SyntheticDigits { seed, n_train, n_test }).unwrap();
    assert_eq!(dataset.source, DataSource::Synthetic { seed });
    assert!(dataset.is_synthetic());
    (dataset.train, dataset.test)
}

#[test]
fn sets_say_that_they_are_synthetic_and_have_mnist_s_form() {
    let (train, test) = digits(0, 100, 50);
    for (set, n) in [(&train, 100), (&test, 50)] {
        assert_eq!((set.len(), set.shape(), set.n_classes()), (n, [1, 28, 28], 10));
        assert_eq!(set.name(), "synthetic digits");
        assert!(set.is_synthetic());
        let n_sevens = set.labels().iter().filter(|&&label| label == 7).count();
        assert_eq!(n_sevens, n / 10);
    }
}

#[test]
fn an_image_depends_on_seed_split_and_index_alone() {
    let (train, test) = digits(4, 200, 100);
    let (fewer, _) = digits(4, 30, 0);
    assert_eq!(fewer.pixels(), &train.pixels()[..30 * 784]);
    assert_ne!(train.head(100).pixels(), test.pixels());
    assert_ne!(digits(5, 200, 0).0.pixels(), train.pixels());
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one_thread.install(|| digits(4, 200, 100)).0.sha256(), train.sha256());
}

#[test]
fn digits_have_ink_within_the_frame() {
    let (train, _) = digits(1, 2000, 0);
    for i in 0..train.len() {
        let image = train.image(i).unwrap();
        let ink: f64 = image.iter().map(|&p| f64::from(p) / 255.0).sum();
        assert!(
            (15.0..330.0).contains(&ink),
            "image {i}, a {}, holds {ink} pixels of ink",
            train.labels()[i]
        );
        // most of it away from the border, so that digits are not cut off
        let border: f64 = (0..28)
            .flat_map(|t| [t, 27 * 28 + t, t * 28, t * 28 + 27])
            .map(|p| f64::from(image[p]) / 255.0)
            .sum();
        assert!(border < 0.35 * ink, "image {i}: {border} of {ink} on the border");
    }
}

#[test]
fn classes_can_be_told_apart_but_not_by_their_mean_images() {
    // nearest class mean: far above chance, far from perfect
    let (train, test) = digits(2, 4000, 1000);
    let mut means = vec![[0.0_f64; 784]; 10];
    for i in 0..train.len() {
        let mean = &mut means[usize::from(train.labels()[i])];
        train
            .image(i)
            .unwrap()
            .iter()
            .zip(mean.iter_mut())
            .for_each(|(&p, m)| *m += f64::from(p) / 400.0);
    }
    let n_right = (0..test.len())
        .filter(|&i| {
            let image = test.image(i).unwrap();
            let distance = |mean: &[f64; 784]| -> f64 {
                image.iter().zip(mean).map(|(&p, m)| (f64::from(p) - m).powi(2)).sum()
            };
            let nearest = (0..10)
                .min_by(|&a, &b| distance(&means[a]).total_cmp(&distance(&means[b])))
                .unwrap();
            nearest == usize::from(test.labels()[i])
        })
        .count();
    assert!((500..950).contains(&n_right), "{n_right} of 1000");
}
