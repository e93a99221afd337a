//! The path of orthogonal 1-D kernels between two kernels of one label: the constructive half of Theorem 1.
//!
//! Construction. Factor both kernels by equation (4), H □ [P_1  I-P_1] □ …. Only the sum d of the coranks c_j = n - rank P_j is common
//! to both, so each is first led to a kernel that depends on d alone. Deal channels to the factors in turn: the first
//! c_1 channels to factor 1, the next c_2 to factor 2 and so on, beginning again with channel 0 after channel n-1. A factor
//! gets distinct channels, as c_j <= n; let D_j be the diagonal projector that is 0 on them and 1 elsewhere. It has the rank of
//! P_j, so a geodesic of the Grassmannian joins P_j to D_j. Diagonal factors commute and delay channel i by one step for each time
//! it was dealt, which is d_i = ⌈(d - i) / n⌉ whatever the c_j: the kernel is H Λ_d, Λ_d = diag(z^{d_i}). The orthogonal matrices move
//! by a path of rotations, H(t) = H R(t) with H R(1) = H', which exists because det H = det H'. Together,
//!
//! ```text
//! t in [0, 1/2]:  H(t) □ [P_1(2t)  I-P_1(2t)] □ …          P_j(2t) from P_j to D_j
//! t in [1/2, 1]:  H(t) □ [P'_1(2-2t)  I-P'_1(2-2t)] □ …    and back from D'_j to P'_j
//! ```
//!
//! and at t = 1/2 both are H(1/2) Λ_d.
//!
//! Guarantee. Every kernel on the path is orthogonal to rounding, for it is assembled by equation (4). The ends are the given
//! kernels as closely as their factors are ([`factorise`]). The path is Lipschitz with the constant [`Path::speed_bound`].
//!
//! Errors. [`Error::LabelsDiffer`], [`Error::ShapeMismatch`], and those of the factorisation.
//!
//! Source. Li et al., Theorem 1 (its proof joins kernels with equal ranks in every factor; dealing in turn joins the rest).

use ndarray::Array2;
use projectors::grassmann::{Geodesic, geodesic};
use projectors::{Projector, gemm};

use super::label::Label1;
use super::rotation::Rotation;
use super::winding::label_1d;
use crate::assembly::assemble_1d;
use crate::check;
use crate::error::{Error, Result};
use crate::factorisation::{Factors1, factorise};
use crate::kernel::Kernel1;

/// A continuous path of orthogonal kernels.
#[derive(Clone, Debug)]
pub struct Path {
    label: Label1,
    h: Array2<f64>,
    rotation: Rotation,
    /// From the projectors of the start to diagonal ones.
    leaving: Vec<Geodesic<f64>>,
    /// From the projectors of the end to diagonal ones.
    arriving: Vec<Geodesic<f64>>,
}

/// A path of orthogonal kernels from `from` (t = 0) to `to` (t = 1).
///
/// # Errors
/// [`Error::ShapeMismatch`] for kernels of different shapes, [`Error::LabelsDiffer`] for kernels in different components,
/// [`Error::NonSquareBlocks`], [`Error::NotOrthogonal`].
///
/// # Example
/// ```
/// use blockconv::Kernel1;
/// use blockconv::components::{label_1d, path};
/// use ndarray::array;
///
/// // Delaying channel 0 or channel 1: equal labels. Delaying none: another one.
/// let first = Kernel1::try_new(array![[[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]]).unwrap();
/// let second = Kernel1::try_new(array![[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]).unwrap();
/// let none = Kernel1::try_new(array![[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]).unwrap();
/// let between = path(&first, &second).unwrap().at(0.3).unwrap();
/// assert!(between.orthogonality_defect() < 1e-14);
/// assert_eq!(label_1d(&between).unwrap(), label_1d(&first).unwrap());
/// assert!(path(&first, &none).is_err());
/// ```
pub fn path(from: &Kernel1<f64>, to: &Kernel1<f64>) -> Result<Path> {
    check::shape("the end of the path", from.taps().shape(), to.taps().shape())?;
    let (left, right) = (label_1d(from)?, label_1d(to)?);
    if left != right {
        return Err(Error::LabelsDiffer { left, right });
    }
    let (start, end) = (factorise(from)?, factorise(to)?);
    let rotation = Rotation::decompose(gemm::matmul(start.h.t(), end.h.view()));
    let (leaving, arriving) = (to_diagonal(&start)?, to_diagonal(&end)?);
    Ok(Path { label: left, h: start.h, rotation, leaving, arriving })
}

impl Path {
    /// The kernel at t in [0, 1].
    ///
    /// # Errors
    /// [`Error::Projectors`] for a t outside of [0, 1].
    pub fn at(&self, t: f64) -> Result<Kernel1<f64>> {
        if !(0.0..=1.0).contains(&t) {
            let expected = "a number in [0, 1]";
            return Err(projectors::Error::InvalidSetting { name: "t", value: t, expected }.into());
        }
        let (geodesics, s) =
            if t <= 0.5 { (&self.leaving, 2.0 * t) } else { (&self.arriving, 2.0 - 2.0 * t) };
        let projectors = geodesics.iter().map(|g| Ok(g.at(s)?)).collect::<Result<Vec<_>>>()?;
        assemble_1d(self.rotation.turn(self.h.clone(), t).view(), &projectors)
    }

    /// The label that all kernels on the path share.
    #[must_use]
    pub fn label(&self) -> Label1 {
        self.label
    }

    /// A constant L with ‖at(s) - at(t)‖_F <= L |s - t|, the norm taken over all taps.
    ///
    /// The other factors being unitary, a change of H counts as it is, and a change E of P_j as E (1 - z), of norm √2 ‖E‖_F.
    /// A geodesic with angles Θ run in half the time has ‖E‖_F <= 2 √2 ‖Θ‖ |s - t|.
    #[must_use]
    pub fn speed_bound(&self) -> f64 {
        let half = |gs: &[Geodesic<f64>]| 4.0 * gs.iter().map(Geodesic::length).sum::<f64>();
        self.rotation.length_bound() + half(&self.leaving).max(half(&self.arriving))
    }
}

/// Geodesics from the projectors to diagonal ones, channels dealt to the factors in turn.
fn to_diagonal(factors: &Factors1<f64>) -> Result<Vec<Geodesic<f64>>> {
    let n = factors.h.nrows();
    let mut next = 0;
    let geodesics = factors.projectors.iter().map(|p| {
        let mut diagonal = Array2::eye(n);
        for channel in next..next + n - p.rank() {
            diagonal[[channel % n, channel % n]] = 0.0;
        }
        next += n - p.rank();
        Ok(geodesic(p, &Projector::try_new(diagonal)?)?)
    });
    geodesics.collect()
}
