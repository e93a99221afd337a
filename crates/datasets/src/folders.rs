//! Images that a person brings: IDX files of any kind, or folders of image files.
//!
//! Definition. `idx:DIR` is a folder with the four files of MNIST's layout, whatever their size and classes; the number of
//! classes is the largest label plus one. `images:DIR` is
//!
//! ```text
//! DIR/train/CLASS/IMAGE    DIR/test/CLASS/IMAGE
//! ```
//!
//! with the classes numbered in the order of their names. Images are grey where the first one is, else RGB. For distances
//! between sets, [`flat_folder`] takes every image below a folder, whatever its class. An image is a file that begins as one
//! ([`decode_image`](crate::decode_image)) or is called like one. Links are followed, but a folder or a file that was reached before, by whatever name, is
//! not read again, so that no circle of links is walked twice. Paths come in the order of their bytes.
//!
//! Guarantee: all images have the shape of the first, or are brought to one size; another shape is an error that names both
//! files. Every entry of a folder is an image that is used, or counted in a note (hidden entries, files that are not images,
//! what is neither file nor folder, links that lead nowhere, what was reached before), or an error (a folder in a class, a
//! class without training images, a class that only the test set has).

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::{DataSource, Dataset};
use crate::decode::{decode_image, has_colour, is_image};
use crate::error::{Error, Result, by};
use crate::image_set::{ImageSet, ImageSetParts};
use crate::manifest::Manifest;
use crate::mnist::MnistFiles;
use crate::resize::resized_image;

/// The images of `idx:DIR`.
pub fn idx_folder(dir: &Path) -> Result<Dataset> {
    let files = MnistFiles::find_any(dir).ok_or_else(|| Error::DataNotFound {
        dataset: format!("IDX files in {}", dir.display()),
        reason:
            "expected train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                 t10k-labels-idx1-ubyte, gzipped or not"
                .into(),
    })?;
    let found = files.load_any(&folder_name(dir))?;
    let mut notes = Vec::new();
    if files.folder() != dir {
        notes.push(format!("the IDX files are those in {}", files.folder().display()));
    }
    if found.are_published(&Manifest::mnist()?) {
        notes.push(format!("the images in {} are those of MNIST", files.folder().display()));
    }
    let source = DataSource::Folder(dir.to_owned());
    Ok(Dataset { train: found.train, test: found.test, classes: Vec::new(), source, notes })
}

/// The images of `images:DIR`, all of one shape.
pub fn image_folder(dir: &Path) -> Result<Dataset> {
    image_folder_at(dir, None)
}

/// The images of `images:DIR`, of any shapes where they are to be brought to `size` x `size`.
pub fn image_folder_at(dir: &Path, size: Option<usize>) -> Result<Dataset> {
    let mut left_out = LeftOut::default();
    for entry in entries(dir, &mut left_out)? {
        if !["train", "test"].iter().any(|known| entry.name() == *known) {
            left_out.add("neither train nor test", &entry.path);
        }
    }
    let (train_dir, test_dir) = (dir.join("train"), dir.join("test"));
    let classes = class_names(&train_dir, &mut left_out)?;
    for class in class_names(&test_dir, &mut left_out)? {
        if !classes.contains(&class) {
            return Err(Error::InvalidArgument {
                name: "class of the test images",
                got: class.to_string_lossy().into_owned(),
                expected: format!("one of {}", shown(&classes)),
            });
        }
    }
    if classes.len() > 256 {
        return Err(Error::argument("number of classes", classes.len(), "1 to 256"));
    }
    let train_files = labelled_files(&train_dir, &classes, &mut left_out)?;
    let test_files = labelled_files(&test_dir, &classes, &mut left_out)?;
    let with_images = |label: usize| train_files.iter().any(|file| usize::from(file.1) == label);
    if let Some(empty) = (0..classes.len()).find(|&label| !with_images(label)) {
        return Err(no_images(&train_dir.join(&classes[empty])));
    }
    let all: Vec<&Path> = train_files.iter().chain(&test_files).map(|(path, _)| &**path).collect();
    let shaped = Shaped::of(&all, size.map(|side| (side, side)))?;
    let set = |files: &[(PathBuf, u8)]| read_all(files, &shaped, &folder_name(dir), classes.len());
    let (train, test) = (set(&train_files)?, set(&test_files)?);
    let mut notes = vec![format!("classes of {}: {}", dir.display(), shown(&classes))];
    let tested = |label: usize| test.labels().iter().any(|&l| usize::from(l) == label);
    let untested = (0..classes.len()).filter(|&label| !tested(label));
    let untested: Vec<OsString> = untested.map(|label| classes[label].clone()).collect();
    if !untested.is_empty() {
        notes.push(format!("no test images of {}", shown(&untested)));
    }
    notes.extend(left_out.notes(dir));
    let classes = classes.iter().map(|class| class.to_string_lossy().into_owned()).collect();
    Ok(Dataset { train, test, classes, source: DataSource::Folder(dir.to_owned()), notes })
}

