//! Refusing numbers that are not.

use projectors::Real;

use crate::error::{Error, Result};

/// # Errors
/// [`Error::NonFinite`] at the first value that is NaN or infinite.
pub(crate) fn check_finite<T: Real>(what: &str, values: &[T]) -> Result<()> {
    match values.iter().position(|&v| !num_traits::Float::is_finite(v)) {
        None => Ok(()),
        Some(index) => {
            let value = values[index].as_f64();
            Err(Error::NonFinite { what: what.to_owned(), index, value })
        }
    }
}
