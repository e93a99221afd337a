//! Sums of products at shifted places: what a convolution, its input gradient and its weight gradient have in common.
//!
//! Definition: `sums[g][r] = Σ_t values[rows[r] + terms[t]] · factors[g][t]`, where a factor and a sum are [`Lanes`].
//! Rows and terms are lists of places: output pixels and (channel, tap) pairs, or the other way round.
//!
//! A few rows of sums stay in registers while the terms pass: each is one value, read where it lies and spread over all lanes, times one
//! factor. Nothing is copied but the factors, once by the caller.
//!
//! Guarantee. The terms are cut into blocks of [`BLOCK_TERMS`]; a block is added up on its own, in order, and then added to the sum. A term
//! of n passes through at most min(n, 128) + ⌈n / 128⌉ roundings, what the sum starts from through ⌈n / 128⌉.
//! The order depends on the sizes alone.

use projectors::gemm::BLOCK_TERMS;

use super::lanes::Lanes;
use super::registers::{Kernel, Packed, Registers};

/// Rows of sums in registers: with two registers to each there are twelve chains of additions, enough to hide their latency, and sixteen
/// registers hold them, two of factors and a value.
const ROWS: usize = 6;

/// Where values are multiplied with factors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) rows: &'a [usize],
    pub(crate) terms: &'a [usize],
    /// Groups x terms.
    pub(crate) factors: &'a [Lanes<T>],
}

impl<T: Packed> Sums<'_, T> {
    /// Writes the sums, groups x rows, to each what `start` has for its group.
    pub(crate) fn write(self, start: Option<&[Lanes<T>]>, sums: &mut [Lanes<T>]) {
        T::run(Task { of: self, start: Start::Each(start), sums });
    }

    /// Adds the sums to what is there, groups x rows.
    pub(crate) fn add(self, sums: &mut [Lanes<T>]) {
        T::run(Task { of: self, start: Start::There, sums });
    }
}

/// What the sums are added to.
#[derive(Clone, Copy)]
enum Start<'a, T> {
    /// To what is there.
    There,
    /// To the same in every row, one for each group, or to 0.
    Each(Option<&'a [Lanes<T>]>),
}

struct Task<'a, T> {
    of: Sums<'a, T>,
    start: Start<'a, T>,
    sums: &'a mut [Lanes<T>],
}

impl<T: Packed> Kernel<T> for Task<'_, T> {
    /// Two registers of lanes at a time.
    #[inline(always)]
    fn run<R: Registers<T>>(mut self, registers: R) {
        let n_columns = (self.of.factors.len() / self.of.terms.len()) * R::PARTS;
        let place = |column: usize| (column / R::PARTS, column % R::PARTS);
        for column in (0..n_columns).step_by(2) {
            if column + 1 < n_columns {
                self.columns(registers, [place(column), place(column + 1)]);
            } else {
                self.columns(registers, [place(column)]);
            }
        }
    }
}

impl<T: Packed> Task<'_, T> {
    /// The sums in some registers of lanes, of which (group, part) are given.
    #[inline(always)]
    fn columns<R: Registers<T>, const N: usize>(
        &mut self,
        registers: R,
        columns: [(usize, usize); N],
    ) {
        let Sums { values, rows, terms, factors } = self.of;
        // a block of factors stays in the cache while all rows pass
        for first in (0..terms.len()).step_by(BLOCK_TERMS) {
            let block = &terms[first..terms.len().min(first + BLOCK_TERMS)];
            let factors = columns.map(|(group, part)| {
                (&factors[group * terms.len() + first..][..block.len()], part)
            });
            for (n, rows) in rows.chunks(ROWS).enumerate() {
                let sums = block_sums(registers, values, rows, block, factors);
                for (r, sums) in sums.iter().enumerate() {
                    // constant bounds keep the sums in registers
                    if r >= rows.len() {
                        continue;
                    }
                    for (sum, (group, part)) in sums.iter().zip(columns) {
                        let lanes = &mut self.sums[group * self.of.rows.len() + n * ROWS + r];
                        let so_far = match self.start {
                            Start::Each(Some(start)) if first == 0 => {
                                registers.load(&start[group], part)
                            }
                            Start::Each(None) if first == 0 => registers.zero(),
                            _ => registers.load(lanes, part),
                        };
                        let sum = registers.add(so_far, *sum);
                        registers.store(sum, lanes, part);
                    }
                }
            }
        }
    }
}

