//! The product H □ F_1 □ … □ F_m of a matrix with two-tap factors, evaluated at the small end, and its pullback.
//!
//! Definition. A factor is [M; I-M] (vertical, along the first kernel axis) or [M  I-M] (horizontal). Multiplying a
//! kernel A by it from the right gives, along the factor's axis, C_0 = A_0 M, C_i = A_i M + A_{i-1} (I-M),
//! C_t = A_{t-1} (I-M). With B = A M and A (I-M) = A - B this is one matrix product per factor and tap:
//! C_i = B_i + (A_{i-1} - B_{i-1}), where terms out of range are zero.
//!
//! Small end. Of the n x n taps of the full kernel only c_out rows (c_out <= c_in = n) or c_in columns
//! (c_in < c_out = n) are wanted. Rows: start with the first c_out rows of H; every later product keeps them apart.
//! Columns: transpose every tap, (H □ F_1 □ … □ F_m)ᵗ = F_mᵗ □ … □ F_1ᵗ □ Hᵗ, start with the first c_in rows of
//! the identity and multiply by Hᵗ last. Either way a stack of taps with r = min(c_out, c_in) rows each and n columns is
//! carried, and all taps of a stage form one (taps · r) x n matrix, hence one GEMM per factor.
//!
//! Panels. The r rows never mix, so they are cut into panels of fixed height; a panel runs the whole chain on one
//! thread while its taps stay in cache. The cut depends on the shapes alone, so results are the same bit for bit
//! whatever the number of threads.
//!
//! Pullback. From the cotangent dC of a stage's output: dB_i = dC_i - dC_{i+1}, dA_i = dC_{i+1} + (dB Mᵗ)_i and
//! dM = Aᵗ dB summed over taps and rows. Nothing assumes that M is symmetric.
//!
//! Cost. Forward 2 r n² Σ taps flops, where for k = 3 the stages have 1, 2, 4, 6 taps; pullback twice that. Memory: the
//! taps of all stages, and as much again during the pullback, taken from a [`Scratch`] and given back to it.

use ndarray::linalg::general_mat_mul;
use ndarray::parallel::prelude::*;
use ndarray::{Array2, ArrayView2, ArrayView4, ArrayViewMut2, ArrayViewMut4, Axis, s};
use projectors::Real;

use crate::scratch::Scratch;

/// The kernel axis along which a two-tap factor extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Vertical,
    Horizontal,
}

/// Shapes of a chain: everything that does not depend on the numbers.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    n: usize,
    rows: usize,
    panel_rows: usize,
    tall: bool,
    directions: Vec<Direction>,
    /// (vertical, horizontal) extents of the stacks A_0 … A_m, and of A_m Hᵗ when tall.
    extents: Vec<(usize, usize)>,
}

impl Geometry {
    /// `directions` in the order of the product; `c_out, c_in <= n` and one of them equals n.
    pub(crate) fn new(directions: &[Direction], n: usize, c_out: usize, c_in: usize) -> Self {
        let tall = c_in < c_out;
        let mut directions = directions.to_vec();
        if tall {
            directions.reverse();
        }
        let mut extents = vec![(1, 1)];
        for direction in &directions {
            let (v, h) = extents[extents.len() - 1];
            extents.push(match direction {
                Direction::Vertical => (v + 1, h),
                Direction::Horizontal => (v, h + 1),
            });
        }
        let rows = c_out.min(c_in);
        // the last stack is multiplied by Hᵗ when tall and by nothing otherwise
        let multiplied = if tall { extents.len() } else { extents.len() - 1 };
        let taps: usize = extents[..multiplied].iter().map(|(v, h)| v * h).sum();
        let panel_rows = panel_height(rows, n, taps);
        if tall {
            extents.push(extents[extents.len() - 1]);
        }
        Self { n, rows, panel_rows, tall, directions, extents }
    }

    /// Kernel extents of the result.
    pub(crate) fn kernel_size(&self) -> (usize, usize) {
        self.extents[self.extents.len() - 1]
    }

