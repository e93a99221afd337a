//! `lipconv attack`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use certify::{
    Apgd, ApgdLoss, Arithmetic, Attack, AttackOutcome, AttackStart, AttackTarget, AutoAttack,
    AutoAttackFlag, Boundary, Certifier, Eps, Fab, Fgsm, Loss, PartReport, Pgd, Pointwise, Square,
    Stopping, check_soundness,
};
use clap::ValueEnum;
use lipconv_datasets::ImageSet;
use serde::Serialize;

use super::args::DataArgs;
use super::model::{Model, tensors};
use crate::config::{DatasetName, DeviceKind};
use crate::experiment::evaluation::show_attack;
use crate::files::{check_output, write_json};
use crate::jobs::evidence::clean_accuracy;
use crate::jobs::kw_small;
use crate::progress::{Display, Stages, spoken_seconds};
use crate::stdout::outln;
use crate::words::{percent, text_table};

/// Attack a network
///
/// FGSM, PGD, APGD and FAB use gradients. Square uses the logits. The boundary and the pointwise attack use only the predicted
/// class. "auto" is AutoAttack, the attack to report: APGD with cross-entropy, APGD towards nine classes, FAB and Square, each on the images that
/// the others have left. All are measured in the L2 norm of pixels from 0 to 1; an image counts as broken when an image of another
/// class was found within --eps. The network is certified as well, and an attack that succeeds inside an executed radius is an
/// error. A certified image cannot be broken, so that the attacks skip it; --attack-certified attacks it too, to test the certificates.
/// Boundary and pointwise attack all images, because they measure distances.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv attack runs/first --attack auto --eps 1.58
  lipconv attack runs/first --attack auto --eps 1.58 --attack-certified --to-the-end --json nearest.json
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
    /// Network of the file of weights
    #[arg(long, value_enum, default_value_t = Architecture::Own)]
    architecture: Architecture,
    /// Where to compute [default: as trained]
    #[arg(long, value_enum)]
    device: Option<DeviceKind>,
    /// Images [default: as trained]
    #[arg(long, value_name = "NAME")]
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
    /// Steps of PGD (200), of APGD and FAB (100) and of the boundary attack (5000)
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Length of a PGD step [default: 0.01]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    step_size: Option<f64>,
    /// Random starts of PGD, APGD, FAB and Square [default: 1]
    #[arg(long, value_name = "N")]
    restarts: Option<usize>,
    /// Loss that the attack raises [default: cw for FGSM and PGD, dlr-t for APGD]
    #[arg(long, value_enum)]
    loss: Option<LossKind>,
    /// κ of the cw loss [default: 50]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    kappa: Option<f64>,
    /// Seed of all random draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Queries for one image: Square (5000), boundary and pointwise attack (1000000)
    #[arg(long, value_name = "N")]
    max_queries: Option<usize>,
    /// Attack certified images as well, which tests the certificates; boundary and pointwise always do
    #[arg(long)]
    attack_certified: bool,
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
    /// AutoAttack: apgd twice, fab and square
    Auto,
    /// Auto-PGD: gradient ascent that chooses its own steps
    Apgd,
    /// FAB: looks for the nearest image of each other class
    Fab,
    /// Random search with square windows, without gradients
    Square,
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
    /// Difference of logits ratio, which no scale of the logits changes
    Dlr,
    /// The same towards each of the nine next classes in turn; apgd only
    DlrT,
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
    /// Certified radii as executed.
    radii: &'a [f64],
    /// What each part of "auto" did.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    parts: &'a [PartReport],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    flags: &'a [AutoAttackFlag],
}

