//! The one error type of this crate.
//!
//! Every variant carries the data a caller needs to react; the text says what was found, what was
//! expected and, where it helps, what to do next.

use std::fmt;
use std::path::PathBuf;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape than its place demands.
    #[error("{what} has shape {got:?}, expected {}", Demanded(expected))]
    ShapeMismatch {
        /// The tensor's name.
        what: String,
        /// The shape demanded; a `0` stands for any size.
        expected: Vec<usize>,
        /// The shape found.
        got: Vec<usize>,
    },
    /// A tensor has another element type than its place demands.
    #[error("{what} has dtype {got}, expected {expected}")]
    DTypeMismatch {
        /// The tensor's name.
        what: String,
        /// The element type demanded.
        expected: String,
        /// The element type found.
        got: String,
    },
    /// Two tensors that work together live on different devices.
    #[error("{what} is on {got}, expected {expected}; move it with to_device")]
    DeviceMismatch {
        /// The tensor's name.
        what: String,
        /// The device demanded.
        expected: String,
        /// The device found.
        got: String,
    },
    /// A count that must be at least one is zero.
    #[error("{what} is 0, expected at least 1")]
    Zero {
        /// What was counted.
        what: String,
    },
    /// A cyclic convolution needs an image at least as large as its kernel.
    #[error(
        "{layer}: a {kernel} x {kernel} kernel exceeds its {height} x {width} image; a cyclic \
         convolution needs an image at least as large as the kernel"
    )]
    KernelExceedsImage {
        /// The layer's name.
        layer: String,
        /// Side of the kernel after downsampling.
        kernel: usize,
        /// Height of the image that the kernel meets.
        height: usize,
        /// Width of the image that the kernel meets.
        width: usize,
    },
    /// An image or a layer's output is larger than any network here has.
    #[error("{what} has {n_values} values, expected at most {most}")]
    TooManyValues {
        /// Which signal.
        what: String,
        /// Its number of values.
        n_values: usize,
        /// The limit.
        most: usize,
    },
    /// Invertible downsampling needs sizes that its factor divides.
    #[error("{layer}: {what} {size} is not divisible by the stride {stride}")]
    StrideDoesNotDivide {
        /// The layer's name.
        layer: String,
        /// Which size: height, width or kernel size.
        what: &'static str,
        /// Its value.
        size: usize,
        /// The stride.
        stride: usize,
    },
    /// MaxMin and GroupSort need a number of channels that the group size divides.
    #[error("{layer}: {channels} channels do not divide into groups of {group}")]
    GroupsDoNotDivide {
        /// The layer's name.
        layer: String,
        /// The number of channels.
        channels: usize,
        /// The group size.
        group: usize,
    },
    /// A layer stands where it cannot: a convolution after `Flatten`, a dense layer before it.
    #[error("{layer} cannot follow {previous}: {reason}")]
    LayerOrder {
        /// The layer's name.
        layer: String,
        /// What comes before it.
        previous: String,
        /// Why that does not work.
        reason: &'static str,
    },
    /// A module has no plain layers that it stands for, and so no certificate.
    #[error("{layer} has no plain form: {reason}")]
    NoPlainForm {
        /// The layer's place and kind.
        layer: String,
        /// Why.
        reason: String,
    },
    /// No layer of these sizes is orthogonal.
    #[error("{layer} cannot be orthogonal: {reason}")]
    NotOrthogonal {
        /// The layer's name.
        layer: String,
        /// Why.
        reason: String,
    },
    /// A number that must be finite is not.
    #[error("{what} holds {value} at flat index {index}, expected finite numbers")]
    NonFinite {
        /// The tensor's name.
        what: String,
        /// Where the first offender stands.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// A number is NaN or infinite in a tensor that was not copied to the host.
    #[error("{what} holds a value that is not a finite number")]
    NonFiniteSomewhere {
        /// The tensor's name.
        what: String,
    },
    /// The norm of a weight is zero, and the method divides by it.
    #[error("{layer}.weight is zero, expected a nonzero value: it is divided by its norm")]
    ZeroWeight {
        /// The layer's name.
        layer: String,
    },
    /// A weight whose rows are to be divided by their norms has one that is zero.
    #[error(
        "{layer}.weight has the zero row {row}, expected nonzero rows: each is divided by its norm"
    )]
    ZeroRow {
        /// The layer's name.
        layer: String,
        /// Index of the first such row.
        row: usize,
    },
    /// A training step failed and left everything as it was.
    #[error("step {step}: {source}")]
    Step {
        /// Its number, counted from 1.
        step: u64,
        /// The reason.
        source: Box<Error>,
    },
    /// A label names no class.
    #[error("label {label} at index {index} is not a class: expected 0 … {}", n_classes - 1)]
    LabelOutOfRange {
        /// Position in the batch.
        index: usize,
        /// The label found.
        label: u32,
        /// The number of classes.
        n_classes: usize,
    },
    /// Something is defined for another number of network outputs.
    #[error("the network has {got} outputs, expected {expected} for {what}")]
    NumberOfOutputs {
        /// What is defined for `expected` outputs.
        what: &'static str,
        /// The number demanded.
        expected: usize,
        /// The network's number.
        got: usize,
    },
    /// A loss depends on the last weight, and the network does not end with a dense layer or the caller did not give it.
    #[error(
        "the loss depends on the distances of the last weight's rows, expected a network that ends with a dense layer"
    )]
    NoLastWeight,
    /// A batch for the comparison of two distributions lacks samples of one.
    #[error(
        "{n_samples} samples and none of label {label}, expected samples of both distributions: labels 0 and 1"
    )]
    EmptyDistribution {
        /// The label that does not occur.
        label: u32,
        /// Samples in the batch.
        n_samples: usize,
    },
    /// A setting is outside its domain.
    #[error("{name} is {value}, expected {expected}")]
    InvalidSetting {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: String,
        /// The domain.
        expected: &'static str,
    },
    /// No choice has this name.
    #[error("unknown {what} `{name}`, expected one of `{}`", known.join("`, `"))]
    UnknownName {
        /// What the name should name.
        what: &'static str,
        /// The name found.
        name: String,
        /// All names.
        known: Vec<&'static str>,
    },
    /// A checkpoint lacks a tensor.
    #[error("{path}: tensor `{name}` is missing")]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A checkpoint holds a tensor that the network does not have.
    #[error(
        "{path}: unexpected tensor `{name}`; the network described by the file has no such tensor"
    )]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A checkpoint cannot be understood.
    #[error("{path}: {problem}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what was expected.
        problem: String,
    },
    /// A checkpoint's tensor does not fit.
    #[error("{path}: {source}")]
    CheckpointTensor {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: Box<Error>,
    },
    /// Reading or writing a file failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// `read`, `write` …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A kernel assembly or orthonormalisation failed.
    #[error("{layer}: {source}")]
    Algebra {
        /// The layer's name.
        layer: String,
        /// The reason.
        source: blockconv::Error,
    },
    /// An orthonormalisation failed.
    #[error("{layer}: {source}")]
    Orthonormalisation {
        /// The layer's name.
        layer: String,
        /// The reason.
        source: projectors::Error,
    },
    /// A CUDA device or its driver failed.
    #[error("CUDA device: could not {doing}: {reason}")]
    Device {
        /// What was to be done.
        doing: &'static str,
        /// The driver's words.
        reason: String,
    },
    /// The CUDA engine lacks something that candle's operations have.
    #[error(
        "the CUDA engine does not run {what}, expected what it runs; candle's operations run it"
    )]
    NotOnEngine {
        /// What it lacks.
        what: String,
    },
    /// The tensor library failed.
    #[error("tensor operation failed: {0}")]
    Candle(#[from] candle_core::Error),
}

/// A shape in which 0 stands for any size.
struct Demanded<'a>(&'a [usize]);

impl fmt::Display for Demanded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |&side: &usize| if side == 0 { "any".to_owned() } else { side.to_string() };
        write!(f, "[{}]", self.0.iter().map(side).collect::<Vec<_>>().join(", "))
    }
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            error => Self::wrap(error),
        }
    }
}
