//! `lipconv certify`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use certify::{Arithmetic, CertificateFile, CertificateOrigin, Eps, certified_accuracy};

use super::args::DataArgs;
use super::model::{Model, tensors};
use crate::config::{DatasetName, ascending};
use crate::files::{Provenance, check_output};
use crate::progress::{Display, Progress};
use crate::report::table::certified_at;
use crate::stdout::{out, outln};

/// Write a certificate file: radii that someone else can check
///
/// For every test image the file holds a lower bound of the margin and radii inside which no change of the image changes its
/// class: of the exact function of the stored weights, and of the network as executed with TF32, in f32 with sums in any order, in
/// f32 with sums in blocks as this program adds them up on a CPU, in f32 with sums in f64, and in f64. It also holds bounds of the
/// layers' norms and hashes of weights and images. `lipconv verify` checks all of it by a method of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv certify runs/first --out certificate.json
  lipconv certify network.safetensors --dataset mnist --test-limit 100 --out certificate.json")]
pub(super) struct Args {
    /// A run directory, or a file of weights (network.safetensors of a run)
    #[arg(value_name = "RUN")]
    model: PathBuf,
    /// Where to write the certificate
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Images [default: as trained]
    #[arg(long, value_name = "NAME")]
    dataset: Option<DatasetName>,
    /// Certify the first N test images only
    #[arg(long, value_name = "N")]
    test_limit: Option<usize>,
    /// Radii at which to print certified accuracy, as in 0.5,1.58 or 36/255 [default: the data set's]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    eps: Option<Vec<Eps>>,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let (model, bytes) = Model::load_trained(&args.model)?;
    let eps = args.eps.clone().unwrap_or_else(|| model.radii(args.dataset.as_ref()));
    ascending("--eps", &eps)?;
    let images = model.test_images(&args.data, args.dataset.as_ref(), args.test_limit, display)?;
    check_output(&args.out)?;
    let (pixels, labels) = tensors(&images, model.network.dtype())?;
    let code = Provenance::collect("CPU").commit.unwrap_or_else(|| "unknown".into());
    let origin = CertificateOrigin { model: &bytes, data: images.name(), code: &code };
    let mut bar = Progress::new(display, "certify", 0, labels.len() as u64);
    let file = CertificateFile::new(&model.network, &pixels, &labels, origin, &mut |done| {
        bar.update(done as u64, "");
    })?;
    bar.finish();
    file.write(&args.out)?;
    out!("{}", table(&file, &eps));
    outln!(
        "\nreal: the exact function of the weights; the others: as executed in that arithmetic, in % of the images"
    );
    outln!("{} images, written to {}", labels.len(), args.out.display());
    Ok(ExitCode::SUCCESS)
}

fn table(file: &CertificateFile, eps: &[Eps]) -> String {
    let real: Vec<f64> = file.samples.iter().map(|sample| sample.real).collect();
    let mut columns = vec![("real", real)];
    for arithmetic in Arithmetic::ALL {
        let radii = file.samples.iter().filter_map(|sample| sample.executed.get(&arithmetic));
        let radii: Vec<f64> = radii.copied().collect();
        if !radii.is_empty() {
            columns.push((arithmetic.name(), radii));
        }
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    certified_at(&names, eps, |i, eps| Some(certified_accuracy(&columns[i].1, eps.value())))
}
