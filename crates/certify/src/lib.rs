#![doc = include_str!("../README.md")]
// a library returns values and calls back: it neither prints nor reads a clock
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_types)]

pub mod arithmetic;
pub mod attack;
pub mod bounds;
pub mod certificate;
pub mod certifier;
pub mod classifier;
mod error;
pub mod evaluation;
mod executed;
mod linear;
pub mod margin;
pub mod rounding;
pub mod soundness;
mod tensor;
mod upper;
pub mod verify;
pub mod wasserstein;
pub mod zero_padded;

pub use arithmetic::Arithmetic;
pub use attack::{
    Attack, Boundary, Fgsm, Loss, Outcome, Pgd, Pointwise, Progress, Start, Stopping,
};
pub use bounds::{LayerBound, NetworkBounds};
pub use certificate::{CertificateFile, Origin, Pixels};
pub use certifier::{Certificates, Certifier, LogitBound};
pub use classifier::{Classifier, Objective};
pub use error::{Error, Result};
pub use evaluation::{
    AttackedAccuracy, CertifiedAccuracy, Evaluation, Samples, Settings, evaluate,
};
pub use executed::ExecutedNetwork;
pub use linear::LinearClassifier;
pub use margin::{certified_accuracy, margins, nominal_radii};
pub use soundness::check_soundness;
pub use verify::verify;
pub use wasserstein::{Critic, CriticValues, DualEstimate, DualEstimator};
pub use zero_padded::{ZeroPaddedLayer, ZeroPaddedNetwork, ZeroPaddedSpec};
