//! What every attack checks of its settings.

use crate::error::{Error, Result};

/// A setting that must be positive and finite.
pub(super) fn check_positive(name: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::InvalidSetting { name, value, expected: "a positive finite number" })
}

/// A setting that counts something.
pub(super) fn check_at_least_one(name: &'static str, value: usize) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::InvalidSetting { name, value: 0.0, expected: "at least 1" })
}

/// A number of random starts; rounds are told apart by sixteen bits of a random stream's number.
pub(super) fn check_restarts(restarts: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&restarts) {
        return Ok(());
    }
    let expected = if most == ONE_CLASS { "1 to 65536" } else { "1 to 4096" };
    Err(Error::InvalidSetting { name: "restarts", value: restarts as f64, expected })
}

/// The most random starts of an attack that aims at one class after the other, and of one that does not.
pub(super) const EACH_CLASS: usize = 4096;
pub(super) const ONE_CLASS: usize = 65536;