/// What is attacked, where it is from, and what is certified of it.
struct Target<'a> {
    attacked: AttackTarget<'a>,
    images: &'a ImageSet,
    /// Certified radii as executed.
    radii: &'a [f64],
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let attack = attack(args)?;
    let attack = attack.as_ref();
    if args.architecture == Architecture::KwSmall
        && args.device.is_some_and(|d| d != DeviceKind::Cpu)
    {
        bail!("--device belongs to networks of this program; kw-small is computed on the CPU");
    }
    let model = match args.architecture {
        Architecture::Own => Model::load(&args.model, args.device)?,
        Architecture::KwSmall => Model::imported(kw_small::load(&args.model)?, &args.model),
    };
    let images = model.test_images(&args.data, args.dataset.as_ref(), args.test_limit, display)?;
    let network = &model.network;
    let (pixels, labels) = tensors(&images, network.dtype())?;
    let pixels = pixels.to_device(network.device())?;
    let arithmetic = Arithmetic::of_network(network)?;
    let certificates = Certifier::new(network)?.certify(&pixels, &labels)?;
    let radii = certificates.executed[&arithmetic].as_slice();
    let target =
        Target { attacked: AttackTarget::new(network, &pixels, &labels), images: &images, radii };
    let outcome = report(args, attack, &target, display)?;
    check_soundness(attack.name(), &outcome, &labels, radii, arithmetic)?;
    outln!("no image was broken inside its certified radius ({})", arithmetic.name());
    Ok(ExitCode::SUCCESS)
}

impl Settings {
    /// Refuses a setting that the attack does not have.
    fn check(&self, attack: AttackKind) -> Result<()> {
        use AttackKind::{Apgd, Auto, Boundary, Fab, Fgsm, Pgd, Pointwise, Square};
        let settings: [(&str, bool, &[AttackKind]); 7] = [
            ("--steps", self.steps.is_some(), &[Pgd, Auto, Apgd, Fab, Boundary]),
            ("--step-size", self.step_size.is_some(), &[Pgd]),
            ("--restarts", self.restarts.is_some(), &[Pgd, Apgd, Fab, Square]),
            ("--loss", self.loss.is_some(), &[Fgsm, Pgd, Apgd]),
            ("--kappa", self.kappa.is_some(), &[Fgsm, Pgd]),
            ("--max-queries", self.max_queries.is_some(), &[Auto, Square, Boundary, Pointwise]),
            ("--to-the-end", self.to_the_end, &[Pgd, Auto, Apgd, Fab, Square, Boundary, Pointwise]),
        ];
        let name = |kind: &AttackKind| {
            kind.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
        };
        for (flag, is_given, owners) in settings {
            if is_given && !owners.contains(&attack) {
                let owners: Vec<String> = owners.iter().map(name).collect();
                bail!("{flag} belongs to {}, not to --attack {}", owners.join(", "), name(&attack));
            }
        }
        if self.kappa.is_some() && self.loss.is_some_and(|loss| loss != LossKind::Cw) {
            bail!("--kappa belongs to --loss cw");
        }
        Ok(())
    }
}