    fn taps(&self, stage: usize) -> usize {
        self.extents[stage].0 * self.extents[stage].1
    }

    /// Taps of the largest stack that a factor multiplies.
    fn widest_factor(&self) -> usize {
        (0..self.n_factors()).map(|stage| self.taps(stage)).max().unwrap_or(0)
    }

    fn n_factors(&self) -> usize {
        self.directions.len()
    }

    fn n_panels(&self) -> usize {
        self.rows.div_ceil(self.panel_rows)
    }

    /// First row and height of a panel.
    fn panel(&self, panel_idx: usize) -> (usize, usize) {
        let first = panel_idx * self.panel_rows;
        (first, self.panel_rows.min(self.rows - first))
    }

    /// Taps along a factor's axis in the stack that it multiplies, and the numbers between them, for `rows` rows a tap.
    fn strides(&self, factor: usize, rows: usize) -> (usize, usize) {
        let (v, h) = self.extents[factor];
        match self.directions[factor] {
            Direction::Vertical => (v, h * rows * self.n),
            Direction::Horizontal => (h, rows * self.n),
        }
    }
}

/// A chain of fewer flops runs on the calling thread: a second one would take longer to wake up than it saves.
const SERIAL_FLOPS: usize = 8_000_000;

/// Least height of a panel: below it the packing of the right-hand matrix dominates a GEMM.
const MIN_PANEL_ROWS: usize = 32;

/// More panels than this cost GEMM efficiency and serve no machine that the crate is meant for.
const MAX_PANELS: usize = 16;

/// Height of the panels for `taps` products of r rows with n x n matrices.
fn panel_height(rows: usize, n: usize, taps: usize) -> usize {
    if 2 * rows * n * n * taps < SERIAL_FLOPS {
        return rows;
    }
    rows.div_ceil(MAX_PANELS).next_multiple_of(MIN_PANEL_ROWS).min(rows)
}

/// The right-hand matrices in the order in which the stack meets them.
struct Links<'a, T> {
    factors: Vec<ArrayView2<'a, T>>,
    h: ArrayView2<'a, T>,
    tall: bool,
}

impl<'a, T: Real> Links<'a, T> {
    fn new(h: ArrayView2<'a, T>, factors: &[ArrayView2<'a, T>], tall: bool) -> Self {
        let factors = if tall {
            factors.iter().rev().map(|m| m.reversed_axes()).collect()
        } else {
            factors.to_vec()
        };
        Self { factors, h, tall }
    }

    /// Rows `first ..` of the matrix that the chain starts from: H, or the identity when tall.
    fn start(&self, first: usize, mut rows: ArrayViewMut2<'_, T>) {
        let n_rows = rows.nrows();
        if !self.tall {
            rows.assign(&self.h.slice(s![first..first + n_rows, ..]));
            return;
        }
        rows.fill(T::zero());
        for i in 0..n_rows {
            rows[[i, first + i]] = T::one();
        }
    }
}

/// The stages of one panel of rows.
#[derive(Clone, Debug)]
struct Panel<T> {
    rows: usize,
    /// A_0 | A_1 | … one after the other, each [vertical, horizontal, rows, n].
    stages: Vec<Vec<T>>,
}

/// A forward evaluation with everything that its pullback needs except the matrices themselves.
#[derive(Clone, Debug)]
pub(crate) struct Chain<T: Real> {
    geometry: Geometry,
    panels: Vec<Panel<T>>,
    /// Where the stages came from and go back to.
    scratch: Scratch<T>,
}

impl<T: Real> Drop for Chain<T> {
    fn drop(&mut self) {
        let stages = self.panels.drain(..).flat_map(|panel| panel.stages);
        stages.for_each(|stage| self.scratch.give(stage));
    }
}

/// The cotangents of a chain's matrices.
pub(crate) struct ChainPullback<T> {
    pub(crate) h: Array2<T>,
    pub(crate) factors: Vec<Array2<T>>,
}

