//! AutoAttack: the strongest attacks of the field in turn, each on what the others have left.
//!
//! Definition of the standard version: [`Apgd`] with cross-entropy, [`Apgd`] towards the nine next classes, [`Fab`], [`Square`]. Of
//! several adversarial images of a sample the nearest is reported.
//!
//! The outcome says what each part did, and raises [`AutoAttackFlag`]s where the figures should not be trusted: outputs that differ from call to call, outputs
//! that are probabilities, gradients that are zero, a random search that does better than gradients. They are signs of a
//! network that hides its gradients, which is then less robust than attacks by gradients say.
//!
//! Guarantee: no sample that one of the attacks breaks alone, on the same samples and with the same seed, is left.
//! A sample's random numbers depend on its place in the list alone, whatever has been broken before.
//!
//! Cost: for a sample that withstands everything 1000 steps of APGD, 900 of FAB, and 5000 queries of Square. A certified sample
//! can only withstand: leave it out, but to test the certificate ([`Attack::run_on`](crate::Attack::run_on)).
//!
//! Left out: the version "rand", which averages gradients over calls. Networks here are functions; one whose outputs differ from call to
//! call raises a flag.
//!
//! Source: Croce and Hein 2020 (arXiv 2003.01690), its repository for the flags.

use serde::{Deserialize, Serialize};

use super::outcome::{AttackOutcome, AttackProgress, AutoAttackFlag, PartReport, Query, Stopping};
use super::setup::check_positive;
use super::subset::Merged;
use super::target::AttackTarget;
use super::{Apgd, ApgdLoss, Fab, Square, Strategy};
use crate::classifier::{batched_logits, logit_rows};
use crate::error::{Error, Result};
use crate::margin::percent;

/// AutoAttack in L2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoAttack {
    /// ε: radius of the ball, positive; the same for every part.
    pub eps: f64,
    /// The attacks in their order, at least one.
    pub parts: Vec<AutoAttackPart>,
    /// Whether every part attacks all samples, also those that are broken, to find smaller distances.
    pub stopping: Stopping,
}

/// One of the attacks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoAttackPart {
    /// Auto-PGD.
    Apgd(Apgd),
    /// FAB, targeted.
    Fab(Fab),
    /// Square.
    Square(Square),
}

/// Square may break this share of the samples, in percent, before it is a sign of hidden gradients.
const SQUARE_SHARE: f64 = 0.2;
/// Logits that differ by more from call to call are random.
const RANDOM_DIFFERENCE: f64 = 1e-4;

impl AutoAttack {
    /// The standard version: APGD with cross-entropy, APGD towards nine classes, FAB, Square.
    #[must_use]
    pub fn standard(eps: f64, seed: u64) -> Self {
        let apgd = |loss| AutoAttackPart::Apgd(Apgd::standard(eps, loss, seed));
        let parts = vec![
            apgd(ApgdLoss::CrossEntropy),
            apgd(ApgdLoss::TargetedDlr { targets: 9 }),
            AutoAttackPart::Fab(Fab::standard(eps, seed)),
            AutoAttackPart::Square(Square::standard(eps, seed)),
        ];
        Self { eps, parts, stopping: Stopping::WhenBroken }
    }

    /// The version "plus" without its untargeted FAB: five starts each of APGD with cross-entropy and with the ratio,
    /// then Square, APGD towards nine classes, and FAB.
    #[must_use]
    pub fn plus(eps: f64, seed: u64) -> Self {
        let apgd = |loss, restarts| {
            AutoAttackPart::Apgd(Apgd { restarts, ..Apgd::standard(eps, loss, seed) })
        };
        let parts = vec![
            apgd(ApgdLoss::CrossEntropy, 5),
            apgd(ApgdLoss::Dlr, 5),
            AutoAttackPart::Square(Square::standard(eps, seed)),
            apgd(ApgdLoss::TargetedDlr { targets: 9 }, 1),
            AutoAttackPart::Fab(Fab::standard(eps, seed)),
        ];
        Self { eps, parts, stopping: Stopping::WhenBroken }
    }

    /// The same with another number of images in one forward pass.
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        for part in &mut self.parts {
            match part {
                AutoAttackPart::Apgd(apgd) => apgd.batch_size = batch_size,
                AutoAttackPart::Fab(fab) => fab.batch_size = batch_size,
                AutoAttackPart::Square(square) => square.batch_size = batch_size,
            }
        }
        self
    }

    /// The same with other numbers of steps (of APGD and FAB) and queries (of Square), where they are given.
    #[must_use]
    pub fn with_budgets(mut self, steps: Option<usize>, queries: Option<usize>) -> Self {
        for part in &mut self.parts {
            match part {
                AutoAttackPart::Apgd(apgd) => apgd.steps = steps.unwrap_or(apgd.steps),
                AutoAttackPart::Fab(fab) => fab.steps = steps.unwrap_or(fab.steps),
                AutoAttackPart::Square(square) => {
                    square.queries = queries.unwrap_or(square.queries);
                }
            }
        }
        self
    }

    /// The same, to the end or not: see [`Stopping`].
    #[must_use]
    pub fn with_stopping(mut self, stopping: Stopping) -> Self {
        self.stopping = stopping;
        for part in &mut self.parts {
            match part {
                AutoAttackPart::Apgd(apgd) => apgd.stopping = stopping,
                AutoAttackPart::Fab(fab) => fab.stopping = stopping,
                AutoAttackPart::Square(square) => square.stopping = stopping,
            }
        }
        self
    }
}

