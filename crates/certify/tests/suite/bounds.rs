//! Layer bounds on weights that are hard on them: never below the truth, and near it.

use certify::NetworkBounds;

use crate::common::rng;
use crate::kernels::{Case, FAMILIES, Family};

/// bound / truth - 1 of K and A of many layers of one family; panics where one is negative.
fn excesses(family: Family, n: usize, seed: u64) -> Vec<(f64, f64)> {
    let rng = &mut rng(seed);
    let excess = |_| {
        let case = Case::draw(family, rng);
        let bounds = NetworkBounds::new(&case.network()).unwrap();
        let (layer, (norm, absolute)) = (&bounds.layers()[0], case.truth());
        for (what, bound, truth) in
            [("K", layer.lipschitz, norm), ("A", layer.absolute_norm, absolute)]
        {
            assert!(bound >= truth, "{what} of {family:?}: {bound:e} below {truth:e}, {case:?}");
        }
        let over = |bound: f64, truth: f64| if truth == 0.0 { 0.0 } else { bound / truth - 1.0 };
        (over(layer.lipschitz, norm), over(layer.absolute_norm, absolute))
    };
    (0..n).map(excess).collect()
}

#[test]
fn bounds_are_above_the_truth_and_near_it() {
    for (seed, family) in FAMILIES.into_iter().enumerate() {
        let excesses = excesses(family, 120, 1000 + seed as u64);
        let worst = |f: fn(&(f64, f64)) -> f64| excesses.iter().map(f).fold(0.0, f64::max);
        let (k, a) = (worst(|(k, _)| *k), worst(|(_, a)| *a));
        assert!(k < 1e-4 && a < 1e-4, "{family:?}: K exceeds the truth by {k:e}, A by {a:e}");
    }
}