fn attack(args: &Args) -> Result<Box<dyn Attack>> {
    let (eps, s) = (args.eps.value(), &args.settings);
    s.check(args.attack)?;
    let stopping = if s.to_the_end { Stopping::Never } else { Stopping::WhenBroken };
    let (seed, batch_size, restarts) = (s.seed, s.batch_size, s.restarts.unwrap_or(1));
    let max_queries = s.max_queries.unwrap_or(1_000_000);
    Ok(match args.attack {
        AttackKind::Auto => {
            let standard = AutoAttack::standard(eps, seed);
            let auto = standard.with_batch_size(batch_size).with_stopping(stopping);
            Box::new(auto.with_budgets(s.steps, s.max_queries))
        }
        AttackKind::Apgd => {
            let defaults = Apgd::standard(eps, apgd_loss(s)?, seed);
            let steps = s.steps.unwrap_or(defaults.steps);
            Box::new(Apgd { steps, restarts, stopping, batch_size, ..defaults })
        }
        AttackKind::Fab => {
            let defaults = Fab::standard(eps, seed);
            let steps = s.steps.unwrap_or(defaults.steps);
            Box::new(Fab { steps, restarts, stopping, batch_size, ..defaults })
        }
        AttackKind::Square => {
            let defaults = Square::standard(eps, seed);
            let queries = s.max_queries.unwrap_or(defaults.queries);
            Box::new(Square { queries, restarts, stopping, batch_size, ..defaults })
        }
        AttackKind::Fgsm => Box::new(Fgsm { eps, loss: loss(s)?, batch_size }),
        AttackKind::Pgd => Box::new(Pgd {
            eps,
            steps: s.steps.unwrap_or(200),
            step_size: s.step_size.unwrap_or(0.01),
            loss: loss(s)?,
            start: AttackStart::Random,
            restarts,
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
    })
}

/// The loss of FGSM and PGD.
fn loss(settings: &Settings) -> Result<Loss> {
    match settings.loss.unwrap_or(LossKind::Cw) {
        LossKind::Cw => Ok(Loss::CarliniWagner { confidence: settings.kappa.unwrap_or(50.0) }),
        LossKind::Ce => Ok(Loss::CrossEntropy),
        LossKind::Dlr => Ok(Loss::DifferenceOfLogitsRatio),
        LossKind::DlrT => {
            bail!("--loss dlr-t belongs to --attack apgd; fgsm and pgd take cw, ce or dlr")
        }
    }
}

/// The loss of APGD.
fn apgd_loss(settings: &Settings) -> Result<ApgdLoss> {
    match settings.loss.unwrap_or(LossKind::DlrT) {
        LossKind::Ce => Ok(ApgdLoss::CrossEntropy),
        LossKind::Dlr => Ok(ApgdLoss::Dlr),
        LossKind::DlrT => Ok(ApgdLoss::TargetedDlr { targets: 9 }),
        LossKind::Cw => {
            bail!("--loss cw belongs to fgsm and pgd; --attack apgd takes ce, dlr or dlr-t")
        }
    }
}

/// The images to attack: not those that a certificate says will withstand, where nobody wants it tested.
fn samples(args: &Args, target: &Target<'_>) -> Vec<usize> {
    let measures = matches!(args.attack, AttackKind::Boundary | AttackKind::Pointwise);
    let skips = !measures && !args.settings.attack_certified;
    let eps = args.eps.value();
    let is_certified = |i: usize| target.radii[i] > eps;
    (0..target.attacked.labels.len()).filter(|&i| !(skips && is_certified(i))).collect()
}

/// Attacks, prints and writes.
fn report(
    args: &Args,
    attack: &dyn Attack,
    target: &Target<'_>,
    display: Display,
) -> Result<AttackOutcome> {
    args.json.as_deref().map_or(Ok(()), check_output)?;
    let Target { attacked, images, radii } = *target;
    let AttackTarget { classifier, images: pixels, labels } = attacked;
    let batch_size = args.settings.batch_size.max(1);
    let clean = clean_accuracy(classifier, pixels, labels, batch_size)?;
    let mut bars = Stages::new(display);
    let start = Instant::now();
    let samples = samples(args, target);
    let show = &mut |report| show_attack(&mut bars, report);
    let outcome = attack.run_on(&samples, attacked, show)?;
    bars.finish();
    let seconds = start.elapsed().as_secs_f64();
    let n = labels.len();
    outln!("{n} test images of {}, {}", images.label(), spoken_seconds(seconds));
    if samples.len() < n {
        outln!("{} of them are certified at {} and were left out", n - samples.len(), args.eps);
    }
    outln!("");
    let row = |name: &str, value: f64| vec![name.to_owned(), percent(Some(value))];
    let mut rows = vec![vec!["accuracy, %".to_owned(), String::new()], row("clean", clean)];
    let mut left = n;
    rows.extend(outcome.parts.iter().map(|part| {
        left -= part.n_broken;
        row(&format!("after {}", part.attack), 100.0 * left as f64 / n as f64)
    }));
    rows.push(row(&format!("under {} at {}", attack.name(), args.eps), outcome.accuracy()));
    outln!("{}", text_table(&rows));
    outcome.flags.iter().for_each(|flag| outln!("doubtful: {flag}"));
    if let Some(path) = &args.json {
        let is_adversarial = |i: usize| outcome.broken[i] || outcome.predictions[i] != labels[i];
        let found =
            |i: usize| Some(outcome.distances[i]).filter(|d| is_adversarial(i) && d.is_finite());
        let written = Written {
            attack: attack.name(),
            eps: args.eps.value(),
            dataset: images.name(),
            clean,
            accuracy: outcome.accuracy(),
            seconds,
            broken: &outcome.broken,
            distances: (0..n).map(found).collect(),
            predictions: &outcome.predictions,
            radii,
            parts: &outcome.parts,
            flags: &outcome.flags,
        };
        write_json(path, &written)?;
        outln!("written to {}", path.display());
    }
    Ok(outcome)
}
