//! Our figures beside the paper's, for the page and for the terminal.

use super::paper::Figure;
use super::{Report, figures};

/// A row: what, ours, the paper's mean and standard deviation.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// What was measured.
    pub what: String,
    /// Our figure, percent.
    pub ours: Option<f64>,
    /// The paper's mean, percent.
    pub paper: Option<f64>,
    /// Its standard deviation.
    pub sd: Option<f64>,
}

impl Compared {
    /// Ours less the paper's, where both exist.
    #[must_use]
    pub fn difference(&self) -> Option<f64> {
        Some(self.ours? - self.paper?)
    }

    fn ours_alone(what: String, ours: Option<f64>) -> Self {
        Self { what, ours, paper: None, sd: None }
    }

    fn beside(what: String, ours: Option<f64>, paper: Option<Figure>) -> Self {
        Self { what, ours, paper: paper.map(|p| p.mean), sd: paper.and_then(|p| p.sd) }
    }
}

/// The rows of a report: clean, certified, attacked.
#[must_use]
pub fn compared(report: &Report) -> Vec<Compared> {
    let (row, eps) = (&report.row, report.headline_eps.as_str());
    let reference = report.reference.filter(|r| r.eps == eps);
    let certified = reference.and_then(|r| r.certified);
    let mut rows = vec![
        Compared::beside("clean".into(), Some(row.clean), report.reference.map(|r| r.clean)),
        Compared::beside(
            format!("certified at {eps}, nominal"),
            row.certified.nominal.get(eps),
            certified,
        ),
        Compared::ours_alone(
            format!("certified at {eps}, exact arithmetic"),
            row.certified.real.get(eps),
        ),
        Compared::ours_alone(
            format!("certified at {eps}, as executed in f32"),
            row.certified.executed.get(eps),
        ),
    ];
    if report.accumulate_f64.is_some() {
        let what = format!("certified at {eps}, f32 with f64 accumulation");
        rows.push(Compared::ours_alone(what, report.accumulate_f64));
    }
    for (name, by_eps) in &row.attacks {
        let paper = reference.and_then(|r| match name.as_str() {
            "pgd" => r.pgd,
            "fgsm" => r.fgsm,
            _ => None,
        });
        let what = format!("under {} at {eps}", figures::attack_name(name));
        rows.push(Compared { what, ours: by_eps.get(eps), paper, sd: None });
    }
    rows
}