/// The cotangents of one panel, before they are summed into matrices.
struct PanelPullback<T> {
    /// dB of each factor, shaped as the stack that the factor multiplies.
    products: Vec<Vec<T>>,
    /// Cotangent of A_0 when wide, of A_m Hᵗ when tall.
    end: Vec<T>,
}

impl<T: Real> Chain<T> {
    /// Evaluates the chain; `factors` are in the order of the product and match the geometry's directions.
    pub(crate) fn forward(
        geometry: Geometry,
        h: ArrayView2<'_, T>,
        factors: &[ArrayView2<'_, T>],
        scratch: &Scratch<T>,
    ) -> Self {
        let links = Links::new(h, factors, geometry.tall);
        let panels =
            map_panels(&geometry, |panel_idx| run_panel(&geometry, &links, panel_idx, scratch));
        Self { geometry, panels, scratch: scratch.clone() }
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Writes the kernel into `taps` [kh, kw, c_out, c_in], which may be any strided view.
    pub(crate) fn write_taps(&self, mut taps: ArrayViewMut4<'_, T>) {
        if self.geometry.tall {
            taps.swap_axes(2, 3);
        }
        let mut chunks: Vec<_> =
            taps.axis_chunks_iter_mut(Axis(2), self.geometry.panel_rows).collect();
        let write = |(chunk, panel): (&mut ArrayViewMut4<'_, T>, &Panel<T>)| {
            chunk.assign(&self.kernel_of(panel))
        };
        if self.panels.len() == 1 {
            chunks.iter_mut().zip(&self.panels).for_each(write);
        } else {
            chunks.par_iter_mut().zip(&self.panels).for_each(write);
        }
    }

    /// The cotangents of H and of the factors (in the order of the product) for the cotangent `taps`
    /// [kh, kw, c_out, c_in] of the kernel; `h` and `factors` are those of the forward evaluation.
    pub(crate) fn pullback(
        &self,
        h: ArrayView2<'_, T>,
        factors: &[ArrayView2<'_, T>],
        mut taps: ArrayView4<'_, T>,
    ) -> ChainPullback<T> {
        let geometry = &self.geometry;
        if geometry.tall {
            taps.swap_axes(2, 3);
        }
        let links = Links::new(h, factors, geometry.tall);
        let pull = |i: usize| pull_panel(geometry, &links, &self.panels[i], i, taps, &self.scratch);
        let pulled = map_panels(geometry, pull);
        let mut factors = self.factor_cotangents(&pulled);
        if geometry.tall {
            factors.reverse();
        }
        let h = self.h_cotangent(&pulled);
        for panel in pulled {
            self.scratch.give(panel.end);
            panel.products.into_iter().for_each(|product| self.scratch.give(product));
        }
        ChainPullback { h, factors }
    }

    fn kernel_of<'a>(&self, panel: &'a Panel<T>) -> ArrayView4<'a, T> {
        let (v, h) = self.geometry.kernel_size();
        let last = &panel.stages[panel.stages.len() - 1];
        ArrayView4::from_shape((v, h, panel.rows, self.geometry.n), last)
            .expect("a stage has its geometry's length")
    }

    /// dM_f = Σ over panels of A_fᵗ dB_f, transposed when the chain multiplied by Mᵗ.
    fn factor_cotangents(&self, pulled: &[PanelPullback<T>]) -> Vec<Array2<T>> {
        let n = self.geometry.n;
        let mut sums = vec![Array2::zeros((n, n)); self.geometry.n_factors()];
        let sum_into = |f: usize, first: usize, mut rows: ArrayViewMut2<'_, T>| {
            for (panel, pull) in self.panels.iter().zip(pulled) {
                let (a, db) = (as_matrix(&panel.stages[f], n), as_matrix(&pull.products[f], n));
                let (left, right) = if self.geometry.tall { (db, a) } else { (a, db) };
                let left = left.slice_move(s![.., first..first + rows.nrows()]);
                general_mat_mul(T::one(), &left.t(), &right, T::one(), &mut rows);
            }
        };
        if self.panels.len() == 1 {
            sums.iter_mut().enumerate().for_each(|(f, sum)| sum_into(f, 0, sum.view_mut()));
        } else {
            let mut jobs: Vec<_> =
                sums.iter_mut().enumerate().rev().flat_map(|(f, sum)| cut_rows(f, sum)).collect();
            jobs.par_iter_mut()
                .with_max_len(1)
                .for_each(|(f, first, rows)| sum_into(*f, *first, rows.view_mut()));
        }
        sums
    }

