//! The element types that the CPU engine runs in.

use candle_core::{CpuStorage, DType, Layout, Storage, Tensor, WithDType};
use projectors::Real;

use crate::error::{Error, Result};
use crate::kernels::registers::Packed;

/// `f32` or `f64`: a number of the algebra crates and of candle at once.
pub trait Element: Real + Packed + WithDType {
    /// The values of a CPU storage of this type, for writing.
    ///
    /// # Errors
    /// candle's error when the storage is of another type.
    fn storage_mut(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]>;
}

impl Element for f32 {
    fn storage_mut(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]> {
        match storage {
            CpuStorage::F32(values) => Ok(values),
            other => Err(wrong_type(DType::F32, other)),
        }
    }
}

impl Element for f64 {
    fn storage_mut(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]> {
        match storage {
            CpuStorage::F64(values) => Ok(values),
            other => Err(wrong_type(DType::F64, other)),
        }
    }
}

fn wrong_type(expected: DType, got: &CpuStorage) -> candle_core::Error {
    let got = candle_core::backend::BackendStorage::dtype(got);
    candle_core::Error::UnexpectedDType { msg: "storage", expected, got }.bt()
}

/// The contiguous values of a CPU tensor.
///
/// # Errors
/// [`Error::Candle`] when the storage is of another type or device, or not contiguous.
pub(crate) fn slice_of<'a, T: Element>(storage: &'a Storage, layout: &Layout) -> Result<&'a [T]> {
    let Storage::Cpu(storage) = storage else {
        return Err(Error::Candle(candle_core::Error::Msg("expected a tensor on the CPU".into())));
    };
    cpu_slice(storage, layout)
}

/// [`slice_of`] for the storage that a custom operation is handed.
pub(crate) fn cpu_slice<'a, T: Element>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<&'a [T]> {
    let (start, end) = layout.contiguous_offsets().ok_or_else(|| {
        Error::Candle(candle_core::Error::Msg("expected a contiguous tensor".into()).bt())
    })?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// All values of a tensor, in row-major order.
///
/// # Errors
/// [`Error::Candle`] when the tensor is of another type.
pub(crate) fn to_vec<T: Element>(tensor: &Tensor) -> Result<Vec<T>> {
    Ok(tensor.flatten_all()?.to_vec1::<T>()?)
}

/// Whether the CPU engine can run in this element type.
pub(crate) fn engine_runs(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64)
}
