//! The paper's figures, to stand beside ours.
//!
//! Source: Li et al. 2019, tables 1 to 3 (mean and standard deviation of 5 runs of 200 epochs, percent). PGD and FGSM, and
//! the methods "bcop-fixed" and "rk-l2ne", are from the runs that the authors released, one figure each. Certified accuracy is
//! nominal, at ε = 1.58 on MNIST and 36/255 on CIFAR-10.

/// Mean and standard deviation over 5 runs, percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Mean.
    pub mean: f64,
    /// Standard deviation; `None` for a single figure.
    pub sd: Option<f64>,
}

impl Figure {
    /// A single figure.
    #[must_use]
    pub const fn alone(mean: f64) -> Self {
        Self { mean, sd: None }
    }

    const fn new([mean, sd]: [f64; 2]) -> Self {
        Self { mean, sd: Some(sd) }
    }
}

/// One cell of tables 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// "mnist" or "cifar10".
    pub dataset: &'static str,
    /// "small", "large" or "fc-3".
    pub network: &'static str,
    /// The method, as in "bcop".
    pub layer: &'static str,
    /// Radius of the certified accuracy and of the attacks.
    pub eps: &'static str,
    /// Clean accuracy.
    pub clean: Figure,
    /// Certified accuracy.
    pub certified: Option<Figure>,
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
        clean: Figure::new(clean),
        certified: Some(Figure::new(certified)),
        pgd,
        fgsm,
    }
}

/// A cell of the authors' released runs.
const fn released(
    [dataset, network, layer]: [&'static str; 3],
    [clean, certified]: [f64; 2],
) -> Reference {
    let cell = cell([dataset, network, layer], [0.0; 2], [0.0; 2], None);
    Reference { clean: Figure::alone(clean), certified: Some(Figure::alone(certified)), ..cell }
}

/// All cells.
pub const REFERENCES: [Reference; 27] = [
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
    cell(["mnist", "fc-3", "bjorck"], [98.71, 0.02], [54.46, 0.30], None),
    cell(["cifar10", "fc-3", "bjorck"], [62.60, 0.39], [49.97, 0.35], None),
    released(["mnist", "small", "bcop-fixed"], [93.57, 7.51]),
    released(["mnist", "large", "bcop-fixed"], [65.20, 0.00]),
    released(["cifar10", "small", "bcop-fixed"], [50.61, 36.44]),
    released(["cifar10", "large", "bcop-fixed"], [47.14, 27.43]),
    released(["mnist", "small", "rk-l2ne"], [95.85, 39.77]),
    released(["mnist", "large", "rk-l2ne"], [96.76, 37.79]),
    released(["cifar10", "small", "rk-l2ne"], [58.82, 44.65]),
    released(["cifar10", "large", "rk-l2ne"], [56.75, 43.40]),
    Reference {
        dataset: "cifar10",
        network: "kw-small",
        layer: "published",
        eps: "36/255",
        clean: Figure::alone(54.39),
        certified: None,
        pgd: Some(49.94),
        fgsm: Some(49.98),
    },
];

/// Figures of other work that the paper quotes and that are not run here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quoted {
    /// The experiment, as in "table2".
    pub experiment: &'static str,
    /// "mnist" or "cifar10".
    pub dataset: &'static str,
    /// The network.
    pub name: &'static str,
    /// What the paper gives, percent.
    pub figures: &'static [(&'static str, f64)],
}

/// All quoted figures.
pub const QUOTED: [Quoted; 4] = [
    Quoted {
        experiment: "table2",
        dataset: "mnist",
        name: "KW-Large",
        figures: &[("clean", 88.12), ("certified", 44.53)],
    },
    Quoted {
        experiment: "table2",
        dataset: "cifar10",
        name: "KW-Large",
        figures: &[("clean", 59.76), ("certified", 50.60)],
    },
    Quoted {
        experiment: "table2",
        dataset: "cifar10",
        name: "KW-ResNet",
        figures: &[("clean", 61.20), ("certified", 51.96)],
    },
    Quoted {
        experiment: "table3",
        dataset: "cifar10",
        name: "KW-Large",
        figures: &[
            ("clean", 60.14),
            ("PGD", 55.53),
            ("FGSM", 55.55),
            ("clean, first images", 68.0),
            ("boundary, first images", 64.0),
            ("pointwise, first images", 68.0),
        ],
    },
];

/// Clean accuracy and accuracy under the boundary and the pointwise attack on the first 100 test images (table 3).
#[must_use]
pub fn first_images(dataset: &str, network: &str, layer: &str) -> Option<[Figure; 3]> {
    match (dataset, network, layer) {
        ("cifar10", "small", "bcop") => {
            Some([[74.2, 2.2], [61.2, 3.0], [74.0, 2.3]].map(Figure::new))
        }
        ("cifar10", "large", "bcop") => {
            Some([[78.4, 2.0], [71.0, 2.3], [78.4, 2.0]].map(Figure::new))
        }
        ("cifar10", "kw-small", "published") => Some([63.0, 60.0, 63.0].map(Figure::alone)),
        _ => None,
    }
}

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
        let certified = bcop.certified.unwrap();
        assert_eq!((bcop.clean.mean, certified.mean, bcop.eps), (97.54, 45.84, "1.58"));
        assert_eq!((bcop.clean.sd, certified.sd), (Some(0.06), Some(0.90)));
        assert_eq!(reference("cifar10", "large", "bcop").unwrap().eps, "36/255");
        assert!(reference("synthetic", "small", "bcop").is_none());
        assert!(reference("mnist", "small", "unconstrained").is_none());
    }

    #[test]
    fn certified_is_below_attacked_is_below_clean() {
        for r in &REFERENCES {
            let certified = r.certified.map_or(0.0, |figure| figure.mean);
            assert!(certified < r.clean.mean, "{r:?}");
            for attacked in [r.pgd, r.fgsm].into_iter().flatten() {
                assert!(certified < attacked && attacked < r.clean.mean, "{r:?}");
            }
        }
    }
}