    fn h_cotangent(&self, pulled: &[PanelPullback<T>]) -> Array2<T> {
        let n = self.geometry.n;
        let mut h = Array2::zeros((n, n));
        if !self.geometry.tall {
            for (i, pull) in pulled.iter().enumerate() {
                let (first, rows) = self.geometry.panel(i);
                h.slice_mut(s![first..first + rows, ..]).assign(&as_matrix(&pull.end, n));
            }
            return h;
        }
        let stage = self.geometry.n_factors();
        let sum_into = |first: usize, mut rows: ArrayViewMut2<'_, T>| {
            for (panel, pull) in self.panels.iter().zip(pulled) {
                let left = as_matrix(&pull.end, n).slice_move(s![.., first..first + rows.nrows()]);
                general_mat_mul(
                    T::one(),
                    &left.t(),
                    &as_matrix(&panel.stages[stage], n),
                    T::one(),
                    &mut rows,
                );
            }
        };
        if self.panels.len() == 1 {
            sum_into(0, h.view_mut());
        } else {
            let mut jobs: Vec<_> = cut_rows(0, &mut h).collect();
            jobs.par_iter_mut()
                .with_max_len(1)
                .for_each(|(_, first, rows)| sum_into(*first, rows.view_mut()));
        }
        h
    }
}

/// Height of the row blocks into which a cotangent matrix is cut for parallel summation.
const COTANGENT_ROWS: usize = 128;

fn cut_rows<T>(
    f: usize,
    sum: &mut Array2<T>,
) -> impl Iterator<Item = (usize, usize, ArrayViewMut2<'_, T>)> {
    let blocks = sum.axis_chunks_iter_mut(Axis(0), COTANGENT_ROWS);
    blocks.enumerate().map(move |(i, rows)| (f, i * COTANGENT_ROWS, rows))
}

fn map_panels<R: Send>(geometry: &Geometry, panel: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
    match geometry.n_panels() {
        1 => vec![panel(0)],
        n_panels => (0..n_panels).into_par_iter().with_max_len(1).map(panel).collect(),
    }
}

fn as_matrix<T>(stack: &[T], n: usize) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((stack.len() / n, n), stack).expect("a stack has whole rows")
}

fn as_matrix_mut<T>(stack: &mut [T], n: usize) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((stack.len() / n, n), stack).expect("a stack has whole rows")
}

fn run_panel<T: Real>(
    geometry: &Geometry,
    links: &Links<'_, T>,
    panel_idx: usize,
    scratch: &Scratch<T>,
) -> Panel<T> {
    let (first, rows) = geometry.panel(panel_idx);
    let n = geometry.n;
    let mut start = scratch.take(rows * n);
    links.start(first, as_matrix_mut(&mut start, n));
    let mut stages = Vec::with_capacity(geometry.extents.len());
    stages.push(start);
    let mut product = scratch.take(geometry.widest_factor() * rows * n);
    for (f, matrix) in links.factors.iter().enumerate() {
        let a = &stages[f];
        let b = &mut product[..a.len()];
        multiply(a, *matrix, T::zero(), b, n);
        let mut next = scratch.take(geometry.taps(f + 1) * rows * n);
        expand(a, b, geometry.strides(f, rows), &mut next);
        stages.push(next);
    }
    scratch.give(product);
    if links.tall {
        let last = &stages[stages.len() - 1];
        let mut kernel = scratch.take(last.len());
        multiply(last, links.h.t(), T::zero(), &mut kernel, n);
        stages.push(kernel);
    }
    Panel { rows, stages }
}

