//! `lipconv import`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use interchange::{Description, Imported, described, from_onnx};

use super::inspect::{bound_line, rows};
use crate::files::check_output;
use crate::stdout::{escaped, note, outln};
use crate::words::text_table;

/// Read a network of another program: ONNX, or safetensors with a description
///
/// Writes the plain network that every other command takes. Convolutions (zero and cyclic padding, strides, groups, dilation), dense layers,
/// ReLU, leaky ReLU, absolute values, MaxMin, GroupSort of pairs, batch normalisation, average pooling, pixel_unshuffle, a normalised input,
/// sums, concatenations and constant factors are known. Anything else is refused by its name.
/// The table shows for every layer its own bound, and that of its output as a function of the image: where the constant is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Pixels are expected from 0 to 1: a normalisation of the input belongs into the network, where its factor counts.
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
    let imported = read(&args.file, args.description.as_deref())
        .with_context(|| format!("cannot import {}", args.file.display()))?;
    imported.notes.iter().for_each(|line| note(line));
    let network = &imported.network;
    outln!("{}", text_table(&rows(network)?));
    outln!("{}", bound_line(network)?);
    network.save(&args.out)?;
    outln!("{}", args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// The network of a file; what the file is is decided by whether there is a description.
pub(super) fn read(file: &Path, description: Option<&Path>) -> Result<Imported> {
    let bytes = bounded(file)?;
    let Some(path) = description else { return Ok(from_onnx(&bytes)?) };
    let text = String::from_utf8(bounded(path)?)
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    let description: Description = toml::from_str(&text).map_err(|error| {
        let message = escaped(error.message()).into_owned();
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        anyhow::anyhow!("{}, line {line}: {message}", path.display())
    })?;
    Ok(Imported { network: described(&description, &bytes)?, notes: Vec::new() })
}

fn bounded(path: &Path) -> Result<Vec<u8>> {
    let unreadable = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(unreadable)?.len();
    ensure!(size <= LARGEST, "{} has {size} bytes, expected at most {LARGEST}", path.display());
    std::fs::read(path).with_context(unreadable)
}