fn shown(classes: &[OsString]) -> String {
    classes.iter().map(|class| class.to_string_lossy()).collect::<Vec<_>>().join(", ")
}

/// The last component of a folder's path, as text.
fn folder_name(dir: &Path) -> String {
    dir.file_name().map_or_else(|| "images".into(), |name| name.to_string_lossy().into_owned())
}

fn class_names(dir: &Path, left_out: &mut LeftOut) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    let found = if dir.is_dir() { entries(dir, left_out)? } else { Vec::new() };
    for entry in found {
        if entry.metadata.is_dir() {
            names.push(entry.name().to_owned());
        } else {
            left_out.add("not in the folder of a class", &entry.path);
        }
    }
    if names.is_empty() {
        return Err(Error::DataNotFound {
            dataset: format!("class folder in {}", dir.display()),
            reason: "expected DIR/train/CLASS/*.png and DIR/test/CLASS/*.png".into(),
        });
    }
    Ok(names)
}

fn labelled_files(
    dir: &Path,
    classes: &[OsString],
    left_out: &mut LeftOut,
) -> Result<Vec<(PathBuf, u8)>> {
    let mut files = Vec::new();
    for (label, class) in (0..).zip(classes) {
        let folder = dir.join(class);
        if folder.is_dir() {
            // an image may be in two classes, but not twice in one
            let found = images(&folder, Nested::Refused, &mut Reached::default(), left_out)?;
            files.extend(found.into_iter().map(|path| (path, label)));
        }
    }
    if files.is_empty() { Err(no_images(dir)) } else { Ok(files) }
}

fn no_images(dir: &Path) -> Error {
    Error::DataNotFound {
        dataset: format!("image in {}", dir.display()),
        reason: "expected PNG, JPEG, GIF, WebP, BMP or TIFF files in class folders".into(),
    }
}

/// The shape that all images have, or are brought to.
enum Shaped<'a> {
    /// That of the first one.
    AsFirst { path: &'a Path, shape: [usize; 3] },
    /// Any image, resized.
    Resized([usize; 3]),
}

impl<'a> Shaped<'a> {
    /// Of all `files`, or of `size` (height and width). Grey images then become colour where any has colour.
    fn of(files: &[&'a Path], size: Option<(usize, usize)>) -> Result<Self> {
        let Some((height, width)) = size else {
            let path = files[0];
            return Ok(Self::AsFirst { path, shape: decode_image(path)?.shape });
        };
        let any_colour = files.par_iter().map(|path| has_colour(path));
        let any_colour = any_colour.try_reduce(|| false, |a, b| Ok(a | b))?;
        Ok(Self::Resized([if any_colour { 3 } else { 1 }, height, width]))
    }

    fn shape(&self) -> [usize; 3] {
        match self {
            Self::AsFirst { shape, .. } | Self::Resized(shape) => *shape,
        }
    }

    /// The pixels [c, h, w] of one file.
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let picture = decode_image(path)?;
        let [_, h, w] = picture.shape;
        match self {
            Self::Resized([channels, height, width]) => {
                let pixels = picture.with_channels(*channels)?;
                Ok(resized_image(&pixels, [*channels, h, w], *height, *width)?.into_owned())
            }
            Self::AsFirst { shape, .. } if picture.shape == *shape => Ok(picture.pixels),
            Self::AsFirst { path: first, shape } => {
                let (got, expected, first) = (by(&picture.shape), by(shape), first.display());
                let what = format!(
                    "{got}, expected {expected}, the shape of {first}; --size brings all to one"
                );
                Err(Error::malformed(path, what))
            }
        }
    }
}

fn read_all(
    files: &[(PathBuf, u8)],
    shaped: &Shaped<'_>,
    name: &str,
    n_classes: usize,
) -> Result<ImageSet> {
    let images: Vec<Vec<u8>> =
        files.par_iter().map(|(path, _)| shaped.read(path)).collect::<Result<_>>()?;
    ImageSet::new(ImageSetParts {
        name: name.to_owned(),
        shape: shaped.shape(),
        n_classes,
        pixels: images.concat(),
        labels: files.iter().map(|(_, label)| *label).collect(),
        synthetic: false,
    })
}

/// The image files in a folder and below it, in the order of their paths; with notes on what was left out.
pub fn images_below(dir: &Path) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let mut left_out = LeftOut::default();
    let files = images(dir, Nested::Allowed, &mut Reached::default(), &mut left_out)?;
    Ok((files, left_out.notes(dir)))
}

