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

pub use critic::{CriticConfig, CriticNetwork};
pub use distribution::{Estimate, ImagePool, estimate};
pub use source::{Generated, SourceName};
