//! From a trained and evaluated network to `results.json` and `report.html`.

use anyhow::Result;
use certify::Arithmetic;
use lipconv::PlainNetwork;

use super::evaluation::Evaluated;
use crate::config::{
    ActivationKind, AugmentationKind, DatasetName, NetworkName, RunConfig, ScheduleKind,
};
use crate::data::{Dataset, ImageSet};
use crate::files::EpochMetrics;
use crate::files::Provenance;
use crate::report::{CertifiedCurve, LayerFact, Report, Sample, paper};
use crate::results::{PaperFigures, ResultRow};
use crate::text_table::counted;

/// Test images shown in the report.
const N_SHOWN: usize = 40;
/// Points of the certified-accuracy curve.
const N_POINTS: usize = 160;

/// Everything that a write-up is made of.
#[derive(Debug)]
pub struct Finished<'a> {
    /// Name of the experiment.
    pub experiment: &'a str,
    /// Its configuration.
    pub config: &'a RunConfig,
    /// Its images.
    pub dataset: &'a Dataset,
    /// The trained network.
    pub network: &'a PlainNetwork,
    /// What was found.
    pub evaluated: &'a Evaluated,
    /// How training went.
    pub history: Vec<EpochMetrics>,
    /// Time of training, seconds.
    pub training_seconds: f64,
    /// Versions, commit, command, machine.
    pub provenance: Provenance,
}

impl Finished<'_> {
    /// The row of `results.json`.
    #[must_use]
    pub fn row(&self) -> ResultRow {
        let config = self.config;
        ResultRow {
            experiment: self.experiment.to_owned(),
            dataset: self.dataset_key().to_owned(),
            synthetic: self.dataset.is_synthetic(),
            network: network_key(config.network.name).to_owned(),
            layer: config.network.layer.to_string(),
            activation: activation_key(config.network.activation).to_owned(),
            seed: config.training.seed,
            epochs: config.training.epochs,
            budget: None,
            device: self.provenance.device.clone(),
            commit: self.provenance.commit.clone(),
            seconds: self.training_seconds + self.evaluated.seconds,
            clean: self.evaluated.clean(),
            certified: self.evaluated.certified(),
            attacks: self.evaluated.attacked(),
            paper: self.reference().map(PaperFigures::from),
        }
    }

    /// The report.
    ///
    /// # Errors
    /// Images that do not fit the network.
    pub fn report(&self) -> Result<Report> {
        let headline = self.headline_eps();
        Ok(Report {
            row: self.row(),
            reference: self.reference(),
            accumulate_f64: self.evaluated.executed(Arithmetic::F32AccumulateF64).get(&headline),
            headline_eps: headline,
            history: self.history.clone(),
            curve: self.curve(),
            samples: self.samples()?,
            samples_are: format!(
                "The first {} images of the test set",
                N_SHOWN.min(self.dataset.test.len())
            ),
            layers: self.layers(),
            lipschitz: self.evaluated.evaluation.lipschitz,
            facts: self.facts(),
            notes: self.dataset.notes.clone(),
        })
    }

    /// The paper's cell; none for synthetic images, for part of a data set, or for another nonlinearity.
    fn reference(&self) -> Option<&'static paper::Reference> {
        let config = self.config;
        let whole = config.data.train_limit.is_none() && config.data.test_limit.is_none();
        let same = whole && config.network.activation == ActivationKind::MaxMin;
        let found = paper::reference(
            self.dataset_key(),
            network_key(config.network.name),
            &config.network.layer.to_string(),
        );
        found.filter(|_| same)
    }

    fn dataset_key(&self) -> &str {
        match self.config.data.dataset {
            _ if self.dataset.is_synthetic() => crate::data::synthetic::NAME,
            DatasetName::Mnist => "mnist",
            DatasetName::Cifar10 => "cifar10",
            DatasetName::Stl10 => "stl10",
            _ => self.dataset.test.name(),
        }
    }

    fn headline_eps(&self) -> String {
        let evaluation = &self.config.evaluation;
        evaluation
            .attack_eps
            .first()
            .or(evaluation.eps.last())
            .map_or_else(String::new, ToString::to_string)
    }

    /// Certified accuracy over the radius.
    #[must_use]
    pub fn curve(&self) -> CertifiedCurve {
        let certificates = &self.evaluated.evaluation.samples.certificates;
        let largest =
            certificates.nominal.iter().copied().filter(|r| r.is_finite()).fold(0.0, f64::max);
        let asked = self.evaluated.eps.last().map_or(1.0, crate::Eps::value);
        let end = largest.min(2.0 * asked).max(asked);
        let eps = (0..=N_POINTS).map(|i| end * i as f64 / N_POINTS as f64).collect();
        let executed = certificates.executed.get(&self.evaluated.arithmetic);
        let executed = executed.map_or(&[][..], Vec::as_slice);
        CertifiedCurve::from_radii(eps, &certificates.nominal, &certificates.real, executed)
    }

    fn samples(&self) -> Result<Vec<Sample>> {
        let test: &ImageSet = &self.dataset.test;
        let n = N_SHOWN.min(test.len());
        let pixels = test.tensor(0..n, self.network.dtype(), self.network.device())?;
        let predicted = self.network.forward(&pixels)?.argmax(1)?.to_vec1::<u32>()?;
        let certificates = &self.evaluated.evaluation.samples.certificates;
        let radii = certificates.executed.get(&self.evaluated.arithmetic);
        let sample = |i: usize| {
            Ok(Sample {
                shape: test.shape(),
                pixels: test.image(i)?.to_vec(),
                label: usize::from(test.labels()[i]),
                predicted: predicted[i] as usize,
                radius: radii.and_then(|radii| radii.get(i)).copied().unwrap_or(0.0),
            })
        };
        (0..n).map(sample).collect()
    }

    fn layers(&self) -> Vec<LayerFact> {
        let shape_of = |name: &str| {
            let position = self.network.names().iter().position(|n| n == name);
            let weight = position.and_then(|i| self.network.layers()[i].parameters());
            weight.map_or_else(String::new, |(weight, _)| shape_text(weight.dims()))
        };
        let layers = self.evaluated.evaluation.layers.iter();
        layers
            .map(|layer| LayerFact {
                name: layer.name.clone(),
                weight: shape_of(&layer.name),
                bound: layer.lipschitz,
            })
            .collect()
    }

    fn facts(&self) -> Vec<(String, String)> {
        let (provenance, dataset) = (&self.provenance, self.dataset);
        let versions =
            provenance.dependencies.iter().map(|(name, v)| format!("{name} {}", v.join(", ")));
        let facts = [
            ("command", provenance.command.clone()),
            ("commit", provenance.commit.clone().unwrap_or_else(|| "unknown".into())),
            ("started", provenance.started.clone()),
            ("training", training_text(self.config, &dataset.train)),
            ("training time", format!("{:.1} s", self.training_seconds)),
            ("evaluation time", format!("{:.1} s", self.evaluated.seconds)),
            ("attacks", attacks_text(self.config)),
            ("data", format!("{}, {}", dataset.test.name(), dataset.source)),
            (
                "images",
                format!("{} for training, {} for testing", dataset.train.len(), dataset.test.len()),
            ),
            ("test set SHA-256", dataset.test.sha256()),
            ("device", format!("{}, {}", provenance.device, provenance.platform)),
            ("compiler", provenance.rustc.clone()),
            (
                "versions",
                format!(
                    "lipconv {}, {}",
                    provenance.version,
                    versions.collect::<Vec<_>>().join(", ")
                ),
            ),
        ];
        facts.into_iter().map(|(label, value)| (label.to_owned(), value)).collect()
    }
}

