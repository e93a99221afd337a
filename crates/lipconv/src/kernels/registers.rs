//! Registers of several numbers: one source of a kernel, compiled for each instruction set; the best one that the processor has is run.

use projectors::Real;

use super::lanes::{LANES, Lanes};

/// Rows and columns that are transposed at a time.
pub(crate) const SIDE: usize = 8;

/// As many rows as columns.
pub(crate) type Square<T> = [[T; SIDE]; SIDE];

/// A number of which registers are made.
pub trait Packed: Real {
    /// Runs the kernel with the widest registers of this processor.
    fn run(kernel: impl Kernel<Self>);
}

/// What is compiled for each instruction set: `run` is `#[inline(always)]`, as is everything in it that takes time.
pub trait Kernel<T> {
    /// Computes, with registers of this kind.
    fn run<R: Registers<T>>(self, registers: R);
}

/// Operations on registers of one kind. A value proves that the processor has them.
pub trait Registers<T>: Copy {
    /// Several numbers.
    type Register: Copy;
    /// Registers that hold [`Lanes`].
    const PARTS: usize;

    /// Zeros.
    fn zero(self) -> Self::Register;
    /// One value everywhere.
    fn spread(self, value: &T) -> Self::Register;
    /// One part of the lanes.
    fn load(self, lanes: &Lanes<T>, part: usize) -> Self::Register;
    /// a·b + c, rounded once or twice.
    fn mul_add(self, a: Self::Register, b: Self::Register, c: Self::Register) -> Self::Register;
    /// a + b.
    fn add(self, a: Self::Register, b: Self::Register) -> Self::Register;
    /// The opposite of [`Registers::load`].
    fn store(self, register: Self::Register, lanes: &mut Lanes<T>, part: usize);
    /// The transposed square.
    fn turned(self, square: &Square<T>) -> Square<T>;
}

/// N numbers in whatever the processor has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain<const N: usize>;

/// Whether `mul_add` is one instruction of every processor: it may be a call of a library.
const FUSED: bool = cfg!(target_arch = "aarch64");

impl<T: Real, const N: usize> Registers<T> for Plain<N> {
    type Register = [T; N];
    const PARTS: usize = LANES / N;

    #[inline(always)]
    fn zero(self) -> [T; N] {
        [T::zero(); N]
    }

    #[inline(always)]
    fn spread(self, &value: &T) -> [T; N] {
        [value; N]
    }

    #[inline(always)]
    fn load(self, lanes: &Lanes<T>, part: usize) -> [T; N] {
        lanes.0.as_chunks().0[part]
    }

    #[inline(always)]
    fn mul_add(self, a: [T; N], b: [T; N], c: [T; N]) -> [T; N] {
        std::array::from_fn(|i| {
            if FUSED { num_traits::Float::mul_add(a[i], b[i], c[i]) } else { a[i] * b[i] + c[i] }
        })
    }

    #[inline(always)]
    fn add(self, a: [T; N], b: [T; N]) -> [T; N] {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn store(self, register: [T; N], lanes: &mut Lanes<T>, part: usize) {
        lanes.0.as_chunks_mut().0[part] = register;
    }

    #[inline(always)]
    fn turned(self, square: &Square<T>) -> Square<T> {
        turned(square)
    }
}

/// The transposed square, number by number.
#[inline(always)]
fn turned<T: Copy>(square: &Square<T>) -> Square<T> {
    std::array::from_fn(|i| std::array::from_fn(|j| square[j][i]))
}

#[cfg(not(target_arch = "x86_64"))]
macro_rules! packed {
    ($($scalar:ty),*) => {$(
        impl Packed for $scalar {
            fn run(kernel: impl Kernel<Self>) {
                kernel.run(Plain::<4>);
            }
        }
    )*};
}

#[cfg(not(target_arch = "x86_64"))]
packed!(f32, f64);

#[cfg(target_arch = "x86_64")]
mod x86;
