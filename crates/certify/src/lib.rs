#![doc = include_str!("../README.md")]
// a library returns values and calls back: it neither prints nor reads a clock
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_types)]

/// The example of the workspace's README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct WorkspaceReadme;

mod arithmetic;
mod attack;
mod audit;
mod bounds;
mod certificate;
mod certifier;
mod classifier;
mod eps;
mod error;
mod evaluation;
mod executed;
mod linear;
mod margin;
mod nominal;
mod predictor;
pub mod rounding;
mod soundness;
mod tensor;
mod upper;
pub mod verify;
mod wasserstein;

pub use arithmetic::Arithmetic;
pub use attack::{
    Apgd, ApgdLoss, Attack, AttackOutcome, AttackProgress, AttackStart, AttackTarget, AutoAttack,
    AutoAttackFlag, AutoAttackPart, Boundary, Fab, Fgsm, Loss, PartReport, Pgd, Pointwise, Replay,
    Square, Stopping, Trace, TracedAttack,
};
pub use audit::{Slope, SlopeSearch, Verdict};
pub use bounds::{LayerBound, LogitBound, NetworkBounds};
pub use certificate::{
    CERTIFICATE_FORMAT, CERTIFICATE_VERSION, CertificateFile, CertificateOrigin, DataRecord,
    ModelRecord, Pixels, ROOM, SampleRecord, data_sha256,
};
pub use certifier::{Certificates, Certifier};
pub use classifier::{
    Classifier, Objective, batched_logits, input_gradient, is_correct, predicted_class,
};
pub use eps::{ByEps, Eps};
pub use error::{Error, Result};
pub use evaluation::{
    AttackedAccuracy, CertifiedAccuracy, Evaluation, EvaluationSettings, Evaluator, SampleResults,
    Scope, evaluate,
};
pub use executed::ExecutedNetwork;
pub use linear::LinearClassifier;
pub use margin::{certified_accuracy, margin, margins, nominal_radii};
pub use nominal::NominalRadius;
pub use predictor::{Prediction, Predictor};
pub use soundness::check_soundness;
pub use wasserstein::anchors::{Anchor, ExactDistribution, ExactKind};
pub use wasserstein::distribution::{Distribution, SamplePart};
pub use wasserstein::matching::{MOST_MATCHED, euclidean_distance, matching_distance};
pub use wasserstein::{Critic, CriticValues, DualEstimate, DualEstimator};
