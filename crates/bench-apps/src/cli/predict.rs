//! `lipconv predict`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use candle_core::Tensor;
use certify::{Arithmetic, Certifier, predicted_class};
use lipconv::{ImageShape, output};
use lipconv_datasets::{decode_image, images_below, resized_image};
use serde::Serialize;

use super::args::DataArgs;
use super::model::Model;
use crate::config::{DatasetName, DeviceKind};
use crate::experiment::evaluation::evaluated_logits;
use crate::files::{check_output, write_json};
use crate::progress::Display;
use crate::report::table::Table;
use crate::stdout::{escaped, note, out};
use crate::words::at_least;

/// Class and certified radius of images
///
/// An image (PNG, JPEG, GIF, WebP, BMP or TIFF) is turned upright as its EXIF data say, laid on white where it is
/// transparent, scaled to the size of the network's input and, for a network on grey images, reduced to grey.
/// MNIST is light on dark: give --invert for ink on paper. The radius is in the L2 norm of pixels from 0 to 1, and holds for
/// the scaled image: no smaller change gives another class. The class itself may be wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv predict runs/first digit.png --invert
  lipconv predict runs/first drawings                   all images of a folder
  lipconv predict runs/first --index 0 --index 8        images of the test set
  lipconv predict runs/first drawings --json found.json")]
pub(super) struct Args {
    /// A run directory, or a file of weights
    #[arg(value_name = "RUN")]
    model: PathBuf,
    /// Images, or folders of images
    #[arg(value_name = "IMAGE", required_unless_present = "index")]
    images: Vec<PathBuf>,
    /// Position of an image in the whole test set, from 0 (may be repeated)
    #[arg(long, value_name = "I")]
    index: Vec<usize>,
    /// Test set of --index [default: as trained]
    #[arg(long, value_name = "NAME")]
    dataset: Option<DatasetName>,
    /// Invert light and dark of the files
    #[arg(long)]
    invert: bool,
    /// Where to write the predictions
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    /// In which the radii hold.
    arithmetic: Arithmetic,
    predictions: Vec<Prediction>,
}

/// Radii, margin and runner-up are there unless the network has one class, which an image keeps whatever happens to it.
#[derive(Debug, Serialize)]
struct Prediction {
    image: String,
    class: String,
    radius: Option<f64>,
    nominal: Option<f64>,
    margin: Option<f64>,
    runner_up: Option<String>,
}

/// More than any test set has: an image keeps its position whatever a run's limit is.
const WHOLE: usize = 1_000_000_000;

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let model = Model::load(&args.model, Some(DeviceKind::Cpu))?;
    let input = model.network.input();
    let mut subjects = Vec::new();
    for path in files(&args.images)? {
        output::protect(&path);
        let pixels = read_image(&path, input, args.invert)?;
        subjects.push((path.display().to_string(), pixels));
    }
    if !args.index.is_empty() {
        let test = model.test_images(&args.data, args.dataset.as_ref(), Some(WHOLE), display)?;
        let own = args.dataset.is_none();
        for &i in &args.index {
            let (n, name) = (test.len(), test.name());
            ensure!(
                i < n,
                "--index is {i}, expected less than {n}, the number of test images of {name}"
            );
            let pixels = test.image(i)?.to_vec();
            let label = usize::from(test.labels()[i]);
            let label = if own { model.class_name(label) } else { label.to_string() };
            subjects.push((format!("test image {i}, a {label}"), pixels));
        }
    }
    args.json.as_deref().map(check_output).transpose()?;
    let report = predict(&model, subjects)?;
    out!("{}", table(&report.predictions));
    args.json.as_deref().map(|file| write_json(file, &report)).transpose()?;
    Ok(ExitCode::SUCCESS)
}

/// The files, and in place of a folder the images in it and below it.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let (found, notes) = images_below(path)?;
            notes.iter().for_each(|line| note(line));
            ensure!(!found.is_empty(), "{}: no image in this folder", path.display());
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Pixels [c, h, w] of a file, at the network's size.
fn read_image(path: &Path, input: ImageShape, invert: bool) -> Result<Vec<u8>> {
    let picture = decode_image(path)?;
    let [_, h, w] = picture.shape;
    if h * input.width != w * input.height {
        let to = format!("{} x {}", input.height, input.width);
        note(&format!("{}: {h} x {w} pixels are squeezed to {to}", path.display()));
    }
    let mut pixels = picture.with_channels(input.channels)?;
    if invert {
        pixels.iter_mut().for_each(|pixel| *pixel = u8::MAX - *pixel);
    }
    Ok(resized_image(&pixels, [input.channels, h, w], input.height, input.width)?.into_owned())
}

/// The predictions of images by name and pixels.
fn predict(model: &Model, subjects: Vec<(String, Vec<u8>)>) -> Result<Report> {
    let (network, input) = (&model.network, model.network.input());
    let shape = (subjects.len(), input.channels, input.height, input.width);
    let values: Vec<f32> =
        subjects.iter().flat_map(|(_, pixels)| pixels).map(|&p| f32::from(p) / 255.0).collect();
    let images = Tensor::from_vec(values, shape, network.device())?.to_dtype(network.dtype())?;
    let logits = evaluated_logits(network, &images)?;
    let predicted: Vec<usize> = logits.iter().map(|row| predicted_class(row)).collect();
    let certificates = Certifier::new(network)?.certify(&images, &predicted)?;
    let arithmetic = Arithmetic::of_network(network)?;
    let executed = &certificates.executed[&arithmetic];
    let has_others = network.n_classes() > 1;
    let prediction = |(i, (image, _)): (usize, (String, Vec<u8>))| {
        let mut others = logits[i].clone();
        others[predicted[i]] = f64::NEG_INFINITY;
        Prediction {
            image,
            class: model.class_name(predicted[i]),
            radius: has_others.then_some(executed[i]),
            nominal: has_others.then_some(certificates.nominal[i]),
            margin: has_others.then_some(certificates.margins[i]),
            runner_up: has_others.then(|| model.class_name(predicted_class(&others))),
        }
    };
    let predictions = subjects.into_iter().enumerate().map(prediction).collect();
    Ok(Report { arithmetic, predictions })
}

fn table(predictions: &[Prediction]) -> String {
    let head = ["image", "class", "radius", "nominal", "margin", "runner-up"];
    let or_any = |text: Option<String>| text.unwrap_or_else(|| "any".into());
    let row = |found: &Prediction| {
        vec![
            escaped(&found.image).into_owned(),
            found.class.clone(),
            or_any(found.radius.map(|radius| at_least(radius, 4))),
            or_any(found.nominal.map(|radius| format!("{radius:.4}"))),
            or_any(found.margin.map(|margin| at_least(margin, 4))),
            found.runner_up.clone().unwrap_or_default(),
        ]
    };
    Table::plain(&head, predictions.iter().map(row).collect()).terminal()
}