fn pull_panel<T: Real>(
    geometry: &Geometry,
    links: &Links<'_, T>,
    panel: &Panel<T>,
    panel_idx: usize,
    taps: ArrayView4<'_, T>,
    scratch: &Scratch<T>,
) -> PanelPullback<T> {
    let (first, rows) = geometry.panel(panel_idx);
    let (n, (v, h)) = (geometry.n, geometry.kernel_size());
    let mut current = scratch.take(v * h * rows * n);
    ArrayViewMut4::from_shape((v, h, rows, n), &mut current)
        .expect("the buffer was made for this shape")
        .assign(&taps.slice(s![.., .., first..first + rows, ..]));
    let mut end = Vec::new();
    if links.tall {
        end = current;
        current = scratch.take(end.len());
        multiply(&end, links.h, T::zero(), &mut current, n);
    }
    let mut products = vec![Vec::new(); links.factors.len()];
    for (f, matrix) in links.factors.iter().enumerate().rev() {
        debug_assert_eq!(current.len(), geometry.taps(f + 1) * panel.rows * n);
        let n_values = geometry.taps(f) * rows * n;
        let (mut da, mut db) = (scratch.take(n_values), scratch.take(n_values));
        contract(&current, geometry.strides(f, rows), &mut da, &mut db);
        // the cotangent of the identity that a tall chain starts from is of no use
        if f > 0 || !links.tall {
            multiply(&db, matrix.t(), T::one(), &mut da, n);
        }
        products[f] = db;
        scratch.give(std::mem::replace(&mut current, da));
    }
    if links.tall {
        scratch.give(current);
    } else {
        end = current;
    }
    PanelPullback { products, end }
}

/// to = stack · matrix + beta · to.
fn multiply<T: Real>(stack: &[T], matrix: ArrayView2<'_, T>, beta: T, to: &mut [T], n: usize) {
    general_mat_mul(T::one(), &as_matrix(stack, n), &matrix, beta, &mut as_matrix_mut(to, n));
}

/// C_i = B_i + (A_{i-1} - B_{i-1}) along an axis of `taps` blocks, for each group of blocks.
fn expand<T: Real>(a: &[T], b: &[T], (taps, block): (usize, usize), c: &mut [T]) {
    let narrow = taps * block;
    let groups = c.chunks_exact_mut(narrow + block);
    for ((c, a), b) in groups.zip(a.chunks_exact(narrow)).zip(b.chunks_exact(narrow)) {
        let (head, rest) = c.split_at_mut(block);
        let (middle, tail) = rest.split_at_mut(narrow - block);
        head.copy_from_slice(&b[..block]);
        let terms = b[block..].iter().zip(a).zip(b);
        middle.iter_mut().zip(terms).for_each(|(c, ((&b, &a), &before))| *c = b + (a - before));
        let terms = a[narrow - block..].iter().zip(&b[narrow - block..]);
        tail.iter_mut().zip(terms).for_each(|(c, (&a, &b))| *c = a - b);
    }
}

/// The transpose of [`expand`]: the direct part dA_i = dC_{i+1}, and dB_i = dC_i - dC_{i+1}.
fn contract<T: Real>(dc: &[T], (taps, block): (usize, usize), da: &mut [T], db: &mut [T]) {
    let narrow = taps * block;
    let groups = da.chunks_exact_mut(narrow).zip(db.chunks_exact_mut(narrow));
    for ((da, db), dc) in groups.zip(dc.chunks_exact(narrow + block)) {
        da.copy_from_slice(&dc[block..]);
        let terms = dc.iter().zip(&dc[block..]);
        db.iter_mut().zip(terms).for_each(|(db, (&here, &after))| *db = here - after);
    }
}
