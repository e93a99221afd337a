//! Matrices into [`Lanes`] and out of them.
//!
//! Lanes behind the last row are 0 where a matrix was brought into lanes, and of no meaning in results.

use super::lanes::{LANES, Lanes};
use super::registers::{Kernel, Packed, Registers, SIDE};

/// Brings `rows`, of n columns each, into lanes.
pub(crate) fn into_lanes<T: Packed>(rows: &[T], n: usize, lanes: &mut [Lanes<T>]) {
    T::run(IntoLanes { rows, n, lanes });
}

/// The first rows of `lanes`, as many as `rows` has room for.
pub(crate) fn out_of_lanes<T: Packed>(lanes: &[Lanes<T>], n: usize, rows: &mut [T]) {
    T::run(OutOfLanes { lanes, n, rows });
}

struct IntoLanes<'a, T> {
    rows: &'a [T],
    n: usize,
    lanes: &'a mut [Lanes<T>],
}

struct OutOfLanes<'a, T> {
    lanes: &'a [Lanes<T>],
    n: usize,
    rows: &'a mut [T],
}

impl<T: Packed> Kernel<T> for IntoLanes<'_, T> {
    #[inline(always)]
    fn run<R: Registers<T>>(self, registers: R) {
        let Self { rows, n, lanes } = self;
        for (rows, lanes) in rows.chunks(LANES * n).zip(lanes.chunks_exact_mut(n)) {
            if rows.len() < LANES * n {
                lanes.fill(Lanes::zero());
            }
            for (half, rows) in rows.chunks(SIDE * n).enumerate() {
                let n_squares = if rows.len() == SIDE * n { n / SIDE } else { 0 };
                let (squares, rest) = lanes.split_at_mut(n_squares * SIDE);
                for (at, lanes) in squares.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                    let square = registers.turned(&std::array::from_fn(|l| {
                        *rows[l * n + at * SIDE..].first_chunk().expect("within a row")
                    }));
                    for (Lanes(lanes), row) in lanes.iter_mut().zip(square) {
                        lanes.as_chunks_mut().0[half] = row;
                    }
                }
                for (l, row) in rows.chunks_exact(n).enumerate() {
                    for (lanes, &value) in rest.iter_mut().zip(&row[n_squares * SIDE..]) {
                        lanes.0[half * SIDE + l] = value;
                    }
                }
            }
        }
    }
}

impl<T: Packed> Kernel<T> for OutOfLanes<'_, T> {
    #[inline(always)]
    fn run<R: Registers<T>>(self, registers: R) {
        let Self { lanes, n, rows } = self;
        for (lanes, rows) in lanes.chunks_exact(n).zip(rows.chunks_mut(LANES * n)) {
            for (half, rows) in rows.chunks_mut(SIDE * n).enumerate() {
                let n_squares = if rows.len() == SIDE * n { n / SIDE } else { 0 };
                let (squares, rest) = lanes.split_at(n_squares * SIDE);
                for (at, lanes) in squares.as_chunks::<SIDE>().0.iter().enumerate() {
                    let square = std::array::from_fn(|i| lanes[i].0.as_chunks().0[half]);
                    for (l, row) in registers.turned(&square).iter().enumerate() {
                        rows[l * n + at * SIDE..][..SIDE].copy_from_slice(row);
                    }
                }
                for (l, row) in rows.chunks_exact_mut(n).enumerate() {
                    for (value, lanes) in row[n_squares * SIDE..].iter_mut().zip(rest) {
                        *value = lanes.0[half * SIDE + l];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::n_groups;
    use crate::kernels::registers::Plain;

    fn rows_come_back_from_their_lanes<T: Packed>() {
        for (n_rows, n) in [(1, 1), (3, 9), (8, 8), (16, 7), (17, 24), (40, 19)] {
            let rows: Vec<T> = (0..n_rows * n).map(|i| T::of(i as f64)).collect();
            let mut lanes = vec![Lanes([T::one(); LANES]); n_groups(n_rows) * n];
            into_lanes(&rows, n, &mut lanes);
            for (at, lanes) in lanes.iter().enumerate() {
                let (group, column) = (at / n, at % n);
                for (l, &value) in lanes.0.iter().enumerate() {
                    let row = group * LANES + l;
                    let there = if row < n_rows { rows[row * n + column] } else { T::zero() };
                    assert_eq!(value, there);
                }
            }
            let mut back = vec![T::zero(); rows.len()];
            out_of_lanes(&lanes, n, &mut back);
            assert_eq!(back, rows);
            // on any processor
            let mut plain = vec![Lanes([T::one(); LANES]); lanes.len()];
            IntoLanes { rows: &rows, n, lanes: &mut plain }.run(Plain::<4>);
            assert!(lanes.iter().zip(&plain).all(|(a, b)| a.0 == b.0));
            back.fill(T::zero());
            OutOfLanes { lanes: &lanes, n, rows: &mut back }.run(Plain::<4>);
            assert_eq!(back, rows);
        }
    }

    #[test]
    fn rows_come_back_from_their_lanes_in_f32() {
        rows_come_back_from_their_lanes::<f32>();
    }

    #[test]
    fn rows_come_back_from_their_lanes_in_f64() {
        rows_come_back_from_their_lanes::<f64>();
    }
}
