//! The error type of this crate.
//!
//! Every message is one line that names the thing, its value and what was expected, so that the command can print it
//! as it stands.
//!
//! Not here: the errors of the libraries below, which the command wraps with `anyhow`.

use std::path::PathBuf;

/// A `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with data, configurations, run directories and reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A gzip stream ends before its end marker.
    #[error("{}: the gzip stream is truncated after {got} bytes of content, expected a complete file", path.display())]
    TruncatedGzip {
        /// The file.
        path: PathBuf,
        /// Bytes of content that could be decompressed.
        got: u64,
    },
    /// A gzip stream is damaged.
    #[error("{}: the gzip stream is damaged: {reason}", path.display())]
    CorruptGzip {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// An IDX file does not begin with the expected magic number.
    #[error("{}: magic number is {got:#010x}, expected {expected:#010x} ({content})", path.display())]
    WrongMagic {
        /// The file.
        path: PathBuf,
        /// The number found.
        got: u32,
        /// The number an IDX file of this content begins with.
        expected: u32,
        /// The content in words.
        content: &'static str,
    },
    /// A dimension in an IDX header is zero or absurd.
    #[error("{}: {field} is {got}, expected 1 to {max}", path.display())]
    BadDimension {
        /// The file.
        path: PathBuf,
        /// The header field.
        field: &'static str,
        /// The value found.
        got: u32,
        /// The greatest value accepted.
        max: u32,
    },
    /// A file holds less than its header promises.
    #[error("{}: {field} is {got} bytes long, expected {expected}", path.display())]
    TruncatedData {
        /// The file.
        path: PathBuf,
        /// The part that is too short.
        field: &'static str,
        /// Bytes promised.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// A file goes on after the content that its header promises.
    #[error("{}: bytes follow the content, expected the end of the file after {expected} bytes", path.display())]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// Length that the header promises, header included.
        expected: u64,
    },
    /// An image file and a label file hold different numbers of samples.
    #[error("{} holds {labels} labels, expected {images}, the number of images in {}",
            labels_path.display(), images_path.display())]
    CountMismatch {
        /// The image file.
        images_path: PathBuf,
        /// Images in it.
        images: usize,
        /// The label file.
        labels_path: PathBuf,
        /// Labels in it.
        labels: usize,
    },
    /// A label is not a class.
    #[error("{origin}: label {index} is {label}, expected 0 to {}", n_classes - 1)]
    LabelOutOfRange {
        /// The label file, or the set's name.
        origin: String,
        /// Position of the label.
        index: usize,
        /// Its value.
        label: u8,
        /// Number of classes.
        n_classes: usize,
    },
    /// An archive does not hold a file that it should.
    #[error("{}: {member} is missing from the archive", path.display())]
    MissingMember {
        /// The archive.
        path: PathBuf,
        /// The file that it should hold.
        member: &'static str,
    },
    /// A file is not a run of whole records.
    #[error("{} is {got} bytes long, expected a positive multiple of {record}", path.display())]
    BadRecords {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        got: u64,
        /// Length of a record in bytes.
        record: u64,
    },
    /// A label of STL-10 is none of its classes.
    #[error("{}: label {index} is {got}, expected 1 to 10", path.display())]
    BadStl10Label {
        /// The label file.
        path: PathBuf,
        /// Position of the label.
        index: usize,
        /// Its value.
        got: u8,
    },
    /// An image file cannot be decoded.
    #[error("cannot read the image {}: {reason}", path.display())]
    BadImage {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// An image has another shape than the first of its set.
    #[error("{} is {}, expected {}, the shape of {}", path.display(), by(got), by(expected), first.display())]
    ImageShape {
        /// The file.
        path: PathBuf,
        /// Its channels, height and width.
        got: [usize; 3],
        /// The first image of the set.
        first: PathBuf,
        /// Its channels, height and width.
        expected: [usize; 3],
    },
    /// A folder of images holds fewer than are needed.
    #[error("{} holds {}, expected at least {expected}", path.display(), crate::text_table::counted(*got, "image"))]
    TooFewImages {
        /// The folder.
        path: PathBuf,
        /// Images in it.
        got: usize,
        /// Images that are needed.
        expected: usize,
    },
    /// Two sets of images that are to be compared have different shapes.
    #[error(
        "images of {a} are {}, those of {b} are {}; give both one size with --size",
        by(a_shape),
        by(b_shape)
    )]
    ShapesDiffer {
        /// The first set.
        a: String,
        /// Its channels, height and width.
        a_shape: [usize; 3],
        /// The second set.
        b: String,
        /// Its channels, height and width.
        b_shape: [usize; 3],
    },
    /// An argument has a value outside its domain.
    #[error("{name} is {got}, expected {expected}")]
    InvalidArgument {
        /// The argument.
        name: &'static str,
        /// Its value.
        got: String,
        /// Its domain.
        expected: String,
    },
    /// A sample index lies outside the set.
    #[error("sample index is {index}, expected less than {len}, the size of {set}")]
    IndexOutOfRange {
        /// The index.
        index: usize,
        /// Number of samples.
        len: usize,
        /// The set.
        set: String,
    },
    /// A manifest cannot be parsed or contradicts itself.
    #[error("manifest {name}: {reason}")]
    Manifest {
        /// The manifest.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A data set was not found and could not be had.
    #[error("no {dataset}: {reason}")]
    DataNotFound {
        /// The data set.
        dataset: String,
        /// Where it was looked for and what failed.
        reason: String,
    },
    /// A server answered with an error status.
    #[error("{url}: HTTP status {status}, expected 200 or 206")]
    HttpStatus {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// A transfer failed.
    #[error("{url}: {reason}")]
    Transfer {
        /// The address.
        url: String,
        /// What failed.
        reason: String,
    },
    /// A downloaded file is not the published one.
    #[error("{file}: SHA-256 is {got}, expected {expected} (from {url})")]
    WrongHash {
        /// The file name.
        file: String,
        /// Hash of what arrived.
        got: String,
        /// Hash in the manifest.
        expected: String,
        /// Where it came from.
        url: String,
    },
    /// No mirror delivered a file.
    #[error("{file} could not be downloaded: {}", reasons.join("; "))]
    DownloadFailed {
        /// The file name.
        file: String,
        /// One line per attempt.
        reasons: Vec<String>,
    },
    /// A configuration is not valid TOML, has an unknown key or a value of the wrong type.
    #[error("{origin}: {reason}")]
    ConfigSyntax {
        /// The file, or the flag.
        origin: String,
        /// What the parser said, on one line.
        reason: String,
    },
    /// A configuration value is outside its domain.
    #[error("{key} is {got}, expected {expected}")]
    ConfigValue {
        /// The key with its table, as in `training.epochs`.
        key: &'static str,
        /// Its value.
        got: String,
        /// Its domain.
        expected: String,
    },
    /// A run directory is being written by another process.
    #[error("{} is in use by another process", path.display())]
    RunLocked {
        /// The run directory.
        path: PathBuf,
    },
    /// A new run was asked for where a run exists.
    #[error("{} already holds a run; resume it (--resume) or choose another folder", path.display())]
    RunExists {
        /// The run directory.
        path: PathBuf,
    },
    /// A folder does not hold a run.
    #[error("{} is not a run directory: {missing} is missing", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// The first file that is missing.
        missing: &'static str,
    },
    /// A run was begun on other images.
    #[error("{} was begun on other images than those found now ({source_now}); name their folder with --data-dir",
            path.display())]
    OtherData {
        /// The run directory.
        path: PathBuf,
        /// Where the present images came from.
        source_now: String,
    },
    /// A critic is for images of another shape.
    #[error("the critic {} is for images of {}, those of {images} are {}", path.display(), by(expected), by(got))]
    CriticShape {
        /// The critic's file.
        path: PathBuf,
        /// Channels, height and width that it takes.
        expected: [usize; 3],
        /// The images, by name.
        images: String,
        /// Their channels, height and width.
        got: [usize; 3],
    },
    /// The folder of a generator was begun with other settings or images.
    #[error("{} was begun with other settings or other images; choose another folder", path.display())]
    OtherGan {
        /// The folder.
        path: PathBuf,
    },
    /// A batch system's command failed.
    #[error("{command} failed: {reason}")]
    BatchSystem {
        /// The command.
        command: &'static str,
        /// What failed.
        reason: String,
    },
    /// A JSON file cannot be parsed.
    #[error("{}: {reason}", path.display())]
    BadJson {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A chart or an image of the report could not be drawn.
    #[error("cannot draw {what}: {reason}")]
    Draw {
        /// The figure.
        what: &'static str,
        /// What failed.
        reason: String,
    },
    /// A layer has no counterpart in PyTorch that we know of.
    #[error("layer {layer} cannot be exported: there is no module for it")]
    NotExportable {
        /// The layer's name.
        layer: String,
    },
    /// A tensor could not be made.
    #[error("tensor: {0}")]
    Tensor(#[from] candle_core::Error),
}

fn by(shape: &[usize; 3]) -> String {
    format!("{} x {} x {}", shape[0], shape[1], shape[2])
}
