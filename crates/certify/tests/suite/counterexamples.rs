//! Nominal radii can be wrong, executed ones are not.

use candle_core::DType;

use crate::common::rng;
use crate::hunt::{Construction, Findings, hunt};

fn findings(construction: Construction, n_networks: u64) -> Vec<Findings> {
    let hunt_on = |seed: u64| {
        let rng = &mut rng(seed);
        let network = construction.network(rng);
        hunt(&network, &Construction::images(20, rng), rng)
    };
    (0..n_networks).map(hunt_on).collect()
}

#[test]
fn hunters_find_wrong_nominal_radii_and_no_wrong_executed_ones() {
    let cases = [
        (Construction::StoredIn(DType::BF16), true),
        (Construction::StoredIn(DType::F16), true),
        (Construction::HiddenBias(1e4), true),
        (Construction::HiddenBias(5e6), true),
        (Construction::Plain, false),
    ];
    for (construction, must_find) in cases {
        let findings = findings(construction, 6);
        let n_broken: usize = findings.iter().map(|f| f.n_broken).sum();
        assert!(!must_find || n_broken > 0, "{construction:?}: {findings:?}");
        assert!(findings.iter().all(|f| f.n_unsound == 0), "{construction:?}: {findings:?}");
        assert!(findings.iter().all(|f| f.n_images > 0), "{construction:?}: {findings:?}");
    }
    // the certificate is not bought by giving up: on orthogonal networks nearly all of the radius is left
    assert!(findings(Construction::Plain, 6).iter().all(|f| f.kept > 0.99));
}
