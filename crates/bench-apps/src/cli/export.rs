//! `lipconv export`.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use interchange::{pytorch_module, pytorch_weights, to_onnx};

use super::model::Model;
use crate::config::DeviceKind;
use crate::files::{check_output, write_atomic};
use crate::stdout::outln;

/// Write a trained network for PyTorch: weights as safetensors, and the module that takes them
///
/// If --out ends with .onnx, writes one file in ONNX instead (operator set 20), which onnxruntime runs and `lipconv import` reads.
/// Convolutions become nn.Conv2d with padding_mode="circular"; a kernel of even size gets a last row and column of zeros,
/// which makes it the same map. FILE.py beside the weights builds the network and loads them with torch alone. A file of this
/// name that an earlier export did not write is kept, and the command refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv export runs/first
  lipconv export runs/first --out digits.safetensors
  lipconv export runs/first --out digits.onnx
  python3 -c 'from digits import load; print(load(\"digits.safetensors\"))'")]
pub(super) struct Args {
    /// A run directory, or a file of weights
    #[arg(value_name = "RUN")]
    model: PathBuf,
    /// Where to write the weights; the Python file is written to the same folder
    #[arg(long, value_name = "FILE", default_value = "exported.safetensors")]
    out: PathBuf,
}

/// Python's keywords, and the modules that the written module imports.
const RESERVED: &str = "False None True and as assert async await break class continue def del elif else except finally for \
    from global if import in is lambda nonlocal not or pass raise return try while with yield collections json torch";

/// How every exported module begins, of this version and earlier ones.
const EXPORTED: &str = "\"\"\"A 1-Lipschitz network, exported by lipconv.";

/// Refuses to replace a file that is not a module of an earlier export.
fn check_module(module: &Path) -> Result<()> {
    check_output(module)?;
    // what else there is has just been refused, or is a device
    if !fs::symlink_metadata(module).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(());
    }
    let (shown, mut start) = (module.display(), Vec::new());
    File::open(module)
        .and_then(|file| file.take(EXPORTED.len() as u64).read_to_end(&mut start))
        .with_context(|| format!("cannot read {shown}"))?;
    ensure!(
        start == EXPORTED.as_bytes(),
        "{shown} is there and was not exported, expected no file or an exported module: the module of --out would replace it"
    );
    Ok(())
}

/// Whether a name ends like this, in capitals or not.
pub(super) fn ends_in(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(extension))
}

fn is_module_name(stem: &str) -> bool {
    let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
    stem.starts_with(letter)
        && stem.chars().all(|c| letter(c) || c.is_ascii_digit())
        && !RESERVED.split_whitespace().any(|word| word == stem)
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let model = Model::load(&args.model, Some(DeviceKind::Cpu))?;
    let network = &model.network;
    if ends_in(&args.out, "onnx") {
        check_output(&args.out)?;
        write_atomic(&args.out, &to_onnx(network)?)?;
        outln!("{}", args.out.display());
        return Ok(ExitCode::SUCCESS);
    }
    let stem = args.out.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let module = args.out.with_extension("py");
    ensure!(
        !ends_in(&args.out, "py"),
        "--out is {}, expected a name that does not end in .py, which the module beside it has",
        args.out.display()
    );
    let stem = stem.filter(|stem| is_module_name(stem)).with_context(|| {
        let out = args.out.display();
        format!("--out is {out}, expected a name that Python can import: letters, digits and underscores, and not that of torch")
    })?;
    check_output(&args.out)?;
    check_module(&module)?;
    let weights = pytorch_weights(network)?;
    let text = pytorch_module(network)?.replace("FILE", &stem);
    write_atomic(&args.out, &weights)?;
    write_atomic(&module, text.as_bytes())?;
    outln!("{}\n{}", args.out.display(), module.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::is_module_name;

    #[test]
    fn a_module_has_a_name_that_can_be_imported() {
        assert!(["exported", "net_2", "_x"].into_iter().all(is_module_name));
        let not = ["", "2nd", "my-net", "a b", "x\"\"\"", "torch", "json", "class", "é"];
        assert!(!not.into_iter().any(is_module_name));
    }
}
