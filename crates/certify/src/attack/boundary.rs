//! The boundary attack: a random walk along the decision boundary, towards the image.
//!
//! Definition. From an adversarial x̃ at distance D of the image x, draw a direction η orthogonal to x̃ - x of length
//! δ D, and go to the sphere of radius D about x and then inwards:
//!
//! ```text
//! s = clamp(x + (x̃ - x + η) / √(1 + δ²), 0, 1)              orthogonal (spherical) step
//! c = clamp(s + (x - s) · max(0, ε_s D + ‖s - x‖ - D) / ‖s - x‖, 0, 1)      step to the source
//! ```
//!
//! c replaces x̃ if it is adversarial and nearer. A step draws up to `max_directions` such candidates and ends with the
//! first adversarial one. Every tenth step asks for s as well; over the last 100 such answers, a share of adversarial s
//! above 1/2 multiplies δ and ε_s by `step_adaptation`, one below 1/5 divides them; over the last 30 answers for c
//! that followed an adversarial s, the same is done with ε_s alone. When ε_s falls below 1e-7 both are reset to 1e-2
//! once, every step then asks for s, and the walk ends after 100 more steps with ε_s that small.
//!
//! Source: Brendel et al. 2018 (arXiv 1712.04248), with the defaults of foolbox 2: 5000 steps of up to 25 directions, both steps
//! 1e-2 at first, adaptation 1.5, from blended uniform noise.

use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::noise::{Blended, Verdict};
use super::outcome::Stopping;
use super::rounds::{Ended, Plan, Reply, Rounds, Search, Subject, Trace, Wish};
use super::setup::{check_at_least_one, check_positive};
use crate::error::{Error, Result};
use crate::tensor::{Pixel, widened};

/// The boundary attack; a minimal-distance attack in L2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boundary {
    /// ε: a sample counts as broken when an adversarial image within this distance was found; positive.
    pub eps: f64,
    /// Number of steps, at least 1.
    pub steps: usize,
    /// Candidates in one step, at least 1.
    pub max_directions: usize,
    /// δ at first, positive.
    pub spherical_step: f64,
    /// ε_s at first, positive.
    pub source_step: f64,
    /// Factor by which steps grow and shrink, above 1.
    pub step_adaptation: f64,
    /// Decides all draws.
    pub seed: u64,
    /// Whether to go on, to smaller distances, with samples that are broken.
    pub stopping: Stopping,
    /// Queries for one sample, at least 1.
    pub max_queries: usize,
    /// Samples whose queries are answered together, at least 1.
    pub batch_size: usize,
}

impl Boundary {
    /// Foolbox's settings.
    #[must_use]
    pub const fn new(eps: f64, seed: u64) -> Self {
        Self {
            eps,
            steps: 5000,
            max_directions: 25,
            spherical_step: 1e-2,
            source_step: 1e-2,
            step_adaptation: 1.5,
            seed,
            stopping: Stopping::WhenBroken,
            max_queries: 1_000_000,
            batch_size: 200,
        }
    }
}

impl Rounds for Boundary {
    type Search<T: Pixel> = Walk;

    const FROM_ADVERSARIAL: bool = true;

    fn plan(&self) -> Plan {
        let Self { eps, seed, stopping, batch_size, .. } = *self;
        Plan { name: "boundary", eps, seed, stopping, restarts: 1, batch_size }
    }

    fn max_queries(&self) -> usize {
        self.max_queries
    }

    fn check_own(&self) -> Result<()> {
        check_positive("spherical_step", self.spherical_step)?;
        check_positive("source_step", self.source_step)?;
        let value = self.step_adaptation;
        if !(value > 1.0 && value.is_finite()) {
            let (name, expected) = ("step_adaptation", "a finite number above 1");
            return Err(Error::InvalidSetting { name, value, expected });
        }
        check_at_least_one("steps", self.steps)?;
        check_at_least_one("max_directions", self.max_directions)?;
        check_at_least_one("max_queries", self.max_queries)
    }

