//! `lipconv attack`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use candle_core::Tensor;
use certify::batched_logits;
use certify::{
    Arithmetic, Attack, AttackOutcome, AttackStart, Boundary, Certifier, Classifier, Fgsm, Loss,
    Pgd, Pointwise, Stopping, ZeroPaddedNetwork, ZeroPaddedSpec, check_soundness,
};
use clap::ValueEnum;
use lipconv::output;
use serde::Serialize;

use super::args::DataArgs;
use super::model::{Model, tensors, test_images};
use crate::config::{DatasetName, DeviceKind, RunConfig};
use crate::data::ImageSet;
use crate::eps::Eps;
use crate::files::{check_output, write_json};
use crate::progress::{Display, Progress, spoken_seconds};
use crate::stdout::outln;
use crate::words::{percent, text_table};

/// Attack a network
///
/// FGSM and PGD use gradients, the boundary and the pointwise attack only the predicted class. All are measured in the L2 norm of
/// pixels from 0 to 1; an image counts as broken when an image of another class was found within --eps. Networks of this program are
/// certified as well, and an attack that succeeds inside an executed radius is an error.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv attack runs/first --attack pgd --eps 1.58
  lipconv attack runs/first --attack pgd --eps 1.58 --steps 100 --step-size 0.04 --restarts 5 --loss ce
  lipconv attack runs/first --attack boundary --eps 1.58 --test-limit 100 --json boundary.json")]
pub(super) struct Args {
    /// A run directory, or a file of weights
    #[arg(value_name = "RUN")]
    model: PathBuf,
    /// The attack
    #[arg(long, value_enum)]
    attack: AttackKind,
    /// Radius, as in 1.58 or 36/255
    #[arg(long, value_name = "EPS", allow_hyphen_values = true)]
    eps: Eps,
    /// What the file of weights holds
    #[arg(long, value_enum, default_value_t = Architecture::Own)]
    architecture: Architecture,
    /// Where to compute [default: as trained]
    #[arg(long, value_enum)]
    device: Option<DeviceKind>,
    /// Images [default: as trained]
    #[arg(long, value_enum)]
    dataset: Option<DatasetName>,
    /// Attack the first N test images only
    #[arg(long, value_name = "N")]
    test_limit: Option<usize>,
    /// Where to write the distances of all images
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    data: DataArgs,
}

