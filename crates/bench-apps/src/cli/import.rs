//! `lipconv import`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use interchange::{Description, Imported, described, from_onnx};
use lipconv::PlainNetwork;

use super::inspect::{bound_line, table};
use crate::config::syntax_error;
use crate::files::check_output;
use crate::stdout::{note, outln};

/// Read a network of another program: ONNX, or safetensors with a description
///
/// Writes the plain network that every other command takes. Convolutions (zero and cyclic padding, strides, groups, dilation), dense layers,
/// ReLU, leaky ReLU, absolute values, MaxMin, GroupSort of pairs, batch normalisation, average pooling, pixel_unshuffle, a normalised input,
/// sums, concatenations and constant factors are known. Anything else is refused, and the message names it.
/// The table shows for every layer its own bound, and the bound from the image to its output.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Pixels are from 0 to 1: put a normalisation of the input into the network, so that its factor counts.
From PyTorch: torch.onnx.export(model, (images,), \"model.onnx\", external_data=False)

Examples:
  lipconv import model.onnx --out network.safetensors
  lipconv import weights.safetensors --description model.toml
  lipconv certify network.safetensors --dataset cifar10 --out certificate.json")]
pub(super) struct Args {
    /// A model in ONNX, or weights in safetensors
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The layers of weights in safetensors, as TOML
    #[arg(long, value_name = "FILE")]
    description: Option<PathBuf>,
    /// Where to write the network
    #[arg(long, value_name = "FILE", default_value = "network.safetensors")]
    out: PathBuf,
}

/// Larger files are no network that is certified here; ONNX allows 2 GiB.
const LARGEST: u64 = 1 << 30;

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    lipconv::output::protect(&args.file);
    args.description.iter().for_each(|file| lipconv::output::protect(file));
    check_output(&args.out)?;
    let network = read(&args.file, args.description.as_deref())?;
    outln!("{}", table(&network)?);
    outln!("{}", bound_line(&network)?);
    network.save(&args.out)?;
    outln!("{}", args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// The network of an ONNX file or, with a description, of a file of weights.
pub(super) fn read(file: &Path, description: Option<&Path>) -> Result<PlainNetwork> {
    let imported =
        imported(file, description).with_context(|| format!("cannot import {}", file.display()))?;
    imported.notes.iter().for_each(|line| note(line));
    Ok(imported.network)
}

fn imported(file: &Path, description: Option<&Path>) -> Result<Imported> {
    let bytes = bounded(file)?;
    let Some(path) = description else { return Ok(from_onnx(&bytes)?) };
    let text = String::from_utf8(bounded(path)?)
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    let origin = path.display().to_string();
    let description: Description =
        toml::from_str(&text).map_err(|error| syntax_error(&origin, &text, &error))?;
    Ok(Imported { network: described(&description, &bytes)?, notes: Vec::new() })
}

fn bounded(path: &Path) -> Result<Vec<u8>> {
    let unreadable = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(unreadable)?.len();
    ensure!(size <= LARGEST, "{} has {size} bytes, expected at most {LARGEST}", path.display());
    std::fs::read(path).with_context(unreadable)
}