/// All images in a folder and those below it, in the order of their paths, without labels; with notes on what was left out.
///
/// With `size` (height and width), images of any sizes are brought to it; without it, all must have the first one's. Grey
/// images become colour where any image has colour and `size` is given.
pub fn flat_folder(
    dir: &Path,
    size: Option<(usize, usize)>,
    at_least: usize,
) -> Result<(ImageSet, Vec<String>)> {
    let (files, notes) = images_below(dir)?;
    if files.len() < at_least.max(1) {
        let (n, at_least) = (files.len(), at_least.max(1));
        let plural = if n == 1 { "" } else { "s" };
        return Err(Error::malformed(
            dir,
            format!("{n} image{plural}, expected at least {at_least}"),
        ));
    }
    let labelled: Vec<(PathBuf, u8)> = files.into_iter().map(|path| (path, 0)).collect();
    let all: Vec<&Path> = labelled.iter().map(|(path, _)| &**path).collect();
    let set = read_all(&labelled, &Shaped::of(&all, size)?, &folder_name(dir), 1)?;
    Ok((set, notes))
}

/// What may be found below a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nested {
    /// Folders, to any depth.
    Allowed,
    /// A folder is an error.
    Refused,
}

/// What was left out so far: how many of each kind, and the first.
#[derive(Debug, Default)]
pub(crate) struct LeftOut(BTreeMap<&'static str, (usize, PathBuf)>);

impl LeftOut {
    pub(crate) fn add(&mut self, kind: &'static str, path: &Path) {
        self.0.entry(kind).or_insert_with(|| (0, path.to_owned())).0 += 1;
    }

    /// One line for each kind.
    pub(crate) fn notes(&self, dir: &Path) -> Vec<String> {
        let note = |(kind, (n, first)): (&&str, &(usize, PathBuf))| {
            let first = first.strip_prefix(dir).unwrap_or(first).display();
            format!("left out of {} as {kind}: {n} (first {first})", dir.display())
        };
        self.0.iter().map(note).collect()
    }
}

/// Folders and files that were reached.
#[derive(Debug, Default)]
pub(crate) struct Reached(HashSet<Identity>);

#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

impl Reached {
    /// Whether this is the first time.
    fn insert(&mut self, path: &Path, metadata: &Metadata) -> bool {
        self.0.insert(identity(path, metadata))
    }
}

#[cfg(unix)]
fn identity(_path: &Path, metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(path: &Path, _metadata: &Metadata) -> Identity {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// One entry of a folder, its links followed.
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) metadata: Metadata,
}

impl Entry {
    pub(crate) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

/// The entries of a folder that are neither hidden nor links to nowhere.
pub(crate) fn entries(dir: &Path, left_out: &mut LeftOut) -> Result<Vec<Entry>> {
    let read_error = Error::read(dir);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(read_error)? {
        paths.push(entry.map_err(read_error)?.path());
    }
    paths.sort();
    let mut entries = Vec::new();
    for path in paths {
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            left_out.add("hidden", &path);
            continue;
        }
        match fs::metadata(&path) {
            Ok(metadata) => entries.push(Entry { path, metadata }),
            Err(_) if path.is_symlink() => left_out.add("a link to nowhere", &path),
            Err(source) => return Err(Error::Read { path, source }),
        }
    }
    Ok(entries)
}

/// The images in `dir`, and below it where that is allowed.
pub(crate) fn images(
    dir: &Path,
    nested: Nested,
    reached: &mut Reached,
    left_out: &mut LeftOut,
) -> Result<Vec<PathBuf>> {
    let metadata = fs::metadata(dir).map_err(Error::read(dir))?;
    reached.insert(dir, &metadata);
    let mut found = Vec::new();
    for Entry { path, metadata } in entries(dir, left_out)? {
        if metadata.is_dir() && nested == Nested::Refused {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return Err(Error::malformed(
                dir,
                format!("holds the folder {name}, expected images alone"),
            ));
        }
        let is_plain = metadata.is_dir() || metadata.is_file();
        if !is_plain {
            left_out.add("neither file nor folder", &path);
        } else if !reached.insert(&path, &metadata) {
            left_out.add("read before under another name", &path);
        } else if metadata.is_dir() {
            found.extend(images(&path, nested, reached, left_out)?);
        } else if is_called_image(&path) || is_image(&path)? {
            found.push(path);
        } else {
            left_out.add("not an image", &path);
        }
    }
    Ok(found)
}

fn is_called_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let known = ["png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff"];
    known.iter().any(|known| extension.eq_ignore_ascii_case(known))
}
