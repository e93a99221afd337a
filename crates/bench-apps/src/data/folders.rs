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
//! Guarantee: all images have the size of the first; another size is an error that names the file. A class of the test
//! set that the training set does not have is an error.
//!
//! Errors: [`Error::Read`], [`Error::BadImage`], [`Error::ImageShape`], [`Error::DataNotFound`],
//! [`Error::InvalidArgument`] for more than 256 classes.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::image_set::{Dataset, ImageSet, ImageSetParts};
use super::locate::DataSource;
use super::mnist::MnistFiles;
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
    let shape = shape_of(&train_files[0].0)?;
    let set = |files: &[(PathBuf, u8)]| read_all(files, shape, &folder_name(dir), classes.len());
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
    shape: [usize; 3],
    name: &str,
    n_classes: usize,
) -> Result<ImageSet> {
    let images: Vec<Vec<u8>> =
        files.par_iter().map(|(path, _)| read_planes(path, shape)).collect::<Result<_>>()?;
    ImageSet::new(ImageSetParts {
        name: name.to_owned(),
        shape,
        n_classes,
        pixels: images.concat(),
        labels: files.iter().map(|(_, label)| *label).collect(),
        synthetic: false,
    })
}

/// The pixels [c, h, w] of one file.
fn read_planes(path: &Path, shape: [usize; 3]) -> Result<Vec<u8>> {
    let image = open(path)?;
    let channels = if image.color().has_color() { 3 } else { 1 };
    let got = [channels, image.height() as usize, image.width() as usize];
    if got != shape {
        return Err(Error::ImageShape { path: path.to_owned(), got, expected: shape });
    }
    if channels == 1 {
        return Ok(image.into_luma8().into_raw());
    }
    let interleaved = image.into_rgb8().into_raw();
    let plane = |c: usize| interleaved.iter().skip(c).step_by(3).copied();
    Ok((0..3).flat_map(plane).collect())
}
