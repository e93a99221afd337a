//! `lipconv eval`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use certify::Arithmetic;

use super::args::{DataArgs, EvalFlags, Model};
use crate::config::{DatasetName, DeviceKind};
use crate::eps::ByEps;
use crate::experiment::evaluation::{Evaluated, evaluate};
use crate::files::{RunFiles, write_json};
use crate::progress::{Display, spoken};
use crate::stdout::{out, outln};
use crate::words::{attack_name, percent, text_table};

/// Clean, certified and attacked accuracy of a trained network
///
/// Certified accuracy comes in three kinds: nominal (Lipschitz constant 1 taken on faith, as in the literature), real
/// (rigorous for the stored weights in exact arithmetic) and as executed (rigorous for the floating-point computation). An
/// attack that succeeds inside an executed radius is an error. Results are printed and written to eval.json.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv eval runs/first
  lipconv eval runs/first --eps 0.5,1,1.58 --attack-eps 1.58,2 --strong-restarts 5
  lipconv eval network.safetensors --data-dir ../datasets --json eval.json")]
pub(super) struct Args {
    /// A run directory, or a file of weights
    #[arg(value_name = "RUN")]
    model: PathBuf,
    /// Where to compute [default: as trained]
    #[arg(long, value_enum)]
    device: Option<DeviceKind>,
    /// Images [default: as trained]
    #[arg(long, value_name = "NAME")]
    dataset: Option<DatasetName>,
    /// Evaluate on the first N test images only
    #[arg(long, value_name = "N")]
    test_limit: Option<usize>,
    /// Where to write the results [default: eval.json of the run directory]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    flags: EvalFlags,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let Model { loaded, mut config, run } = Model::load(&args.model, args.device)?;
    if let Some(dataset) = args.dataset.clone().filter(|d| *d != config.data.dataset) {
        config.data.dataset = dataset;
        config.use_default_radii();
    }
    args.flags.apply(&mut config)?;
    config.data.test_limit = args.test_limit.or(config.data.test_limit);
    config.data.train_limit = Some(1);
    config.validate()?;
    // a run on MNIST is not evaluated on something else behind the person's back; one that began without MNIST is
    let was_synthetic = run.as_ref().and_then(RunFiles::is_synthetic) == Some(true);
    let dataset = args.data.load(&config, was_synthetic, display)?;
    let evaluated = evaluate(&loaded.network, &dataset.test, &config.evaluation, display)?;
    let label = if dataset.is_synthetic() { "synthetic digits" } else { dataset.test.name() };
    outln!(
        "{} test images of {label}, {} in all",
        dataset.test.len(),
        spoken(Duration::from_secs_f64(evaluated.seconds))
    );
    out!("{}", tables(&evaluated));
    let json = args.json.clone().or_else(|| run.map(|run| run.eval()));
    if let Some(path) = json {
        write_json(&path, &evaluated.summary(&dataset.test))?;
        outln!("\nwritten to {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Accuracies, then the radii, then the bounds.
fn tables(evaluated: &Evaluated) -> String {
    let mut rows = vec![vec!["test accuracy, %".to_owned(), String::new()]];
    rows.push(vec!["clean".into(), percent(Some(evaluated.clean()))]);
    for (name, by_eps) in evaluated.attacked() {
        for (eps, value) in by_eps.iter() {
            rows.push(vec![format!("under {} at {eps}", attack_name(&name)), percent(Some(value))]);
        }
    }
    let bound = evaluated.evaluation.lipschitz;
    format!(
        "\n{}\n{}\nLipschitz constant of the stored weights: at most 1 + {:.1e}\n",
        text_table(&rows),
        certified_table(evaluated),
        bound - 1.0
    )
}

fn certified_table(evaluated: &Evaluated) -> String {
    let certified = evaluated.certified();
    let accumulated = evaluated.executed(Arithmetic::F32AccumulateF64);
    let columns: [(&str, &ByEps); 4] = [
        ("nominal", &certified.nominal),
        ("real", &certified.real),
        ("executed", &certified.executed),
        ("executed, f64 sums", &accumulated),
    ];
    let shown: Vec<_> = columns.iter().filter(|(_, by_eps)| !by_eps.is_empty()).collect();
    let mut rows = vec![
        std::iter::once("certified at".to_owned())
            .chain(shown.iter().map(|(name, _)| (*name).to_owned()))
            .collect(),
    ];
    for eps in &evaluated.eps {
        let values = shown.iter().map(|(_, by_eps)| percent(by_eps.get(eps.text())));
        rows.push(std::iter::once(eps.to_string()).chain(values).collect());
    }
    text_table(&rows)
}
