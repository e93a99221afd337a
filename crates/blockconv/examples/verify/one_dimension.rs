//! Statements on projectors and on 1-D kernels: equation (4) and Theorem 1.

use std::collections::HashSet;

use blockconv::assembly::assemble_1d;
use blockconv::components::{
    Label1, label_1d, labels_1d, measure_1d, path, random_1d, representative_1d,
};
use blockconv::factorisation::factorise;
use blockconv::{Error, Kernel1, Result};
use projectors::{Projector, Real, grassmann::geodesic, haar_orthogonal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::report::{Finding, Statement, WRONG};

/// Largest n and K of the sweeps over all labels.
const N: usize = 12;
const K: usize = 5;

pub(crate) fn check() -> Vec<Finding> {
    let sizes = grid(N, K);
    let mut large = grid(N, 9);
    large.extend([(16, 9), (24, 7), (32, 5), (48, 3), (64, 2), (64, 9)]);
    let labels: Vec<_> =
        sizes.iter().flat_map(|&(n, k)| labels_1d(n, k).map(move |label| (n, k, label))).collect();
    let statement = |text, tolerance, draws| Statement { text, tolerance, draws };
    vec![
        statement("P(n): projectors of equal rank are joined; rank is constant", 1e-13, 20)
            .sweep(&(1..=N).collect::<Vec<_>>(), |&n, rng| geodesics(n, rng)),
        statement("(4) is orthogonal, f64: defect / nK", 1e-13, 100)
            .sweep(&sizes, |&(n, k), rng| {
                Ok(random::<f64>(n, k, rng)?.orthogonality_defect() / (n * k) as f64)
            }),
        statement("(4) is orthogonal, f32: defect / (sqrt(n) K)", 1e-6, 100).sweep(
            &sizes,
            |&(n, k), rng| {
                Ok(random::<f32>(n, k, rng)?.orthogonality_defect()
                    / ((n as f64).sqrt() * k as f64))
            },
        ),
        statement("(4) is onto, K <= 9, n <= 64: |factors - kernel| / nK", 1e-13, 20)
            .sweep(&large, |&(n, k), rng| round_trip(n, k, rng)),
        statement("Theorem 1: det A(z) = sign z^d: deviation / nK", 1e-13, 200)
            .sweep(&labels, |&(n, k, label), rng| determinant(n, k, label, rng)),
        statement("Theorem 1: exactly 2(K-1)n + 2 labels are reached", 0.0, 1)
            .sweep(&sizes, |&(n, k), rng| count(n, k, rng)),
        statement("Theorem 1: kernels of one label are joined by a path: defect / nK", 1e-13, 2)
            .sweep(&labels, |&(n, k, label), rng| joined(n, k, label, rng)),
        statement("Theorem 1: kernels of different labels are not", 0.0, 4)
            .sweep(&labels, |&(n, k, label), rng| not_joined(n, k, label, rng)),
    ]
}

fn grid(n: usize, k: usize) -> Vec<(usize, usize)> {
    (1..=n).flat_map(|n| (1..=k).map(move |k| (n, k))).collect()
}

fn random<T: Real>(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Result<Kernel1<T>> {
    let h = haar_orthogonal(n, rng);
    assemble_1d(h.view(), &projectors(n, k, rng)?)
}

fn projectors<T: Real>(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Result<Vec<Projector<T>>> {
    (1..k)
        .map(|_| {
            let rank = rng.random_range(0..=n);
            Ok(Projector::random(n, rank, rng)?)
        })
        .collect()
}

fn distance(a: &Kernel1<f64>, b: &Kernel1<f64>) -> f64 {
    (&a.taps() - &b.taps()).iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The worst defect of projectors along a geodesic, a change of rank, and the distance of its ends.
fn geodesics(n: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let mut worst: f64 = 0.0;
    for rank in 0..=n {
        let (p, q) = (Projector::<f64>::random(n, rank, rng)?, Projector::random(n, rank, rng)?);
        let geodesic = geodesic(&p, &q)?;
        worst = worst.max(geodesic.at(0.0)?.distance(&p)?).max(geodesic.at(1.0)?.distance(&q)?);
        for step in 1..8 {
            let between = geodesic.at(f64::from(step) / 8.0)?;
            let trace = between.matrix().diag().sum();
            worst = worst.max(between.defect()).max((trace - rank as f64).abs());
        }
    }
    Ok(worst)
}

fn round_trip(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let kernel = random::<f64>(n, k, rng)?;
    Ok(distance(&factorise(&kernel)?.assemble()?, &kernel) / (n * k) as f64)
}

fn determinant(n: usize, k: usize, label: Label1, rng: &mut ChaCha8Rng) -> Result<f64> {
    let measured = measure_1d(&random_1d::<f64>(label, n, k, rng)?)?;
    let right = measured.label == label;
    Ok(if right { measured.deviation / (n * k) as f64 } else { WRONG })
}

/// Labels that are missing, and labels that should not exist, among canonical and random kernels.
fn count(n: usize, k: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let mut reached = HashSet::new();
    for label in labels_1d(n, k) {
        reached.insert(label_1d(&representative_1d::<f64>(label, n, k)?)?);
    }
    for _ in 0..100 {
        reached.insert(label_1d(&random::<f64>(n, k, rng)?)?);
    }
    Ok(reached.len().abs_diff(2 * (k - 1) * n + 2) as f64)
}

fn joined(n: usize, k: usize, label: Label1, rng: &mut ChaCha8Rng) -> Result<f64> {
    let (from, to) = (random_1d(label, n, k, rng)?, random_1d(label, n, k, rng)?);
    let path = path(&from, &to)?;
    let mut worst = distance(&path.at(0.0)?, &from).max(distance(&path.at(1.0)?, &to));
    for step in 0..=8 {
        let between = path.at(f64::from(step) / 8.0)?;
        worst = worst.max(between.orthogonality_defect());
        if label_1d(&between)? != label {
            return Ok(WRONG);
        }
    }
    Ok(worst / (n * k) as f64)
}

/// 1 when a path to a kernel of some other label is found.
fn not_joined(n: usize, k: usize, label: Label1, rng: &mut ChaCha8Rng) -> Result<f64> {
    let others: Vec<_> = labels_1d(n, k).filter(|&other| other != label).collect();
    let other = others[rng.random_range(0..others.len())];
    let (from, to) = (random_1d(label, n, k, rng)?, random_1d(other, n, k, rng)?);
    Ok(match path(&from, &to) {
        Err(Error::LabelsDiffer { left, right }) if (left, right) == (label, other) => 0.0,
        _ => 1.0,
    })
}
