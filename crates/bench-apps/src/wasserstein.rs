//! Wasserstein distances between sets of images, from below.
//!
//! Definition. W1(A, B) = sup E_A f - E_B f over all 1-Lipschitz functions f (Kantorovich and Rubinstein; lengths are those of
//! images with values in [-1, 1], in the L2 norm). A *critic* is a network that is trained to make the difference large; with K a
//! rigorous bound of its Lipschitz constant, (E_A f - E_B f) / K is a lower bound of the distance, whatever its training did.
//! The two sides are [`certify::Distribution`]s: images ([`distribution`], [`source`]), a frozen generator, or distributions whose
//! distance is known exactly ([`certify::Anchor`]).
//!
//! Guarantee: an estimate is a mean over samples that the critic was not trained on, with its standard error, divided by K
//! rounded up; where several learning rates are tried, the choice is made on other samples still.
//!
//! Source: Li et al. 2019, section 5.3.
//!
//! Not here: the loss (`lipconv`), the bound (`certify`), the cells of Table 4 ([`crate::jobs`]).

pub mod critic;
pub mod distribution;
pub mod gan;
pub mod search;
pub mod source;

use std::path::Path;

pub use critic::{CriticConfig, CriticNetwork};
pub use distribution::{Estimate, ImagePool, estimate};
pub use source::{Generated, SourceName};

use crate::error::{Error, Result};

/// Refuses a folder that holds one of the files `foreign` while `begun`, which is written before all of them, is missing: it belongs to
/// something else.
pub(crate) fn check_own(folder: &Path, begun: &str, foreign: &[&str], whose: &str) -> Result<()> {
    let is_there = |name: &str| folder.join(name).symlink_metadata().is_ok();
    match foreign.iter().find(|name| is_there(name)) {
        // looked for last, as another process may be writing the files in their order
        Some(name) if !is_there(begun) => {
            let what = format!(
                "holds {name} but no {begun}, expected {whose} or a folder without a run's files"
            );
            Err(Error::malformed(folder, what))
        }
        _ => Ok(()),
    }
}

/// A number of a message, in powers of ten where its digits would fill lines.
pub(crate) fn number_text(value: f64) -> String {
    let is_short = value == 0.0 || (1e-6..1e12).contains(&value.abs());
    if is_short { value.to_string() } else { format!("{value:e}") }
}