/// Settings of the attacks; each belongs to some of them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Attack")]
struct Settings {
    /// Steps of PGD (200) and of the boundary attack (5000)
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Length of a PGD step
    #[arg(long, value_name = "X", default_value_t = 0.01, allow_negative_numbers = true)]
    step_size: f64,
    /// Random starts of PGD
    #[arg(long, value_name = "N", default_value_t = 1)]
    restarts: usize,
    /// What FGSM and PGD climb
    #[arg(long, value_enum, default_value_t = LossKind::Cw)]
    loss: LossKind,
    /// κ of the cw loss
    #[arg(long, value_name = "X", default_value_t = 50.0, allow_negative_numbers = true)]
    kappa: f64,
    /// Decides all random draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Queries for one image, boundary and pointwise attack
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_queries: usize,
    /// Go on with images that are broken, to find smaller distances
    #[arg(long)]
    to_the_end: bool,
    /// Images in one forward pass
    #[arg(long, value_name = "N", default_value_t = 500)]
    batch_size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AttackKind {
    /// One step of length eps along the gradient
    Fgsm,
    /// Projected gradient descent
    Pgd,
    /// Random walk along the decision boundary
    Boundary,
    /// Pixel by pixel back from noise
    Pointwise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LossKind {
    /// Carlini and Wagner's difference of logits
    Cw,
    /// Cross-entropy
    Ce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Architecture {
    /// A network of this program
    Own,
    /// The "Small" CIFAR-10 network of Wong et al. 2018: zero padding, ReLU
    KwSmall,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Written<'a> {
    attack: &'a str,
    eps: f64,
    dataset: &'a str,
    clean: f64,
    accuracy: f64,
    seconds: f64,
    broken: &'a [bool],
    /// null where no adversarial image was found
    distances: Vec<Option<f64>>,
    predictions: &'a [usize],
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let attack = attack(args);
    match args.architecture {
        Architecture::Own => {
            let model = Model::load(&args.model, args.device)?;
            let images =
                model.test_images(&args.data, args.dataset.as_ref(), args.test_limit, display)?;
            let network = &model.network;
            let (pixels, labels) = tensors(&images, network.dtype())?;
            let pixels = pixels.to_device(network.device())?;
            let outcome =
                report(args, attack.as_ref(), network, &images, &pixels, &labels, display)?;
            let arithmetic = Arithmetic::of_dtype(network.dtype())?;
            let certificates = Certifier::new(network)?.certify(&pixels, &labels)?;
            let radii = &certificates.executed[&arithmetic];
            check_soundness(attack.name(), &outcome, &labels, radii, arithmetic)?;
            outln!("no image was broken inside its certified radius ({})", arithmetic.name());
        }
        Architecture::KwSmall => {
            let network = load_kw_small(&args.model)?;
            output::protect(&args.model);
            // what this architecture was trained on
            let config = RunConfig::of(DatasetName::Cifar10);
            let (dataset, limit) = (args.dataset.as_ref(), args.test_limit);
            let images = test_images(config, &args.data, dataset, limit, display)?;
            let (pixels, labels) = tensors(&images, network.dtype())?;
            report(args, attack.as_ref(), &network, &images, &pixels, &labels, display)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load_kw_small(path: &Path) -> Result<ZeroPaddedNetwork> {
    Ok(ZeroPaddedNetwork::load(path, &ZeroPaddedSpec::kw_small())?)
}

fn attack(args: &Args) -> Box<dyn Attack> {
    let (eps, s) = (args.eps.value(), &args.settings);
    let loss = match s.loss {
        LossKind::Cw => Loss::CarliniWagner { confidence: s.kappa },
        LossKind::Ce => Loss::CrossEntropy,
    };
    let stopping = if s.to_the_end { Stopping::Never } else { Stopping::WhenBroken };
    let (seed, batch_size, max_queries) = (s.seed, s.batch_size, s.max_queries);
    match args.attack {
        AttackKind::Fgsm => Box::new(Fgsm { eps, loss, batch_size }),
        AttackKind::Pgd => Box::new(Pgd {
            eps,
            steps: s.steps.unwrap_or(200),
            step_size: s.step_size,
            loss,
            start: AttackStart::Random,
            restarts: s.restarts,
            seed,
            stopping,
            batch_size,
        }),
        AttackKind::Boundary => {
            let defaults = Boundary::new(eps, seed);
            let steps = s.steps.unwrap_or(defaults.steps);
            Box::new(Boundary { steps, stopping, max_queries, batch_size, ..defaults })
        }
        AttackKind::Pointwise => {
            let defaults = Pointwise::new(eps, seed);
            Box::new(Pointwise { stopping, max_queries, batch_size, ..defaults })
        }
    }
}

/// Attacks, prints and writes.
fn report(
    args: &Args,
    attack: &dyn Attack,
    classifier: &dyn Classifier,
    images: &ImageSet,
    pixels: &Tensor,
    labels: &[usize],
    display: Display,
) -> Result<AttackOutcome> {
    args.json.as_deref().map_or(Ok(()), check_output)?;
    let logits = batched_logits(classifier, pixels, args.settings.batch_size.max(1))?;
    let margins = certify::margins(&logits, labels)?;
    let clean = certify::certified_accuracy(&margins, 0.0);
    const WHOLE: u64 = 1000;
    let mut bar = Progress::new(display, attack.name(), 0, WHOLE);
    let start = Instant::now();
    let outcome = attack.run(classifier, pixels, labels, &mut |report| {
        let message = format!("{} of {} broken", report.n_broken, report.n_samples);
        bar.update((report.fraction * WHOLE as f64) as u64, &message);
    })?;
    bar.finish();
    let seconds = start.elapsed().as_secs_f64();
    let name = images.label();
    let time = spoken_seconds(seconds);
    outln!("{} test images of {name}, {time}\n", labels.len());
    let rows = [
        ["accuracy, %".to_owned(), String::new()],
        ["clean".to_owned(), percent(Some(clean))],
        [format!("under {} at {}", attack.name(), args.eps), percent(Some(outcome.accuracy()))],
    ];
    outln!("{}", text_table(&rows.map(|row| row.to_vec())));
    if let Some(path) = &args.json {
        let is_adversarial = |i: usize| outcome.broken[i] || outcome.predictions[i] != labels[i];
        let found =
            |i: usize| Some(outcome.distances[i]).filter(|d| is_adversarial(i) && d.is_finite());
        let distances = (0..labels.len()).map(found).collect();
        let written = Written {
            attack: attack.name(),
            eps: args.eps.value(),
            dataset: images.name(),
            clean,
            accuracy: outcome.accuracy(),
            seconds,
            broken: &outcome.broken,
            distances,
            predictions: &outcome.predictions,
        };
        write_json(path, &written)?;
        outln!("written to {}", path.display());
    }
    Ok(outcome)
}