    fn search<T: Pixel>(&self, subject: Subject<'_, T>) -> Walk {
        let Subject { image, start, draws, .. } = subject;
        let n_values = image.len();
        Walk {
            settings: *self,
            original: widened(image),
            asked: match start {
                Some(_) => Asked::Given,
                None => Asked::Noise(Blended::new(n_values)),
            },
            candidate: widened(start.unwrap_or(image)),
            perturbed: vec![0.0; n_values],
            sphere: vec![0.0; n_values],
            distance: 0.0,
            steps: Steps { spherical: self.spherical_step, source: self.source_step },
            spherical_answers: Recent::new(100),
            candidate_answers: Recent::new(30),
            step: 0,
            direction: 0,
            convergence: Convergence::default(),
            trace: Trace::default(),
            draws,
        }
    }
}

/// The walk of one sample.
#[derive(Debug)]
pub(super) struct Walk {
    settings: Boundary,
    original: Vec<f64>,
    /// The nearest adversarial image so far, and its distance.
    perturbed: Vec<f64>,
    distance: f64,
    /// s and c.
    sphere: Vec<f64>,
    candidate: Vec<f64>,
    asked: Asked,
    steps: Steps,
    spherical_answers: Recent,
    candidate_answers: Recent,
    step: usize,
    direction: usize,
    convergence: Convergence,
    trace: Trace,
    draws: Draws,
}

/// What was asked for last, or is to be asked for next.
#[derive(Debug)]
enum Asked {
    Noise(Blended),
    Given,
    /// Nothing: a new direction is due.
    Direction,
    Sphere,
    /// c after s was found adversarial, and not yet proposed.
    AfterSphere,
    Candidate,
    Ended,
}

/// δ and ε_s.
#[derive(Debug, Clone, Copy)]
struct Steps {
    spherical: f64,
    source: f64,
}

/// The answers of late, up to a number.
#[derive(Debug)]
struct Recent {
    answers: std::collections::VecDeque<bool>,
    capacity: usize,
}

/// Whether ε_s has become so small that nothing more is to be expected.
#[derive(Debug, Default)]
struct Convergence {
    /// The steps were reset after the first time.
    confirming: bool,
    n_confirmed: usize,
}

impl<T: Pixel> Search<T> for Walk {
    fn propose(&mut self, _: &[T], point: &mut [T]) -> Option<Wish> {
        match &mut self.asked {
            Asked::Noise(noise) => {
                noise.propose(&mut self.draws, &self.original, &mut self.candidate);
            }
            Asked::Given => {}
            Asked::AfterSphere => self.asked = Asked::Candidate,
            Asked::Ended => return None,
            Asked::Direction | Asked::Sphere | Asked::Candidate => {
                if !self.begin_direction() {
                    self.asked = Asked::Ended;
                    return None;
                }
                self.draw();
                let spherical = self.asks_for_sphere();
                self.asked = if spherical { Asked::Sphere } else { Asked::Candidate };
            }
        }
        let asked =
            if matches!(self.asked, Asked::Sphere) { &self.sphere } else { &self.candidate };
        point.iter_mut().zip(asked).for_each(|(v, &c)| *v = T::of(c));
        Some(Wish::Logits)
    }

    fn answer(&mut self, _: &[T], reply: Reply<'_, T>) {
        let adversarial = reply.adversarial;
        match &mut self.asked {
            Asked::Noise(noise) => match noise.answer(adversarial) {
                Verdict::Searching => {}
                Verdict::Found => self.start(),
                Verdict::Failed => self.asked = Asked::Ended,
            },
            Asked::Given if adversarial => self.start(),
            Asked::Given => self.asked = Asked::Ended,
            Asked::Sphere => {
                self.spherical_answers.push(adversarial);
                self.asked = if adversarial { Asked::AfterSphere } else { Asked::Direction };
                if !adversarial {
                    self.next_direction();
                }
            }
            Asked::Candidate => {
                if self.asks_for_sphere() {
                    self.candidate_answers.push(adversarial);
                }
                self.asked = Asked::Direction;
                if adversarial {
                    self.accept();
                    self.end_step();
                } else {
                    self.next_direction();
                }
            }
            Asked::Direction | Asked::AfterSphere | Asked::Ended => {}
        }
    }

    fn progress(&self) -> f64 {
        (self.step as f64 / self.settings.steps as f64).min(1.0)
    }
}

impl Walk {
    /// The walk begins at the candidate.
    fn start(&mut self) {
        self.perturbed.copy_from_slice(&self.candidate);
        self.distance = distance(&self.perturbed, &self.original);
        self.trace.values.push(self.distance);
        self.asked = Asked::Direction;
        self.step = 1;
    }

