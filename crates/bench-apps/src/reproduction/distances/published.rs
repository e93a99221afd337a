//! Published estimates, to stand beside ours.
//!
//! Source: Li et al. 2019, table 4 (STL-10 at 64 x 64, best learning rate, 5 runs), and the runs that the authors released (CIFAR-10
//! at 32 x 32, learning rate 1e-4). The distances are those of their generators: orders and ratios can be compared with ours,
//! the values cannot.

use crate::config::{ActivationKind, DatasetName};
use crate::report::paper::Figure;

/// The published estimate of a cell, and whose it is.
#[must_use]
pub fn published(
    dataset: &DatasetName,
    size: usize,
    method: &str,
    activation: ActivationKind,
) -> Option<Figure> {
    let relu = activation == ActivationKind::Relu;
    let [mean, sd] = match (dataset, size, method, relu) {
        (DatasetName::Stl10, 64, "ossn", false) => [7.39, 0.31],
        (DatasetName::Stl10, 64, "rko", false) => [8.95, 0.12],
        (DatasetName::Stl10, 64, "bcop", false) => [9.91, 0.11],
        (DatasetName::Stl10, 64, "ossn", true) => [7.06, 0.72],
        (DatasetName::Stl10, 64, "rko", true) => [7.82, 0.21],
        (DatasetName::Stl10, 64, "bcop", true) => [8.28, 0.19],
        (DatasetName::Cifar10, 32, "ossn", false) => [3.29, 0.05],
        (DatasetName::Cifar10, 32, "rko", false) => [4.95, 0.08],
        (DatasetName::Cifar10, 32, "bcop", false) => [5.34, 0.07],
        (DatasetName::Cifar10, 32, "ossn", true) => [2.94, 0.13],
        (DatasetName::Cifar10, 32, "rko", true) => [3.92, 0.09],
        (DatasetName::Cifar10, 32, "bcop", true) => [4.08, 0.07],
        _ => return None,
    };
    Some(Figure { mean, sd: Some(sd) })
}

/// Whose figures stand beside a data set's.
#[must_use]
pub fn source(dataset: &DatasetName) -> &'static str {
    match dataset {
        DatasetName::Stl10 => "paper",
        _ => "authors’ runs",
    }
}
