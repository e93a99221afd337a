//! AVX2 and AVX-512.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Kernel, Packed, Plain, Registers, Square, turned};
use crate::kernels::lanes::{LANES, Lanes};

/// The processor has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
struct Avx2(());

/// The processor has these and AVX-512F.
#[derive(Debug, Clone, Copy)]
struct Avx512(Avx2);

impl Avx2 {
    fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        has.then_some(Self(()))
    }

    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    #[inline(always)]
    fn turned(self, square: &Square<f32>) -> Square<f32> {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { turned_in_registers(square) }
    }
}

impl Avx512 {
    fn new() -> Option<Self> {
        Avx2::new().filter(|_| is_x86_feature_detected!("avx512f")).map(Self)
    }
}

#[target_feature(enable = "avx2,fma")]
fn on_avx2<T>(kernel: impl Kernel<T>, registers: Avx2)
where
    Avx2: Registers<T>,
{
    kernel.run(registers);
}

#[target_feature(enable = "avx2,fma,avx512f")]
fn on_avx512<T>(kernel: impl Kernel<T>, registers: Avx512)
where
    Avx512: Registers<T>,
{
    kernel.run(registers);
}

macro_rules! packed {
    ($($scalar:ty),*) => {$(
        #[expect(unsafe_code, reason = "functions with instructions that not every processor has")]
        impl Packed for $scalar {
            fn run(kernel: impl Kernel<Self>) {
                match (Avx512::new(), Avx2::new()) {
                    // SAFETY: the processor has the instructions: so says the value.
                    (Some(registers), _) => unsafe { on_avx512(kernel, registers) },
                    // SAFETY: as above.
                    (None, Some(registers)) => unsafe { on_avx2(kernel, registers) },
                    (None, None) => kernel.run(Plain::<4>),
                }
            }
        }
    )*};
}

packed!(f32, f64);

macro_rules! registers {
    ($kind:ty, $numbers:literal x $scalar:ty, $register:ty, $turned:expr;
     $zero:path, $spread:path, $mul_add:path, $add:path) => {
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        impl Registers<$scalar> for $kind {
            type Register = $register;
            const PARTS: usize = LANES / $numbers;

            #[inline(always)]
            fn zero(self) -> $register {
                // SAFETY: `self` proves that the processor has the instruction.
                unsafe { $zero() }
            }

            #[inline(always)]
            fn spread(self, &value: &$scalar) -> $register {
                // SAFETY: `self` proves that the processor has the instruction.
                unsafe { $spread(value) }
            }

            #[inline(always)]
            fn load(self, lanes: &Lanes<$scalar>, part: usize) -> $register {
                let numbers: [$scalar; $numbers] = lanes.0.as_chunks().0[part];
                // SAFETY: a register is an array of numbers, and every pattern of bits is one.
                unsafe { transmute(numbers) }
            }

            #[inline(always)]
            fn mul_add(self, a: $register, b: $register, c: $register) -> $register {
                // SAFETY: `self` proves that the processor has the instruction.
                unsafe { $mul_add(a, b, c) }
            }

            #[inline(always)]
            fn add(self, a: $register, b: $register) -> $register {
                // SAFETY: `self` proves that the processor has the instruction.
                unsafe { $add(a, b) }
            }

            #[inline(always)]
            fn store(self, register: $register, lanes: &mut Lanes<$scalar>, part: usize) {
                // SAFETY: a register is an array of numbers, and every pattern of bits is one.
                let numbers: [$scalar; $numbers] = unsafe { transmute(register) };
                lanes.0.as_chunks_mut().0[part] = numbers;
            }

            #[inline(always)]
            fn turned(self, square: &Square<$scalar>) -> Square<$scalar> {
                $turned(self, square)
            }
        }
    };
}

registers! {
    Avx2, 8 x f32, __m256, |registers: Self, square| registers.turned(square);
    _mm256_setzero_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps
}
registers! {
    Avx2, 4 x f64, __m256d, |_, square| turned(square);
    _mm256_setzero_pd, _mm256_set1_pd, _mm256_fmadd_pd, _mm256_add_pd
}
registers! {
    Avx512, 16 x f32, __m512, |registers: Self, square| registers.0.turned(square);
    _mm512_setzero_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps
}
registers! {
    Avx512, 8 x f64, __m512d, |_, square| turned(square);
    _mm512_setzero_pd, _mm512_set1_pd, _mm512_fmadd_pd, _mm512_add_pd
}

/// The transposed square: the compiler would move it number by number.
#[expect(unsafe_code, reason = "registers as arrays")]
#[target_feature(enable = "avx2")]
#[inline]
fn turned_in_registers(square: &Square<f32>) -> Square<f32> {
    // SAFETY: a register is an array of eight numbers, and every pattern of bits is one.
    let rows: [__m256; 8] = unsafe { transmute(*square) };
    // in each half of a register: values of two rows, then of four
    let four = |i: usize| {
        let (a, b) =
            (_mm256_unpacklo_ps(rows[i], rows[i + 1]), _mm256_unpackhi_ps(rows[i], rows[i + 1]));
        let (c, d) = (
            _mm256_unpacklo_ps(rows[i + 2], rows[i + 3]),
            _mm256_unpackhi_ps(rows[i + 2], rows[i + 3]),
        );
        [
            _mm256_shuffle_ps::<0b01_00_01_00>(a, c),
            _mm256_shuffle_ps::<0b11_10_11_10>(a, c),
            _mm256_shuffle_ps::<0b01_00_01_00>(b, d),
            _mm256_shuffle_ps::<0b11_10_11_10>(b, d),
        ]
    };
    let (upper, lower) = (four(0), four(4));
    let columns: [__m256; 8] = std::array::from_fn(|j| {
        let (a, b) = (upper[j % 4], lower[j % 4]);
        if j < 4 {
            _mm256_permute2f128_ps::<0x20>(a, b)
        } else {
            _mm256_permute2f128_ps::<0x31>(a, b)
        }
    });
    // SAFETY: as above.
    unsafe { transmute(columns) }
}
