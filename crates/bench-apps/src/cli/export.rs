//! `lipconv export`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::args::Model;
use crate::config::DeviceKind;
use crate::export::{python, write_weights};
use crate::files::write_atomic;
use crate::stdout::outln;

/// Write a trained network for PyTorch: weights as safetensors, and the module that takes them
///
/// Convolutions become nn.Conv2d with padding_mode="circular"; a kernel of even size gets a last row and column of zeros,
/// which makes it the same map. FILE.py beside the weights builds the network and loads them with torch alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv export runs/first
  lipconv export runs/first --out digits.safetensors
  python3 -c 'from digits import load; print(load(\"digits.safetensors\"))'")]
pub(super) struct Args {
    /// A run directory, or a file of weights
    #[arg(value_name = "RUN")]
    model: PathBuf,
    /// Where to write the weights; the Python file stands beside them
    #[arg(long, value_name = "FILE", default_value = "exported.safetensors")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let model = Model::load(&args.model, Some(DeviceKind::Cpu))?;
    let network = &model.loaded.network;
    let stem = args.out.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let module = args.out.with_extension("py");
    write_weights(network, &args.out)?;
    let text = python(network)?.replace("FILE", &stem.unwrap_or_default());
    write_atomic(&module, text.as_bytes())?;
    outln!("{}\n{}", args.out.display(), module.display());
    Ok(ExitCode::SUCCESS)
}