    /// Checks, at the beginning of a step, whether there is to be one.
    fn begin_direction(&mut self) -> bool {
        if self.direction > 0 {
            return true;
        }
        let goes_on = self.convergence.goes_on(&mut self.steps);
        goes_on && self.step <= self.settings.steps && self.distance > 0.0
    }

    fn asks_for_sphere(&self) -> bool {
        self.step.is_multiple_of(10) || self.convergence.confirming
    }

    fn next_direction(&mut self) {
        self.direction += 1;
        if self.direction == self.settings.max_directions {
            self.end_step();
        }
    }

    fn accept(&mut self) {
        let distance = distance(&self.candidate, &self.original);
        if distance < self.distance {
            self.perturbed.copy_from_slice(&self.candidate);
            self.distance = distance;
        }
    }

    fn end_step(&mut self) {
        let factor = self.settings.step_adaptation;
        let spherical = self.spherical_answers.change(factor);
        self.steps.spherical *= spherical;
        self.steps.source *= spherical * self.candidate_answers.change(factor);
        self.trace.values.push(self.distance);
        self.trace.steps.push(self.steps.source);
        (self.step, self.direction) = (self.step + 1, 0);
    }

    /// Draws s and c.
    fn draw(&mut self) {
        let Steps { spherical, source } = self.steps;
        let normals = &mut self.sphere;
        normals.iter_mut().for_each(|v| *v = self.draws.normal());
        // the part along x̃ - x, out
        let ray = || self.perturbed.iter().zip(&self.original).map(|(p, x)| p - x);
        let along: f64 = normals.iter().zip(ray()).map(|(v, r)| v * r).sum();
        let along = along / (self.distance * self.distance);
        normals.iter_mut().zip(ray()).for_each(|(v, r)| *v -= along * r);
        let length = normals.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        let scale = spherical * self.distance / length;
        let shrink = 1.0 / (spherical * spherical + 1.0).sqrt();
        for ((v, r), x) in normals.iter_mut().zip(ray()).zip(&self.original) {
            *v = (x + shrink * (*v * scale + r)).clamp(0.0, 1.0);
        }
        let reached = distance(&self.sphere, &self.original);
        let inwards = (source * self.distance + reached - self.distance).max(0.0);
        let inwards = inwards / reached.max(f64::MIN_POSITIVE);
        for ((c, s), x) in self.candidate.iter_mut().zip(&self.sphere).zip(&self.original) {
            *c = (s + inwards * (x - s)).clamp(0.0, 1.0);
        }
    }
}

impl Ended for Walk {
    fn trace(&self) -> Trace {
        let best = if self.step > 0 { self.perturbed.clone() } else { Vec::new() };
        Trace { best, ..self.trace.clone() }
    }

    fn ran_out(&self) -> bool {
        self.draws.ran_out()
    }
}

impl Recent {
    fn new(capacity: usize) -> Self {
        Self { answers: std::collections::VecDeque::with_capacity(capacity), capacity }
    }

    fn push(&mut self, answer: bool) {
        if self.answers.len() == self.capacity {
            self.answers.pop_front();
        }
        self.answers.push_back(answer);
    }

    /// The factor by which the answers of late change a step; they are forgotten when it is not 1.
    fn change(&mut self, factor: f64) -> f64 {
        if self.answers.len() < self.capacity {
            return 1.0;
        }
        let share = self.answers.iter().filter(|&&a| a).count() as f64 / self.capacity as f64;
        let change = match share {
            share if share > 0.5 => factor,
            share if share < 0.2 => 1.0 / factor,
            _ => return 1.0,
        };
        self.answers.clear();
        change
    }
}

impl Convergence {
    const SMALLEST: f64 = 1e-7;
    const STEPS: Steps = Steps { spherical: 1e-2, source: 1e-2 };
    const CONFIRMATIONS: usize = 100;

    fn goes_on(&mut self, steps: &mut Steps) -> bool {
        // once confirming has begun, a source step that grows a little does not end it
        let limit = if self.n_confirmed == 0 { Self::SMALLEST } else { 2.0 * Self::SMALLEST };
        if steps.source >= limit {
            if self.n_confirmed > 0 {
                *self = Self::default();
            }
            return true;
        }
        if self.confirming {
            self.n_confirmed += 1;
        } else {
            self.confirming = true;
            *steps = Self::STEPS;
        }
        self.n_confirmed < Self::CONFIRMATIONS
    }
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}
