//! Functions of a batch of matrices, each by itself: for plain forms and for inverses at each frequency.

use candle_core::{DType, Tensor};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::element::to_vec;
use crate::error::{Error, Result};

/// `function` of each matrix of a batch, f x n x n, computed in f64 on the host: constants of the batch's type and device.
///
/// # Errors
/// [`Error::Orthonormalisation`] with the name of `what` and the function's reason.
pub(super) fn of_each(
    what: &str,
    matrices: &Tensor,
    function: impl Fn(ArrayView2<'_, f64>) -> projectors::Result<Array2<f64>> + Sync,
) -> Result<Tensor> {
    let (_, n, _) = matrices.dims3()?;
    let values = to_vec::<f64>(&matrices.to_dtype(DType::F64)?)?;
    let results = values.par_chunks_exact((n * n).max(1)).map(|matrix| {
        let matrix = ArrayView2::from_shape((n, n), matrix).expect("a chunk of n x n values");
        let result = function(matrix)
            .map_err(|source| Error::Orthonormalisation { layer: what.to_owned(), source });
        Ok(result?.into_iter().collect::<Vec<_>>())
    });
    let results = results.collect::<Result<Vec<_>>>()?.concat();
    let (device, dtype) = (matrices.device(), matrices.dtype());
    Ok(Tensor::from_vec(results, matrices.shape(), device)?.to_dtype(dtype)?)
}
