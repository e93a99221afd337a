//! Statements on 2-D kernels: equation (5), Theorems 2 and 3, BCOP, membership, zero padding.

use std::collections::HashSet;

use blockconv::assembly::assemble_2d;
use blockconv::bcop::bcop;
use blockconv::components::{
    Label2, label_2d, labels_2d, measure_2d, random_2d, representative_2d,
};
use blockconv::lift::lift;
use blockconv::membership::{membership, q_then_p};
use blockconv::zero_padding::{off_centre_energy, zero_padded};
use blockconv::{Kernel2, Result, spectrum};
use ndarray::{Array3, s};
use projectors::{Projector, Real, haar_orthogonal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::report::{Finding, Statement, WRONG};

/// Largest n of the sweep over all labels.
const N: usize = 8;

pub(crate) fn check() -> Vec<Finding> {
    let sizes: Vec<_> = (1..=N).flat_map(|n| (1..=4).map(move |k| (n, k))).collect();
    let channels: Vec<_> = (1..=N).collect();
    let labels: Vec<_> =
        channels.iter().flat_map(|&n| labels_2d(n, 2).map(move |label| (n, label))).collect();
    let pairs: Vec<_> = channels
        .iter()
        .flat_map(|&n| (0..=n).flat_map(move |p| (0..=n).map(move |q| (n, p, q))))
        .collect();
    let statement = |text, tolerance, draws| Statement { text, tolerance, draws };
    vec![
        statement("(5) is orthogonal, f64: max |sigma^2 - 1| / nK", 1e-13, 20)
            .sweep(&sizes, |&(n, k), rng| Ok(isometry::<f64>(n, k, rng)? / (n * k) as f64)),
        statement("(5) is orthogonal, f32: max |sigma^2 - 1| / (sqrt(n) K)", 1e-6, 20)
            .sweep(&sizes, |&(n, k), rng| {
                Ok(isometry::<f32>(n, k, rng)? / ((n as f64).sqrt() * k as f64))
            }),
        statement("Theorem 2: det A(y, z) = sign y^a z^b, K = 2: deviation / nK", 1e-13, 200)
            .sweep(&labels, |&(n, label), rng| determinant(n, label, rng)),
        statement("Theorem 2: all 2(n+1)^2 labels are reached", 0.0, 1)
            .sweep(&channels, |&n, _| count(n)),
        statement("Theorem 3: first n channels of the lift, ranks n: |difference| / nK", 1e-13, 20)
            .sweep(&sizes, |&(n, k), rng| lifted(n, k, rng)),
        statement("BCOP stays in one component of each sign: labels outside", 0.0, 4)
            .sweep(&sizes, |&(n, k), rng| training(n, k, rng)),
        statement("(5), K = 2: members return their factors: residual / nK", 1e-13, 10)
            .sweep(&pairs, |&(n, p, q), rng| member(n, p, q, rng)),
        statement(
            "(5) is incomplete: Q-then-P is a member iff PQ = QP: |r - 2|PQ - QP|| / nK",
            1e-13,
            10,
        )
        .sweep(&pairs, |&(n, p, q), rng| reversed(n, p, q, rng)),
        statement("zero padding loses at least E / 2: shortfall", 1e-13, 4)
            .sweep(&sizes[..12], |&(n, k), rng| padding(n, k, rng)),
    ]
}

type Factors<T> = (ndarray::Array2<T>, Vec<Projector<T>>, Vec<Projector<T>>);

fn factors<T: Real>(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Result<Factors<T>> {
    let h = haar_orthogonal(n, rng);
    let mut draw = || -> Result<Vec<_>> {
        (1..k)
            .map(|_| {
                let rank = rng.random_range(0..=n);
                Ok(Projector::random(n, rank, rng)?)
            })
            .collect()
    };
    let ps = draw()?;
    Ok((h, ps, draw()?))
}

fn frobenius(entries: impl Iterator<Item = f64>) -> f64 {
    entries.map(|x| x * x).sum::<f64>().sqrt()
}

/// The largest |σ² - 1| on images of the smallest sizes and beyond.
fn isometry<T: Real>(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let (h, ps, qs) = factors::<T>(n, k, rng)?;
    let kernel = assemble_2d(h.view(), &ps, &qs)?;
    let mut worst: f64 = 0.0;
    for size in [(k, k), (k + 1, 2 * k)] {
        let ends = spectrum::extremes(&kernel, size)?;
        worst = worst
            .max((ends.sigma_min.powi(2) - 1.0).abs())
            .max((ends.sigma_max.powi(2) - 1.0).abs());
    }
    Ok(worst)
}

fn determinant(n: usize, label: Label2, rng: &mut ChaCha8Rng) -> Result<f64> {
    let measured = measure_2d(&random_2d::<f64>(label, n, 2, rng)?)?;
    Ok(if measured.label == label { measured.deviation / (2 * n) as f64 } else { WRONG })
}

fn count(n: usize) -> Result<f64> {
    let mut reached = HashSet::new();
    for label in labels_2d(n, 2) {
        reached.insert(label_2d(&representative_2d::<f64>(label, n, 2)?)?);
    }
    Ok(reached.len().abs_diff(2 * (n + 1) * (n + 1)) as f64)
}

fn lifted(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let (h, ps, qs) = factors::<f64>(n, k, rng)?;
    let lifted = lift(h.view(), &ps, &qs)?;
    if lifted.ps.iter().chain(&lifted.qs).any(|p| p.rank() != n) {
        return Ok(WRONG);
    }
    let image = Array3::from_shape_simple_fn((k + 1, k + 2, 2 * n), || StandardNormal.sample(rng));
    let out = lifted.assemble_2d()?.apply(image.view())?;
    let original = assemble_2d(h.view(), &ps, &qs)?.apply(image.slice(s![.., .., ..n]))?;
    let difference = frobenius((&out.slice(s![.., .., ..n]) - &original).into_iter());
    Ok(difference / frobenius(image.into_iter()) / (n * k) as f64)
}

/// Labels met by random updates of BCOP parameters beyond one for each sign.
fn training(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let mut parameters =
        Array3::from_shape_simple_fn((2 * k - 1, n, n), || StandardNormal.sample(rng));
    let degree = (k - 1) * (n - n / 2);
    let mut outside = 0.0;
    for _ in 0..20 {
        parameters.mapv_inplace(|x: f64| {
            let noise: f64 = StandardNormal.sample(rng);
            0.9 * x + 0.3 * noise
        });
        let label = label_2d(&bcop(parameters.view(), n, n, None)?.kernel())?;
        if (label.vertical, label.horizontal) != (degree, degree) {
            outside += 1.0;
        }
    }
    Ok(outside)
}

type Pair = (ndarray::Array2<f64>, Projector<f64>, Projector<f64>);

fn pair(n: usize, p: usize, q: usize, rng: &mut ChaCha8Rng) -> Result<Pair> {
    Ok((haar_orthogonal(n, rng), Projector::random(n, p, rng)?, Projector::random(n, q, rng)?))
}

fn member(n: usize, p: usize, q: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let (h, p, q) = pair(n, p, q, rng)?;
    let kernel: Kernel2<f64> =
        assemble_2d(h.view(), std::slice::from_ref(&p), std::slice::from_ref(&q))?;
    let verdict = membership(&kernel)?;
    let found = verdict.forced_factors();
    let errors = [
        found.residual,
        found.p.distance(&p)?,
        found.q.distance(&q)?,
        frobenius((&found.h - &h).into_iter()),
    ];
    let worst = errors.into_iter().fold(0.0, f64::max) / (2 * n) as f64;
    Ok(if verdict.is_member() { worst } else { WRONG })
}

fn reversed(n: usize, p_rank: usize, q_rank: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let (h, p, q) = pair(n, p_rank, q_rank, rng)?;
    let verdict = membership(&q_then_p(h.view(), &p, &q)?)?;
    let trivial = [0, n].contains(&p_rank) || [0, n].contains(&q_rank);
    if verdict.is_member() != trivial {
        return Ok(WRONG);
    }
    let pq = p.matrix().dot(&q.matrix());
    let commutator = frobenius((&pq - &pq.t()).into_iter());
    Ok((verdict.forced_factors().residual - 2.0 * commutator).abs() / (2 * n) as f64)
}

fn padding(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let (h, ps, qs) = factors::<f64>(n, k, rng)?;
    let kernel = assemble_2d(h.view(), &ps, &qs)?;
    let padded = zero_padded(&kernel, (k, k + 1))?;
    let shortfall = 0.5 * off_centre_energy(&kernel) - padded.norm_defect();
    // Nothing is gained either: a restriction of an isometry does not expand.
    Ok(shortfall.max(padded.sigma_max - 1.0).max(0.0))
}
