//! Images that a person brings: IDX files of any kind, or folders of PNG and JPEG files.
//!
//! Definition. `idx:DIR` is a folder with the four files of MNIST's layout, whatever their size and classes; the number of
//! classes is the largest label plus one. `images:DIR` is
//!
//! ```text
//! DIR/train/CLASS/*.png    DIR/test/CLASS/*.png        (or .jpg, .jpeg, in any case)
//! ```
//!
//! with the classes numbered in the order of their names. Images are grey where the first one is, else RGB; transparency is
//! dropped and 16-bit samples become 8-bit ones. Within a class, files come in the order of their names.
//!
//! For distances between sets, [`flat_folder`] takes every image below a folder, whatever its class.
//!
//! Guarantee: all images have the size of the first; another size is an error that names both files. A class of the test
//! set that the training set does not have is an error.
//!
//! Errors: [`Error::Read`], [`Error::BadImage`], [`Error::ImageShape`], [`Error::DataNotFound`],
//! [`Error::InvalidArgument`] for more than 256 classes, [`Error::TooFewImages`].

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::image_set::{Dataset, ImageSet, ImageSetParts};
use super::locate::DataSource;
use super::mnist::MnistFiles;
use super::resize::resized_image;
use crate::error::{Error, Result};

/// The images of `idx:DIR`.
///
/// # Errors
/// [`Error::DataNotFound`], and those of [`super::idx`].
pub fn idx_folder(dir: &Path) -> Result<Dataset> {
    let files = MnistFiles::find(dir).ok_or_else(|| Error::DataNotFound {
        dataset: format!("IDX files in {}", dir.display()),
        reason:
            "expected train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                 t10k-labels-idx1-ubyte, gzipped or not"
                .into(),
    })?;
    let (train, test) = files.load_any(&folder_name(dir))?;
    Ok(Dataset { train, test, source: DataSource::Folder(dir.to_owned()), notes: Vec::new() })
}

/// The images of `images:DIR`.
///
/// # Errors
/// See the module.
pub fn image_folder(dir: &Path) -> Result<Dataset> {
    let (train_dir, test_dir) = (dir.join("train"), dir.join("test"));
    let classes = class_names(&train_dir)?;
    for class in class_names(&test_dir)? {
        if !classes.contains(&class) {
            return Err(Error::InvalidArgument {
                name: "class of the test images",
                got: class,
                expected: format!("one of {}", classes.join(", ")),
            });
        }
    }
    if classes.len() > 256 {
        return Err(Error::InvalidArgument {
            name: "number of classes",
            got: classes.len().to_string(),
            expected: "1 to 256".into(),
        });
    }
    let train_files = labelled_files(&train_dir, &classes)?;
    let test_files = labelled_files(&test_dir, &classes)?;
    let first = train_files[0].0.clone();
    let shape = shape_of(&first)?;
    let first = First { path: &first, shape };
    let set = |files: &[(PathBuf, u8)]| read_all(files, &first, &folder_name(dir), classes.len());
    let (train, test) = (set(&train_files)?, set(&test_files)?);
    let notes = vec![format!("classes of {}: {}", dir.display(), classes.join(", "))];
    Ok(Dataset { train, test, source: DataSource::Folder(dir.to_owned()), notes })
}