impl AutoAttackPart {
    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Apgd(apgd) => Strategy::name(apgd),
            Self::Fab(fab) => Strategy::name(fab),
            Self::Square(square) => Strategy::name(square),
        }
    }

    fn check(&self, eps: f64) -> Result<()> {
        let value = match self {
            Self::Apgd(apgd) => {
                apgd.check()?;
                apgd.eps
            }
            Self::Fab(fab) => {
                fab.check()?;
                fab.eps
            }
            Self::Square(square) => {
                square.check()?;
                square.eps
            }
        };
        if value == eps {
            return Ok(());
        }
        let (name, expected) = ("eps of a part", "that of the whole attack");
        Err(Error::InvalidSetting { name, value, expected })
    }

    /// The outcome, and the number of samples that had a zero gradient at the start.
    fn attack(
        &self,
        query: Query<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<(AttackOutcome, usize)> {
        match self {
            Self::Apgd(apgd) => apgd.count_flat(query, progress),
            Self::Fab(fab) => Ok((fab.attack(query, progress)?, 0)),
            Self::Square(square) => Ok((square.attack(query, progress)?, 0)),
        }
    }
}

impl Strategy for AutoAttack {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn eps(&self) -> f64 {
        self.eps
    }

    fn check(&self) -> Result<()> {
        check_positive("eps", self.eps)?;
        super::setup::check_at_least_one("parts", self.parts.len())?;
        self.parts.iter().try_for_each(|part| part.check(self.eps))
    }

    fn attack(
        &self,
        query: Query<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        let n = query.target.labels.len();
        let mut merged = Merged::new(query);
        let mut flags = output_flags(query)?;
        let mut parts = Vec::new();
        let (mut n_flat, mut n_by_square) = (0, 0);
        for (index, part) in self.parts.iter().enumerate() {
            let in_play = |&i: &usize| self.stopping == Stopping::Never || !merged.broken[i];
            let remaining: Vec<usize> = (0..n).filter(in_play).collect();
            let before = merged.n_broken();
            let subset = merged.subset(&remaining)?;
            let mut report = |inner: AttackProgress| {
                let fraction = (index as f64 + inner.fraction) / self.parts.len() as f64;
                let n_broken = match self.stopping {
                    Stopping::Never => before.max(inner.n_broken),
                    Stopping::WhenBroken => before + inner.n_broken,
                };
                let attack = inner.attack;
                progress(AttackProgress { attack, fraction, n_broken, n_samples: n });
            };
            let (outcome, flat) =
                part.attack(subset.query(query.target.classifier), &mut report)?;
            n_flat = n_flat.max(flat);
            merged.take(&remaining, &outcome)?;
            let n_broken = merged.n_broken() - before;
            if index > 0 && matches!(part, AutoAttackPart::Square(_)) {
                n_by_square += n_broken;
            }
            let attack = part.name().to_owned();
            parts.push(PartReport { attack, n_attacked: remaining.len(), n_broken });
        }
        if n_flat > 0 {
            flags.push(AutoAttackFlag::ZeroGradients { samples: n_flat });
        }
        if percent(n_by_square, n) > SQUARE_SHARE {
            flags.push(AutoAttackFlag::SquareIsBetter { samples: n_by_square });
        }
        Ok(AttackOutcome { parts, flags, ..merged.outcome()? })
    }
}

/// What the outputs themselves give away, for the first images.
fn output_flags(query: Query<'_>) -> Result<Vec<AutoAttackFlag>> {
    const IMAGES: usize = 200;
    let AttackTarget { classifier, images, labels } = query.target;
    let n = labels.len().min(IMAGES);
    let mut flags = Vec::new();
    if n == 0 {
        return Ok(flags);
    }
    let images = images.narrow(0, 0, n)?;
    let rows = || logit_rows(&batched_logits(classifier, &images, n)?);
    let (first, second) = (rows()?, rows()?);
    let pairs = first.iter().flatten().zip(second.iter().flatten());
    let largest_difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    if largest_difference > RANDOM_DIFFERENCE {
        flags.push(AutoAttackFlag::RandomisedOutput { largest_difference });
    }
    let is_distribution = |row: &Vec<f64>| {
        let sum: f64 = row.iter().sum();
        (sum - 1.0).abs() < 1e-5 && row.iter().all(|p| (0.0..=1.0).contains(p))
    };
    if first.iter().all(is_distribution) {
        flags.push(AutoAttackFlag::Probabilities);
    }
    Ok(flags)
}
