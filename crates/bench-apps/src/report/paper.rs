//! The paper's figures, to stand beside ours.
//!
//! Source: Li et al. 2019, tables 1 and 2 (mean and standard deviation of 5 runs of 200 epochs, percent); PGD and FGSM on the
//! Small and Large networks are from the runs that the authors released, one figure each. Certified accuracy is nominal, at
//! ε = 1.58 on MNIST and 36/255 on CIFAR-10.

/// Mean and standard deviation over 5 runs, percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub sd: f64,
}

/// One cell of tables 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// "mnist" or "cifar10".
    pub dataset: &'static str,
    /// "small" or "large".
    pub network: &'static str,
    /// "ossn", "rko", "svcm" or "bcop".
    pub layer: &'static str,
    /// Radius of the certified accuracy and of the attacks.
    pub eps: &'static str,
    /// Clean accuracy.
    pub clean: Figure,
    /// Certified accuracy.
    pub certified: Figure,
    /// Accuracy under PGD, 200 steps of 0.01.
    pub pgd: Option<f64>,
    /// Accuracy under FGSM.
    pub fgsm: Option<f64>,
}

const fn cell(
    [dataset, network, layer]: [&'static str; 3],
    clean: [f64; 2],
    certified: [f64; 2],
    attacks: Option<[f64; 2]>,
) -> Reference {
    let (pgd, fgsm) = match attacks {
        Some([pgd, fgsm]) => (Some(pgd), Some(fgsm)),
        None => (None, None),
    };
    Reference {
        dataset,
        network,
        layer,
        eps: if dataset.len() == 5 { "1.58" } else { "36/255" },
        clean: Figure { mean: clean[0], sd: clean[1] },
        certified: Figure { mean: certified[0], sd: certified[1] },
        pgd,
        fgsm,
    }
}

/// All cells.
pub const REFERENCES: [Reference; 16] = [
    cell(["mnist", "small", "ossn"], [96.86, 0.13], [42.95, 1.09], Some([73.62, 74.32])),
    cell(["mnist", "small", "rko"], [97.28, 0.08], [43.58, 0.44], Some([77.95, 78.43])),
    cell(["mnist", "small", "svcm"], [97.24, 0.09], [28.94, 1.58], Some([71.03, 72.66])),
    cell(["mnist", "small", "bcop"], [97.54, 0.06], [45.84, 0.90], Some([78.00, 79.22])),
    cell(["mnist", "large", "ossn"], [98.31, 0.03], [53.77, 1.02], None),
    cell(["mnist", "large", "rko"], [98.44, 0.05], [55.18, 0.46], None),
    cell(["mnist", "large", "svcm"], [97.93, 0.05], [38.00, 1.82], None),
    cell(["mnist", "large", "bcop"], [98.69, 0.01], [56.37, 0.33], Some([86.86, 86.93])),
    cell(["cifar10", "small", "ossn"], [62.18, 0.66], [48.03, 0.54], Some([53.05, 53.22])),
    cell(["cifar10", "small", "rko"], [61.77, 0.63], [47.46, 0.53], Some([53.53, 53.65])),
    cell(["cifar10", "small", "svcm"], [62.39, 0.46], [47.59, 0.56], Some([52.36, 52.53])),
    cell(["cifar10", "small", "bcop"], [64.53, 0.30], [50.01, 0.21], Some([51.26, 51.57])),
    cell(["cifar10", "large", "ossn"], [67.51, 0.47], [53.64, 0.49], None),
    cell(["cifar10", "large", "rko"], [70.01, 0.26], [55.76, 0.16], None),
    cell(["cifar10", "large", "svcm"], [69.65, 0.38], [53.61, 0.51], None),
    cell(["cifar10", "large", "bcop"], [72.16, 0.23], [58.26, 0.17], Some([64.12, 64.24])),
];

/// The cell of a data set, a network and a kind of layer.
#[must_use]
pub fn reference(dataset: &str, network: &str, layer: &str) -> Option<&'static Reference> {
    REFERENCES.iter().find(|r| r.dataset == dataset && r.network == network && r.layer == layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_by_name_and_only_so() {
        let bcop = reference("mnist", "small", "bcop").unwrap();
        assert_eq!((bcop.clean.mean, bcop.certified.mean, bcop.eps), (97.54, 45.84, "1.58"));
        assert_eq!(reference("cifar10", "large", "bcop").unwrap().eps, "36/255");
        assert!(reference("synthetic", "small", "bcop").is_none());
        assert!(reference("mnist", "small", "unconstrained").is_none());
    }

    #[test]
    fn certified_is_below_attacked_is_below_clean() {
        for r in &REFERENCES {
            assert!(r.certified.mean < r.clean.mean, "{r:?}");
            for attacked in [r.pgd, r.fgsm].into_iter().flatten() {
                assert!(r.certified.mean < attacked && attacked < r.clean.mean, "{r:?}");
            }
        }
    }
}
