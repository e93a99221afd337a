//! From a method to how the engine makes its weight.

use super::blueprint::Method;
use crate::methods::{ConvMethod, LinearMethod, Method as Constraint, Sizes};

/// How the engine makes the weight of a layer, if it does.
pub(super) fn on_device(method: Constraint, sizes: &Sizes) -> Option<Method> {
    let n = sizes.n_in.max(sizes.n_out);
    Some(match method {
        // a projector of rank 0 is no work for a device
        Constraint::Conv(ConvMethod::Bcop | ConvMethod::BcopFixed) if n >= 2 => Method::Bcop { n },
        Constraint::Conv(ConvMethod::Rko) => Method::Rko,
        Constraint::Conv(ConvMethod::Ossn) => Method::Ossn,
        Constraint::Conv(ConvMethod::RkL2ne) => Method::RowSums,
        Constraint::Linear(LinearMethod::Bjorck) => Method::Polar,
        Constraint::Linear(LinearMethod::Lln) => Method::UnitRows,
        // SVCM's projections between steps are the host's
        Constraint::Conv(ConvMethod::Unconstrained | ConvMethod::Svcm)
        | Constraint::Linear(LinearMethod::Unconstrained) => Method::Free,
        _ => return None,
    })
}
