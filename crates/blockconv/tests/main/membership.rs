//! Equation (5) in 2-D is incomplete: members return from their taps, Q-then-P kernels are refuted with a certificate.

use blockconv::Kernel2;
use blockconv::assembly::assemble_2d;
use blockconv::membership::{Membership, census, membership, q_then_p};
use ndarray::{Array2, Array4};
use projectors::{Projector, Real, haar_orthogonal};
use proptest::prelude::*;

use crate::support::{self, distance};

fn close<T: Real>(n: usize) -> f64 {
    64.0 * T::EPS * n as f64
}

fn draw<T: Real>(
    n: usize,
    ranks: (usize, usize),
    seed: u64,
) -> (Array2<T>, Projector<T>, Projector<T>) {
    let mut rng = support::rng(seed);
    let h = haar_orthogonal(n, &mut rng);
    let p = Projector::random(n, ranks.0, &mut rng).unwrap();
    (h, p, Projector::random(n, ranks.1, &mut rng).unwrap())
}

fn p_then_q<T: Real>(h: &Array2<T>, p: &Projector<T>, q: &Projector<T>) -> Kernel2<T> {
    assemble_2d(h.view(), std::slice::from_ref(p), std::slice::from_ref(q)).unwrap()
}

#[track_caller]
fn check_both_orders<T: Real>(n: usize, ranks: (usize, usize), seed: u64) {
    let case = format!("n {n}, ranks {ranks:?}, seed {seed}, {}", T::NAME);
    let (h, p, q) = draw::<T>(n, ranks, seed);
    let commutator = {
        let pq = p.matrix().dot(&q.matrix());
        distance(&pq, &pq.t())
    };
    let in_order = membership(&p_then_q(&h, &p, &q)).unwrap();
    assert!(
        in_order.is_member(),
        "{case}: P then Q, residual {:e}",
        in_order.forced_factors().residual
    );

    let reversed = q_then_p(h.view(), &p, &q).unwrap();
    assert!(reversed.orthogonality_defect() <= support::defect::<T>(n, 2), "{case}");
    let verdict = membership(&reversed).unwrap();
    let trivial = [0, n].contains(&ranks.0) || [0, n].contains(&ranks.1);
    assert_eq!(verdict.is_member(), trivial, "{case}: Q then P");
    // In either case the row and column sums force the factors.
    for factors in [in_order.forced_factors(), verdict.forced_factors()] {
        assert!(distance(&factors.h, &h) <= close::<T>(n), "{case}: H");
        assert!(factors.p.distance(&p).unwrap().as_f64() <= close::<T>(n), "{case}: P");
        assert!(factors.q.distance(&q).unwrap().as_f64() <= close::<T>(n), "{case}: Q");
        assert!((factors.commutator() - commutator).abs() <= close::<T>(n), "{case}");
    }
    // Every tap of W - f(W) is H (PQ - QP) up to a sign.
    let residual = verdict.forced_factors().residual;
    assert!((residual - 2.0 * commutator).abs() <= close::<T>(n), "{case}: {residual}");
}

#[test]
fn order_matters_unless_the_projectors_commute() {
    for n in 1..=5 {
        for p in 0..=n {
            for q in 0..=n {
                for seed in 0..3 {
                    check_both_orders::<f64>(n, (p, q), seed);
                    check_both_orders::<f32>(n, (p, q), seed);
                }
            }
        }
    }
}

/// Projectors that nearly commute make kernels that are nearly members: the residual resolves an angle of 1e-9.
#[test]
fn certificate_resolves_small_commutators() {
    for exponent in 0..10 {
        let angle = 10f64.powi(-exponent) * 0.5;
        let (sin, cos) = angle.sin_cos();
        let p = Projector::try_new(ndarray::array![[1.0, 0.0], [0.0, 0.0]]).unwrap();
        let line = ndarray::array![[cos], [sin]];
        let q = Projector::from_range(line.view()).unwrap();
        let verdict = membership(&q_then_p(Array2::eye(2).view(), &p, &q).unwrap()).unwrap();
        // PQ - QP = cos sin [0 1; -1 0].
        let residual = verdict.forced_factors().residual;
        assert!(
            (residual / (8f64.sqrt() * cos * sin) - 1.0).abs() < 1e-5,
            "{angle:e}: {residual:e}"
        );
        assert!(!verdict.is_member());
    }
}