/// The last part of a folder's path, for people.
fn folder_name(dir: &Path) -> String {
    dir.file_name().map_or_else(|| "images".into(), |name| name.to_string_lossy().into_owned())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read_error = |source| Error::Read { path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(read_error)?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(read_error)?;
    paths.sort();
    Ok(paths)
}

fn class_names(dir: &Path) -> Result<Vec<String>> {
    let names: Vec<String> =
        entries(dir)?.iter().filter(|path| path.is_dir()).map(|path| folder_name(path)).collect();
    if names.is_empty() {
        return Err(Error::DataNotFound {
            dataset: format!("class folder in {}", dir.display()),
            reason: "expected DIR/train/CLASS/*.png and DIR/test/CLASS/*.png".into(),
        });
    }
    Ok(names)
}

fn labelled_files(dir: &Path, classes: &[String]) -> Result<Vec<(PathBuf, u8)>> {
    let mut files = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let folder = dir.join(class);
        if !folder.is_dir() {
            continue;
        }
        let label = u8::try_from(label).expect("at most 256 classes, as checked");
        files.extend(entries(&folder)?.into_iter().filter(|p| is_image(p)).map(|p| (p, label)));
    }
    if files.is_empty() {
        return Err(Error::DataNotFound {
            dataset: format!("image in {}", dir.display()),
            reason: "expected PNG or JPEG files in class folders".into(),
        });
    }
    Ok(files)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn open(path: &Path) -> Result<image::DynamicImage> {
    image::open(path).map_err(|e| Error::BadImage { path: path.to_owned(), reason: e.to_string() })
}

/// Channels, height and width that the first image gives to all.
fn shape_of(path: &Path) -> Result<[usize; 3]> {
    let image = open(path)?;
    let channels = if image.color().has_color() { 3 } else { 1 };
    Ok([channels, image.height() as usize, image.width() as usize])
}

fn read_all(
    files: &[(PathBuf, u8)],
    first: &First<'_>,
    name: &str,
    n_classes: usize,
) -> Result<ImageSet> {
    let images: Vec<Vec<u8>> =
        files.par_iter().map(|(path, _)| read_planes(path, first)).collect::<Result<_>>()?;
    ImageSet::new(ImageSetParts {
        name: name.to_owned(),
        shape: first.shape,
        n_classes,
        pixels: images.concat(),
        labels: files.iter().map(|(_, label)| *label).collect(),
        synthetic: false,
    })
}

/// The image that gives its shape to all.
struct First<'a> {
    path: &'a Path,
    shape: [usize; 3],
}

/// The pixels [c, h, w] of one file.
fn read_planes(path: &Path, first: &First<'_>) -> Result<Vec<u8>> {
    let image = open(path)?;
    let channels = if image.color().has_color() { 3 } else { 1 };
    let got = [channels, image.height() as usize, image.width() as usize];
    if got != first.shape {
        return Err(Error::ImageShape {
            path: path.to_owned(),
            got,
            first: first.path.to_owned(),
            expected: first.shape,
        });
    }
    Ok(planes(image, channels))
}

/// The pixels [c, h, w] of a decoded image, as grey or as colour.
fn planes(image: image::DynamicImage, channels: usize) -> Vec<u8> {
    if channels == 1 {
        return image.into_luma8().into_raw();
    }
    let interleaved = image.into_rgb8().into_raw();
    let plane = |c: usize| interleaved.iter().skip(c).step_by(3).copied();
    (0..3).flat_map(plane).collect()
}

/// All PNG and JPEG files in a folder and those below it, in the order of their paths, without labels.
///
/// With `size` (height and width), images of any sizes are brought to it; without it, all must have the first one's. Colour
/// images become colour for all where any of them has colour and `size` is given.
///
/// # Errors
/// As for [`image_folder`]; [`Error::TooFewImages`] where there are fewer than `at_least`.
pub fn flat_folder(dir: &Path, size: Option<(usize, usize)>, at_least: usize) -> Result<ImageSet> {
    let files = files_below(dir)?;
    if files.len() < at_least.max(1) {
        let (path, got, expected) = (dir.to_owned(), files.len(), at_least.max(1));
        return Err(Error::TooFewImages { path, got, expected });
    }
    let (shape, images) = match size {
        Some((height, width)) => read_at_size(&files, height, width)?,
        None => {
            let first = First { path: &files[0], shape: shape_of(&files[0])? };
            let images = files.par_iter().map(|path| read_planes(path, &first));
            (first.shape, images.collect::<Result<Vec<_>>>()?)
        }
    };
    ImageSet::new(ImageSetParts {
        name: folder_name(dir),
        shape,
        n_classes: 1,
        pixels: images.concat(),
        labels: vec![0; files.len()],
        synthetic: false,
    })
}

fn read_at_size(
    files: &[PathBuf],
    height: usize,
    width: usize,
) -> Result<([usize; 3], Vec<Vec<u8>>)> {
    let opened: Vec<image::DynamicImage> =
        files.par_iter().map(|path| open(path)).collect::<Result<_>>()?;
    let channels = if opened.iter().any(|image| image.color().has_color()) { 3 } else { 1 };
    let resized = |image: image::DynamicImage| {
        let shape = [channels, image.height() as usize, image.width() as usize];
        let pixels = planes(image, channels);
        Ok(resized_image(&pixels, shape, height, width)?.into_owned())
    };
    let images = opened.into_par_iter().map(resized).collect::<Result<Vec<_>>>()?;
    Ok(([channels, height, width], images))
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in entries(dir)? {
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if is_image(&path) {
            files.push(path);
        }
    }
    Ok(files)
}
