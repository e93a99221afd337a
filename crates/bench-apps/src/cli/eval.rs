//! `lipconv eval`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use certify::{Arithmetic, ByEps, LogitBound};

use super::args::{DataArgs, EvalFlags};
use super::model::Model;
use crate::config::{DatasetName, DeviceKind};
use crate::experiment::evaluation::{Evaluated, evaluate};
use crate::files::{RunFiles, check_output, write_json};
use crate::progress::{Display, spoken_seconds};
use crate::report::table::certified_at;
use crate::results::AutoAttacked;
use crate::stdout::{out, outln};
use crate::words::{attack_name, lipschitz_text, percent, text_table};

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
  lipconv eval runs/first --auto-attack 1000
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
    let model = Model::load(&args.model, args.device)?;
    let mut config = model.config.clone();
    if let Some(dataset) = args.dataset.clone().filter(|d| *d != config.data.dataset) {
        config.data.dataset = dataset;
        config.use_default_radii();
    }
    args.flags.apply(&mut config)?;
    let test = model.test_images(&args.data, args.dataset.as_ref(), args.test_limit, display)?;
    let json = args.json.clone().or_else(|| model.run.as_ref().map(RunFiles::eval));
    json.as_deref().map_or(Ok(()), check_output)?;
    let evaluated = evaluate(&model.network, &test, &config.evaluation, display)?;
    outln!(
        "{} test images of {}, {} in all",
        test.len(),
        test.label(),
        spoken_seconds(evaluated.seconds)
    );
    out!("{}", tables(&evaluated));
    for auto in evaluated.auto_attacked() {
        let seconds = spoken_seconds(auto.seconds);
        outln!("AutoAttack at {} took {seconds}", auto.eps);
        auto.flags.iter().for_each(|flag| outln!("doubtful: {flag}"));
    }
    if let Some(path) = json {
        write_json(&path, &evaluated.summary(&test))?;
        outln!("\nwritten to {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Accuracies, then the radii, then the bounds.
fn tables(evaluated: &Evaluated) -> String {
    let mut rows = vec![vec!["test accuracy, %".to_owned(), String::new()]];
    rows.push(vec!["clean".into(), percent(Some(evaluated.evaluation.clean))]);
    for (name, by_eps) in evaluated.attacked() {
        for (eps, value) in by_eps.iter() {
            rows.push(vec![format!("under {} at {eps}", attack_name(&name)), percent(Some(value))]);
        }
    }
    let n_all = evaluated.evaluation.n_samples;
    for auto in evaluated.auto_attacked().iter().filter(|auto| auto.n_images < n_all) {
        let AutoAttacked { eps, n_images, clean, certified, accuracy, .. } = auto;
        let of = format!("of the first {n_images}");
        rows.push(vec![format!("clean, {of}"), percent(Some(*clean))]);
        rows.push(vec![format!("certified at {eps}, {of}"), percent(*certified)]);
        rows.push(vec![format!("under AutoAttack at {eps}, {of}"), percent(Some(*accuracy))]);
    }
    let bound = evaluated.evaluation.lipschitz;
    let pairwise = match evaluated.evaluation.nominal_bound {
        LogitBound::Global => "",
        LogitBound::Pairwise => {
            "\nnominal: rounding ignored, with the distances of the last weight's rows, because its norm exceeds 1\n"
        }
    };
    format!(
        "\n{}\n{}{pairwise}\nLipschitz constant of the stored weights: at most {}\n",
        text_table(&rows),
        certified_table(evaluated),
        lipschitz_text(bound)
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
    let (names, shown): (Vec<&str>, Vec<&ByEps>) =
        columns.into_iter().filter(|(_, by_eps)| !by_eps.is_empty()).unzip();
    certified_at(&names, &evaluated.eps, |i, eps| shown[i].get(eps.text()))
}