/// The sums over one block of terms. Where there are fewer rows, the last one is repeated.
#[inline(always)]
fn block_sums<T: Packed, R: Registers<T>, const N: usize>(
    registers: R,
    values: &[T],
    rows: &[usize],
    terms: &[usize],
    factors: [(&[Lanes<T>], usize); N],
) -> [[R::Register; N]; ROWS] {
    // slices of one length: one check for each term
    let n = values.len() - rows.iter().fold(0, |last, &row| last.max(row));
    let values: [&[T]; ROWS] = std::array::from_fn(|r| &values[rows[r.min(rows.len() - 1)]..][..n]);
    let mut sums = [[registers.zero(); N]; ROWS];
    for (t, &term) in terms.iter().enumerate() {
        let factors = factors.map(|(factors, part)| registers.load(&factors[t], part));
        for r in 0..ROWS {
            let value = registers.spread(&values[r][term]);
            for i in 0..N {
                sums[r][i] = registers.mul_add(value, factors[i], sums[r][i]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::{LANES, n_groups};
    use crate::kernels::registers::Plain;
    use crate::kernels::transposition::{into_lanes, out_of_lanes};

    /// Small whole numbers, so that sums are exact in any order.
    fn small<T: Packed>(n: usize, step: usize) -> Vec<T> {
        (0..n).map(|i| T::of((i * step % 17) as f64 - 8.0)).collect()
    }

    fn same<T: Packed, R: Registers<T>>(
        of: Sums<'_, T>,
        start: &[Lanes<T>],
        registers: R,
        expected: &[Lanes<T>],
    ) -> bool {
        let mut sums = vec![Lanes::zero(); expected.len()];
        Task { of, start: Start::Each(Some(start)), sums: &mut sums }.run(registers);
        Task { of, start: Start::There, sums: &mut sums }.run(registers);
        sums.iter().zip(expected).all(|(a, b)| a.0 == b.0)
    }

    fn every_kind_of_registers_gives_the_same<T: Packed>() {
        for (n_channels, n_rows, n_terms) in [(1, 1, 1), (16, 5, 3), (33, 6, 128), (50, 13, 300)] {
            let values: Vec<T> = small(n_rows + 2 * n_terms, 5);
            let rows: Vec<usize> = (0..n_rows).rev().collect();
            let terms: Vec<usize> = (0..n_terms).map(|t| 2 * t).collect();
            let weight: Vec<T> = small(n_channels * n_terms, 7);
            let mut factors = vec![Lanes::zero(); n_groups(n_channels) * n_terms];
            into_lanes(&weight, n_terms, &mut factors);
            let start = vec![Lanes([T::of(3.0); LANES]); n_groups(n_channels)];
            let of = Sums { values: &values, rows: &rows, terms: &terms, factors: &factors };
            let mut sums = vec![Lanes::zero(); n_groups(n_channels) * n_rows];
            of.write(Some(&start), &mut sums);
            of.add(&mut sums);
            let mut found = vec![T::zero(); n_channels * n_rows];
            out_of_lanes(&sums, n_rows, &mut found);
            for (at, &found) in found.iter().enumerate() {
                let (channel, row) = (at / n_rows, rows[at % n_rows]);
                let weight = &weight[channel * n_terms..];
                let products = (0..n_terms).map(|t| weight[t] * values[row + 2 * t]);
                let sum = products.fold(T::zero(), |sum, x| sum + x);
                assert_eq!(found, T::of(3.0) + sum + sum);
            }

            // as many numbers as registers of every width have
            assert!(same(of, &start, Plain::<4>, &sums));
            assert!(same(of, &start, Plain::<8>, &sums));
            assert!(same(of, &start, Plain::<16>, &sums));
        }
    }

    #[test]
    fn every_kind_of_registers_gives_the_same_in_f32() {
        every_kind_of_registers_gives_the_same::<f32>();
    }

    #[test]
    fn every_kind_of_registers_gives_the_same_in_f64() {
        every_kind_of_registers_gives_the_same::<f64>();
    }
}
