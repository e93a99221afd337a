//! Sweeps over cases, and what they found as a table and as JSON.

use blockconv::Result;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// What a sweep found out about one statement.
pub(crate) struct Finding {
    statement: &'static str,
    cases: usize,
    worst_defect: f64,
    tolerance: f64,
    /// The case with the worst defect, and the error if it had one.
    worst_case: String,
}

/// A statement that is to hold for many cases, up to a defect of `tolerance`.
pub(crate) struct Statement {
    pub(crate) text: &'static str,
    pub(crate) tolerance: f64,
    /// Random draws for each case.
    pub(crate) draws: usize,
}

/// The defect of a case for which a statement is plainly wrong.
pub(crate) const WRONG: f64 = f64::INFINITY;

impl Statement {
    /// Runs `check` on every case, `draws` times with random numbers of its own; errors count as [`WRONG`].
    pub(crate) fn sweep<C: std::fmt::Debug + Sync>(
        &self,
        cases: &[C],
        check: impl Fn(&C, &mut ChaCha8Rng) -> Result<f64> + Sync,
    ) -> Finding {
        let worst_of = |(index, case): (usize, &C)| {
            let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
            let mut worst = (0.0, String::new());
            for draw in 0..self.draws {
                let outcome = check(case, &mut rng);
                let defect = *outcome.as_ref().unwrap_or(&WRONG);
                if defect.is_nan() || defect > worst.0 {
                    let error = outcome.err().map(|e| format!(": {e}")).unwrap_or_default();
                    let defect = if defect.is_nan() { WRONG } else { defect };
                    worst = (defect, format!("{case:?}, draw {draw}{error}"));
                }
            }
            worst
        };
        let worst = cases.par_iter().enumerate().map(worst_of);
        let (worst_defect, worst_case) =
            worst.reduce(|| (0.0, String::new()), |a, b| if b.0 > a.0 { b } else { a });
        let Self { text: statement, tolerance, draws } = *self;
        Finding { statement, cases: cases.len() * draws, worst_defect, tolerance, worst_case }
    }
}

pub(crate) fn header() -> String {
    format!(
        "{:<82} {:>8}  {:>12}  {:>9}  verdict",
        "statement", "cases", "worst defect", "tolerance"
    )
}

impl Finding {
    pub(crate) fn holds(&self) -> bool {
        self.cases > 0 && self.worst_defect <= self.tolerance
    }

    pub(crate) fn line(&self) -> String {
        let verdict =
            if self.holds() { "holds".into() } else { format!("FAILS at {}", self.worst_case) };
        let Self { statement, cases, worst_defect, tolerance, .. } = self;
        format!("{statement:<82} {cases:>8}  {worst_defect:>12.2e}  {tolerance:>9.0e}  {verdict}")
    }
}

/// A list of {statement, cases, worst_defect, tolerance, holds}; a defect that is no number is null.
pub(crate) fn json(findings: &[Finding]) -> String {
    let objects: Vec<_> = findings
        .iter()
        .map(|finding| {
            let defect = match finding.worst_defect {
                finite if finite.is_finite() => format!("{finite:e}"),
                _ => "null".into(),
            };
            format!(
                "  {{\"statement\": \"{}\", \"cases\": {}, \"worst_defect\": {defect}, \"tolerance\": {:e}, \"holds\": {}}}",
                finding.statement.replace('"', "\\\""),
                finding.cases,
                finding.tolerance,
                finding.holds()
            )
        })
        .collect();
    format!("[\n{}\n]\n", objects.join(",\n"))
}