/// A shape as in "32 x 64 x 2 x 2".
#[must_use]
pub fn shape_text(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ")
}

fn training_text(config: &RunConfig, train: &ImageSet) -> String {
    let training = &config.training;
    let schedule = match training.schedule {
        ScheduleKind::Exponential => "falling exponentially",
        ScheduleKind::Linear => "falling linearly to 0",
        ScheduleKind::Constant => "constant",
    };
    let augmentation = match training.augmentation {
        AugmentationKind::None => "",
        AugmentationKind::CropFlip => ", random crops after padding by 4, random mirror images",
    };
    format!(
        "{} of {} steps, batch {}, Adam {} {schedule}, hinge margin {:.4}, seed {}{augmentation}",
        counted(training.epochs, "epoch"),
        train.len().div_ceil(training.batch_size),
        training.batch_size,
        training.learning_rate,
        training.margin,
        training.seed
    )
}

fn attacks_text(config: &RunConfig) -> String {
    let evaluation = &config.evaluation;
    let pgd = &evaluation.pgd;
    let mut text = format!(
        "PGD with {} steps of {} from a random start and FGSM, Carlini-Wagner loss with κ = {}",
        pgd.steps, pgd.step_size, pgd.kappa
    );
    let strong = &evaluation.strong_pgd;
    if strong.restarts > 0 {
        text += &format!(
            "; strong PGD with {} steps of 2.5 ε / {} from {} starts",
            strong.steps, strong.steps, strong.restarts
        );
    }
    text
}

/// The architecture's name in results.
#[must_use]
pub fn network_key(name: NetworkName) -> &'static str {
    match name {
        NetworkName::Small => "small",
        NetworkName::Large => "large",
        NetworkName::Fc3 => "fc-3",
    }
}

/// The nonlinearity's name in results.
#[must_use]
pub fn activation_key(activation: ActivationKind) -> &'static str {
    match activation {
        ActivationKind::MaxMin => "maxmin",
        ActivationKind::Relu => "relu",
    }
}
