//! `lipconv predict`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::Tensor;
use certify::{Arithmetic, Certifier};
use image::imageops::FilterType;
use lipconv::{ImageShape, PlainNetwork};

use super::args::{DataArgs, Model};
use crate::experiment::evaluation::evaluated_logits;
use crate::files::RunFiles;
use crate::progress::Display;
use crate::stdout::outln;
use crate::words::text_table;

/// Class and certified radius of images
///
/// An image (PNG or JPEG) is scaled to the size of the network's input and, for a network on grey images, reduced to grey.
/// MNIST is light on dark: give --invert for ink on paper. The radius is in the L2 norm of pixels from 0 to 1, and holds for
/// the scaled image: no change by less gives another class, whatever the true class is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv predict runs/first digit.png --invert
  lipconv predict runs/first --index 0 --index 8        images of the test set")]
pub(super) struct Args {
    /// A run directory, or a file of weights
    #[arg(value_name = "RUN")]
    model: PathBuf,
    /// Images
    #[arg(value_name = "IMAGE", required_unless_present = "index")]
    images: Vec<PathBuf>,
    /// Position of an image in the test set (may be repeated)
    #[arg(long, value_name = "I")]
    index: Vec<usize>,
    /// Exchange light and dark of the files
    #[arg(long)]
    invert: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// An image to classify.
struct Subject {
    name: String,
    pixels: Vec<u8>,
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let model = Model::load(&args.model, Some(crate::config::DeviceKind::Cpu))?;
    let network = &model.loaded.network;
    let mut subjects = Vec::new();
    for path in &args.images {
        let pixels = read_image(path, network.input(), args.invert)?;
        subjects.push(Subject { name: path.display().to_string(), pixels });
    }
    if !args.index.is_empty() {
        let may_be_synthetic = model.run.as_ref().and_then(RunFiles::is_synthetic) == Some(true);
        let test = args.data.load(&model.config, may_be_synthetic, display)?.test;
        for &i in &args.index {
            let pixels = test.image(i)?.to_vec();
            subjects
                .push(Subject { name: format!("test image {i}, a {}", test.labels()[i]), pixels });
        }
    }
    outln!("{}", text_table(&rows(network, &subjects)?).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Pixels [c, h, w] of a file, at the network's size.
fn read_image(path: &Path, input: ImageShape, invert: bool) -> Result<Vec<u8>> {
    let image = image::ImageReader::open(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .with_guessed_format()?
        .decode()
        .with_context(|| format!("cannot read {}", path.display()))?;
    let (width, height) = (u32::try_from(input.width)?, u32::try_from(input.height)?);
    let mut image = image.resize_exact(width, height, FilterType::Triangle);
    if invert {
        image.invert();
    }
    match input.channels {
        1 => Ok(image.to_luma8().into_raw()),
        3 => {
            let rgb = image.to_rgb8();
            Ok((0..3).flat_map(|channel| rgb.pixels().map(move |p| p.0[channel])).collect())
        }
        c => anyhow::bail!("the network wants {c} channels, an image file gives 1 or 3"),
    }
}

fn rows(network: &PlainNetwork, subjects: &[Subject]) -> Result<Vec<Vec<String>>> {
    let input = network.input();
    let shape = (subjects.len(), input.channels, input.height, input.width);
    let values: Vec<f32> =
        subjects.iter().flat_map(|s| &s.pixels).map(|&p| f32::from(p) / 255.0).collect();
    let images = Tensor::from_vec(values, shape, network.device())?.to_dtype(network.dtype())?;
    let logits = evaluated_logits(network, &images)?;
    let predicted: Vec<usize> = logits.iter().map(|row| largest(row)).collect();
    let certificates = Certifier::new(network)?.certify(&images, &predicted)?;
    let executed = &certificates.executed[&Arithmetic::of_dtype(network.dtype())?];
    let heading = ["image", "class", "radius", "nominal", "margin", "runner-up"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (i, subject) in subjects.iter().enumerate() {
        let mut others = logits[i].clone();
        others[predicted[i]] = f64::NEG_INFINITY;
        rows.push(vec![
            subject.name.clone(),
            predicted[i].to_string(),
            format!("{:.4}", executed[i]),
            format!("{:.4}", certificates.nominal[i]),
            format!("{:.4}", certificates.margins[i]),
            largest(&others).to_string(),
        ]);
    }
    Ok(rows)
}

/// Position of the largest value, the first of several.
fn largest(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}
