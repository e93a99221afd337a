//! The one error type of this crate.
//!
//! Every variant carries the data a caller needs to react; the text says what was found and what was
//! expected.

use std::path::PathBuf;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Candle(#[from] candle_core::Error),
    /// The network refused its input or its weights.
    #[error("network: {0}")]
    Network(#[from] lipconv::Error),
    /// A norm could not be bounded.
    #[error("norm of {what}: {source}")]
    Norm {
        /// The matrix.
        what: String,
        /// Why it could not be bounded.
        source: projectors::Error,
    },
    /// A tensor has another shape than its place demands.
    #[error("{what} has shape {got:?}, expected {expected}")]
    ShapeMismatch {
        /// The tensor's name.
        what: &'static str,
        /// The shape demanded, in letters or numbers.
        expected: String,
        /// The shape found.
        got: Vec<usize>,
    },
    /// A tensor has an element type that its place does not take.
    #[error("{what} has dtype {got}, expected {expected}")]
    DTypeMismatch {
        /// The tensor's name.
        what: &'static str,
        /// The element type demanded.
        expected: String,
        /// The element type found.
        got: String,
    },
    /// Two lists that belong together have different lengths.
    #[error("{got} {what}, expected {expected}: one for each sample")]
    CountMismatch {
        /// What was counted.
        what: &'static str,
        /// The number demanded.
        expected: usize,
        /// The number found.
        got: usize,
    },
    /// A label names no class.
    #[error("sample {sample}: label {label} is not below the number of classes {n_classes}")]
    LabelOutOfRange {
        /// Index of the sample.
        sample: usize,
        /// Its label.
        label: usize,
        /// The number of classes.
        n_classes: usize,
    },
    /// A classifier has too few classes to be attacked.
    #[error(
        "the classifier has {got} classes, expected at least {expected} for an attack on its class"
    )]
    TooFewClasses {
        /// The number of classes.
        got: usize,
        /// The number needed.
        expected: usize,
    },
    /// Random numbers that were handed in for a replay ran out.
    #[error(
        "sample {sample}: {got} random numbers, expected more: the search went on after the last one"
    )]
    TooFewDraws {
        /// Index of the sample.
        sample: usize,
        /// The numbers handed in.
        got: usize,
    },
    /// A text is no radius.
    #[error(
        "eps is {text:?}, expected a positive number such as 1.58 or a fraction such as 36/255"
    )]
    NotARadius {
        /// The text.
        text: String,
    },
    /// A setting is outside its domain.
    #[error("{name} is {value}, expected {expected}")]
    InvalidSetting {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// Its domain.
        expected: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A certificate was asked for on the strength of an estimated Lipschitz constant.
    #[error(
        "{layer}: the Lipschitz constant {value} is an estimate, expected a rigorous upper bound; an \
         estimate certifies nothing"
    )]
    NotRigorous {
        /// The layer's name.
        layer: String,
        /// The estimate.
        value: f64,
    },
    /// An input value is NaN or infinite.
    #[error("sample {sample}: {what} contains {value}, expected finite values")]
    NonFinite {
        /// What contains it.
        what: &'static str,
        /// Index of the sample.
        sample: usize,
        /// The value: NaN or an infinity.
        value: f64,
    },
    /// A pixel is outside the range that attacks keep to.
    #[error("sample {sample}: the pixel {value} is outside [0, 1]")]
    PixelRange {
        /// Index of the sample.
        sample: usize,
        /// The pixel's value.
        value: f64,
    },
    /// An input value cannot be stored in the arithmetic that would execute the network.
    #[error(
        "sample {sample}: the value {value} is not representable in f32, in which {arithmetic} stores its \
         input"
    )]
    NotRepresentable {
        /// Index of the sample.
        sample: usize,
        /// The value.
        value: f64,
        /// Name of the arithmetic.
        arithmetic: &'static str,
    },
    /// The arithmetic cannot execute the stored weights unchanged.
    #[error(
        "{arithmetic} arithmetic cannot execute weights stored in {stored}, expected {expected}"
    )]
    UnsupportedArithmetic {
        /// Name of the arithmetic.
        arithmetic: &'static str,
        /// Element type of the stored weights.
        stored: String,
        /// What would do.
        expected: &'static str,
    },
    /// A dot product is too long for the rounding model: n·u must be at most 1/4.
    #[error(
        "{layer}: dot products of length {length} are too long for {arithmetic} arithmetic, expected at \
         most {limit}"
    )]
    DotTooLong {
        /// The layer's name.
        layer: String,
        /// Length of the dot product.
        length: usize,
        /// Name of the arithmetic.
        arithmetic: &'static str,
        /// The longest one allowed.
        limit: usize,
    },
    /// A critic must have one output, and the network has another number.
    #[error("the network has {n_outputs} outputs, expected 1 for a critic")]
    NotACritic {
        /// The network's number.
        n_outputs: usize,
    },
    /// A statistic needs more samples.
    #[error("{got} samples of distribution {distribution}, expected at least {expected}")]
    TooFewSamples {
        /// Which one.
        distribution: &'static str,
        /// The number of samples.
        got: usize,
        /// The number needed.
        expected: usize,
    },
    /// An estimate of a distance exceeds the distance, which is known: a defect of the estimator.
    #[error(
        "{anchor}: the estimate {value} exceeds the exact distance {exact} by more than {n_sigma} standard errors ({standard_error})"
    )]
    AboveExact {
        /// Name of the anchor.
        anchor: &'static str,
        /// The estimate.
        value: f64,
        /// The distance.
        exact: f64,
        /// Standard errors that it may lie above.
        n_sigma: f64,
        /// The standard error.
        standard_error: f64,
    },
    /// A classifier did not produce the gradient of its logits with respect to its input.
    #[error("the classifier's logits do not depend on its input through differentiable operations")]
    NoGradient,
    /// An image that an attack was told to start from is not adversarial.
    #[error(
        "sample {sample}: the starting image is classified as the sample's own label {label}, expected any \
         other class"
    )]
    StartNotAdversarial {
        /// Index of the sample.
        sample: usize,
        /// Its label.
        label: usize,
    },
    /// An attack broke a sample strictly inside the radius that was certified for it: a defect of the
    /// certificate, of the arithmetic it assumes, or of this library.
    #[error(
        "unsound certificate: {attack} changed the prediction of sample {sample} from {label} to \
         {prediction} at distance {distance:e}, inside its certified radius {radius:e} ({arithmetic})"
    )]
    Unsound {
        /// Name of the attack.
        attack: String,
        /// Index of the sample.
        sample: usize,
        /// Its label.
        label: usize,
        /// What the perturbed sample is taken for.
        prediction: usize,
        /// Euclidean norm of the perturbation, rounded up.
        distance: f64,
        /// The certified radius.
        radius: f64,
        /// Name of the arithmetic for which the radius was certified.
        arithmetic: &'static str,
    },
    /// The accuracy under an attack is below the certified accuracy at the same radius: a defect of the certificate or
    /// of the attack.
    #[error(
        "unsound: under {attack} at {eps} the accuracy is {accuracy} %, below the certified accuracy of \
         {certified} %"
    )]
    BelowCertified {
        /// Name of the attack.
        attack: String,
        /// The radius.
        eps: f64,
        /// Percent under the attack.
        accuracy: f64,
        /// Percent certified.
        certified: f64,
    },
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
