//! What the paper does differently from one data set to the next.
//!
//! Source: Li et al. 2019, section 5.2, and the authors' settings: on MNIST a margin of √2 · 1.5, no augmentation, ε = 1.58; on
//! CIFAR-10 a margin of √2 · 0.5, crops and flips, ε = 36/255. A person's own images take the margin and the radii of
//! CIFAR-10, without augmentation: whether a mirror image keeps its class is theirs to say.

use std::f64::consts::SQRT_2;

use super::{AugmentationKind, DatasetName, RunConfig};
use crate::eps::Eps;

/// Whether a data set is trained on as MNIST is.
fn like_mnist(dataset: &DatasetName) -> bool {
    matches!(dataset, DatasetName::Mnist | DatasetName::Synthetic)
}

/// Radii of certified accuracy and of the attacks.
pub(super) fn radii(dataset: &DatasetName) -> (Vec<Eps>, Vec<Eps>) {
    let eps = |texts: &[&str]| {
        texts.iter().map(|text| text.parse().expect("a positive number")).collect()
    };
    if like_mnist(dataset) {
        (eps(&["0.25", "0.5", "1", "1.58", "2", "2.5"]), eps(&["1.58"]))
    } else {
        (eps(&["18/255", "36/255", "72/255", "108/255", "0.5", "1"]), eps(&["36/255"]))
    }
}

/// Gives every key of the recipe that was not written the value of the configuration's data set.
pub(super) fn fill(config: &mut RunConfig, is_written: impl Fn(&str, &str) -> bool) {
    let dataset = &config.data.dataset;
    let (eps, attack_eps) = radii(dataset);
    if !is_written("training", "margin") {
        config.training.margin = SQRT_2 * if like_mnist(dataset) { 1.5 } else { 0.5 };
    }
    if !is_written("training", "augmentation") {
        config.training.augmentation = match dataset {
            DatasetName::Cifar10 => AugmentationKind::CropFlip,
            _ => AugmentationKind::None,
        };
    }
    if !is_written("evaluation", "eps") {
        config.evaluation.eps = eps;
    }
    if !is_written("evaluation", "attack_eps") {
        config.evaluation.attack_eps = attack_eps;
    }
}