/// Of the set of members nothing comes as close as the certificate says, neither random ones nor the nearest one found
/// by descent from the forced factors.
#[test]
fn no_member_is_nearer_than_certified() {
    let (h, p, q) = draw::<f64>(4, (2, 2), 7);
    let kernel = q_then_p(h.view(), &p, &q).unwrap();
    let verdict = membership(&kernel).unwrap();
    let certified = verdict.distance_to_members();
    assert!(certified > 0.05, "{certified}");
    let mut rng = support::rng(8);
    let mut nearest = distance(&p_then_q(&h, &p, &q).taps(), &kernel.taps());
    assert!((nearest - 9.0 * certified).abs() < 1e-12);
    let (mut m_p, mut m_q, mut m_h) = (p.into_matrix(), q.into_matrix(), h);
    let mut scale = 0.3;
    for _ in 0..600 {
        let mut noise = || support::uniform::<f64, _>((4, 4), &mut rng) * scale;
        let candidate = (&m_p + &noise(), &m_q + &noise(), &m_h + &noise());
        let symmetric = |m: &Array2<f64>| (m + &m.t()) * 0.5;
        let nearest_rank_2 = |m: &Array2<f64>| {
            projectors::grassmann::nearest_projector_of_rank(symmetric(m).view(), 2).unwrap()
        };
        let h = projectors::polar::polar(candidate.2.view()).unwrap().into_factor();
        let member = p_then_q(&h, &nearest_rank_2(&candidate.0), &nearest_rank_2(&candidate.1));
        let found = distance(&member.taps(), &kernel.taps());
        assert!(found >= certified, "{found} < {certified}");
        if found < nearest {
            (nearest, m_p, m_q, m_h) = (found, candidate.0, candidate.1, h);
        } else {
            scale *= 0.99;
        }
    }
    assert!(nearest < 9.0 * certified, "the descent moved");
}

#[test]
fn census_agrees_with_the_probability_of_trivial_ranks() {
    for n in 1..=4_u32 {
        let draws = 600;
        let census = census(n as usize, draws, &mut support::rng(9)).unwrap();
        assert_eq!(census.p_then_q, draws);
        let ratio = f64::from(n - 1) / f64::from(n + 1);
        let expected = 1.0 - ratio * ratio;
        let found = census.q_then_p as f64 / draws as f64;
        let four_sigma = 4.0 * (expected * (1.0 - expected) / draws as f64).sqrt();
        assert!((found - expected).abs() <= four_sigma, "n {n}: {found}, expected {expected}");
        assert!((census.fraction() - (1.0 + found) / 2.0).abs() < 1e-15);
    }
}

#[test]
fn other_kernels_are_refused() {
    let text = |kernel: Kernel2<f64>| membership(&kernel).unwrap_err().to_string();
    let tap = Kernel2::try_new(Array4::ones((1, 3, 1, 1))).unwrap();
    assert_eq!(text(tap), "the kernel has shape 1 x 3 x 1 x 1, expected 2 x 2 x 1 x 1");
    let wide = Kernel2::try_new(Array4::ones((2, 2, 1, 3))).unwrap();
    assert_eq!(text(wide), "the kernel must have square blocks, got 1 x 3");
    let ones = Kernel2::try_new(Array4::ones((2, 2, 1, 1))).unwrap();
    assert!(text(ones).starts_with("the kernel is not orthogonal: its autocorrelation defect is "));
    assert!(matches!(census(0, 1, &mut support::rng(0)), Err(blockconv::Error::Empty { .. })));
}

proptest! {
    #![proptest_config(crate::support::seeded())]

    #[test]
    fn membership_decides_any_ranks(n in 1_usize..=8, p: usize, q: usize, seed: u64) {
        check_both_orders::<f64>(n, (p % (n + 1), q % (n + 1)), seed);
    }

    #[test]
    fn members_are_never_refuted(n in 1_usize..=8, seed: u64) {
        let (h, ps, qs) = support::factors::<f64>(2, n, &mut support::rng(seed));
        let verdict = membership(&assemble_2d(h.view(), &ps, &qs).unwrap()).unwrap();
        prop_assert!(matches!(verdict, Membership::Member(_)));
        prop_assert_eq!(verdict.distance_to_members(), 0.0);
    }
}
