//! Orthogonal polar factors on a device: iterations on the Gram matrix, and a pullback without eigenvectors.
//!
//! Definition. W (r x c, r ≤ c, full rank) has the factor F = P W with P = (W Wᵗ)^(-1/2). With s² the reciprocal of the largest row sum
//! of |W Wᵗ|, the singular values of s W are in (0, 1]. A step with coefficients (a, b, c) replaces a value σ by
//! aσ + bσ³ + cσ⁵, that is X ← Z X with Z = aI + bR + cR² and R = X Xᵗ, so that R ← Z R Z without the long matrix. After
//! some steps X and R are formed anew, which makes up for what R has lost, then further steps follow.
//!
//! Guarantee: a [`Level`] brings singular values in [ℓ, 1] times 1/s to 1 up to rounding, with ℓ = 0.033, 1e-3, 3e-5 or 5e-10. The
//! deviation of F Fᵗ from the identity is measured in every step, and a step of training with a larger one than [`allowed_defect`] is
//! refused; the engine then uses the next level. Singular values below a rounding error of the largest one have directions that
//! f32 does not know: F is orthonormal there too, in directions of rounding. Cost: four passes over the long side, ten at the last level.
//!
//! Pullback. For a cotangent C of F, with M = C Fᵗ and H = (W Wᵗ)^(1/2), solve H X + X H = M - Mᵗ; the gradient is
//! (X - P M) F + P C. The equation is solved by the sign iteration on [[sH, B], [0, -sH]], B = M - Mᵗ, whose diagonal
//! goes through the very same Z as the forward iteration: see `cuda/polar.cu`. It ends with B = 2 X / s. B is antisymmetric; a symmetric part,
//! which rounding makes, would double in every step, and is taken away there.
//!
//! Source: Amsel, Persson, Musco and Gower, "The Polar Express" (2025) for the coefficients.

use super::backend::{Address, Launch, Matrix, Product, arguments, at};
use super::emit::Emit;
use crate::error::Result;

type Step = [f32; 3];

/// The first five steps of the source for ℓ = 1e-3, then the quintic Newton-Schulz iteration.
const FIRST: Step = [8.2872, -23.596, 17.300];
const SECOND: Step = [4.1071, -2.9478, 0.54484];
const THIRD: Step = [3.9487, -2.9089, 0.55182];
const FOURTH: Step = [3.3184, -2.4885, 0.51005];
const FIFTH: Step = [2.3007, -1.6689, 0.41881];
const NEWTON: Step = [1.875, -1.25, 0.375];

/// Steps, and where X is formed anew.
#[derive(Debug)]
struct Level {
    steps: &'static [Step],
    /// Ends of the phases.
    ends: &'static [usize],
}

/// From the quickest to the most patient. Where values are known to be larger the first steps can be left out, and the third may be
/// repeated where they are smaller.
const LEVELS: [Level; 4] = [
    Level { steps: &[THIRD, FOURTH, FIFTH, NEWTON, NEWTON], ends: &[2, 5] },
    Level { steps: &[FIRST, SECOND, THIRD, FOURTH, FIFTH, NEWTON, NEWTON, NEWTON], ends: &[3, 8] },
    Level {
        steps: &[FIRST, SECOND, THIRD, THIRD, THIRD, THIRD, FOURTH, FIFTH, NEWTON, NEWTON, NEWTON],
        ends: &[3, 7, 11],
    },
    Level {
        steps: &[
            FIRST, SECOND, THIRD, THIRD, THIRD, THIRD, THIRD, THIRD, THIRD, THIRD, THIRD, THIRD,
            THIRD, THIRD, FOURTH, FIFTH, NEWTON, NEWTON, NEWTON,
        ],
        ends: &[3, 7, 11, 15, 19],
    },
];
/// Most steps of a level.
pub(super) const MAX_STEPS: usize = 19;
/// Most phases.
const MAX_PHASES: usize = 5;
/// Room in the kernels' structure `Steps`.
const STEPS_ROOM: usize = 20;
/// Rows up to which one block does all the steps of a matrix.
const SMALL: usize = 64;

/// The largest entry of |F Fᵗ - I| that is taken for rounding, for `columns` columns.
pub(super) fn allowed_defect(columns: usize) -> f32 {
    64.0 * f32::EPSILON * (columns as f32).sqrt().max(4.0)
}

/// Memory for one polar factor.
#[derive(Debug)]
pub(super) struct PolarBuffers {
    rows: usize,
    columns: usize,
    /// Where the largest defect over what is allowed is kept.
    defect: Address,
    /// F, rows x columns.
    pub(super) factor: Address,
    /// X after the first phases.
    partials: [Address; 2],
    /// R of every step.
    grams: Address,
    /// Z of every step, and beside it sH times the Z before it: rows of 2 · `rows` values.
    zs: Address,
    /// The product of the Z of each phase.
    products: [Address; MAX_PHASES],
    inverse_root: Address,
    squares: [Address; 3],
    /// B Z and B A, for two steps in turn.
    wide: [Address; 2],
    sums: Address,
    scale: Address,
    level: usize,
}

impl PolarBuffers {
    pub(super) fn new(
        emit: &mut Emit<'_>,
        rows: usize,
        columns: usize,
        defect: Address,
    ) -> Result<Self> {
        assert!(rows <= columns, "a polar factor is wide here");
        let square = rows * rows;
        Ok(Self {
            rows,
            columns,
            defect,
            factor: emit.floats(rows * columns)?,
            partials: [emit.floats(rows * columns)?, emit.floats(rows * columns)?],
            grams: emit.floats(MAX_STEPS * square)?,
            zs: emit.floats(2 * MAX_STEPS * square)?,
            products: {
                let mut products = [0; MAX_PHASES];
                for product in &mut products {
                    *product = emit.floats(square)?;
                }
                products
            },
            inverse_root: emit.floats(square)?,
            squares: [emit.floats(square)?, emit.floats(square)?, emit.floats(square)?],
            wide: [emit.floats(2 * square)?, emit.floats(2 * square)?],
            sums: emit.floats(rows)?,
            scale: emit.floats(1)?,
            level: 0,
        })
    }

    /// The level, from 0 for the quickest.
    pub(super) fn level(&self) -> usize {
        self.level
    }

    /// Goes on with the next level; whether there is one.
    pub(super) fn raise_level(&mut self) -> bool {
        self.level = (self.level + 1).min(LEVELS.len());
        if self.level == LEVELS.len() {
            self.level -= 1;
            return false;
        }
        true
    }

    fn steps(&self) -> &'static [Step] {
        LEVELS[self.level].steps
    }

    /// The phases: their steps, and where the product of their Z lies.
    fn phases(&self) -> impl Iterator<Item = (std::ops::Range<usize>, Address)> {
        let ends = LEVELS[self.level].ends;
        let starts = std::iter::once(&0).chain(ends);
        starts.zip(ends).map(|(&start, &end)| start..end).zip(self.products)
    }

    fn square(&self, address: Address) -> Matrix {
        Matrix::new(address, self.rows)
    }

    fn long(&self, address: Address) -> Matrix {
        Matrix::new(address, self.columns)
    }

    fn gram(&self, step: usize) -> Address {
        at(self.grams, step * self.rows * self.rows)
    }

    fn z(&self, step: usize) -> Matrix {
        Matrix::new(at(self.zs, 2 * step * self.rows * self.rows), 2 * self.rows)
    }

    fn a(&self, step: usize) -> Matrix {
        let z = self.z(step);
        Matrix { at: at(z.at, self.rows), ..z }
    }

    fn is_small(&self) -> bool {
        self.rows <= SMALL
    }

    /// F of the matrix at `w`.
    pub(super) fn forward(&self, emit: &mut Emit<'_>, stream: usize, w: Address) -> Result<()> {
        let (r, c) = (self.rows, self.columns);
        let mut x = self.long(w);
        for (n, (steps, product)) in self.phases().enumerate() {
            let gram = self.square(self.gram(steps.start));
            emit.multiply(stream, Product::new([r, r, c], x, x.t(), gram))?;
            let is_last = steps.end == self.steps().len();
            self.run(emit, stream, steps, product)?;
            let next = self.long(if is_last { self.factor } else { self.partials[n % 2] });
            emit.multiply(stream, Product::new([r, c, r], self.square(product), x, next))?;
            x = next;
        }
        Ok(())
    }

    /// The product of the Z of some steps, from the first one's R; the very first steps scale R and their product.
    fn run(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        steps: std::ops::Range<usize>,
        to: Address,
    ) -> Result<()> {
        if self.is_small() {
            return self.run_small(emit, stream, steps, to);
        }
        let r = self.rows;
        let is_first = steps.start == 0;
        if is_first {
            let gram = self.gram(0);
            let of_rows = arguments![gram, self.sums, r];
            emit.launch(Launch::grid("row_abs_sums", stream, [r, 1, 1], of_rows))?;
            let scaled = arguments![gram, self.sums, self.scale, r];
            emit.launch(Launch::each("scale_gram", stream, r * r, scaled))?;
        }
        let [squared, left, other] = self.squares;
        let last = steps.end - 1;
        let mut q = self.z(steps.start);
        for step in steps.clone() {
            let (gram, z) = (self.square(self.gram(step)), self.z(step));
            emit.multiply(stream, Product::new([r; 3], gram, gram, self.square(squared)))?;
            let [a, b, c] = self.steps()[step];
            let polynomial = arguments![gram.at, squared, z.at, r, 2 * r, a, b, c];
            emit.launch(Launch::each("polynomial", stream, r * r, polynomial))?;
            if step > steps.start {
                // in turn, so that the last product ends where it is wanted
                let target = self.square(if (last - step).is_multiple_of(2) { to } else { other });
                emit.multiply(stream, Product::new([r; 3], q, z, target))?;
                q = target;
            }
            if step < last {
                let left = self.square(left);
                emit.multiply(stream, Product::new([r; 3], z, gram, left))?;
                let next = self.square(self.gram(step + 1));
                emit.multiply(stream, Product::new([r; 3], left, z, next))?;
            }
        }
        if is_first {
            let scaled = arguments![to, r, to, r, r, self.scale, 1.0_f32];
            emit.launch(Launch::each("copy_scaled", stream, r * r, scaled))?;
        }
        Ok(())
    }

    fn run_small(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        steps: std::ops::Range<usize>,
        to: Address,
    ) -> Result<()> {
        let is_first = u32::from(steps.start == 0);
        let (gram, z) = (self.gram(steps.start), self.z(steps.start).at);
        // R of the first step is read before it is written
        let handed = arguments![
            gram,
            to,
            gram,
            z,
            self.scale,
            self.rows,
            &packed(&self.steps()[steps])[..],
            is_first
        ];
        let tile = self.tile();
        let kernel = ["small_steps1", "small_steps2", "small_steps4"][tile.index];
        let launch = Launch::block(kernel, stream, handed);
        emit.launch(Launch { shared: 3 * tile.bytes, ..launch })
    }

    fn tile(&self) -> Tile {
        let index = [16, 32, 64].iter().position(|&side| self.rows <= side).unwrap_or(2);
        let side = 16 << index;
        Tile { index, bytes: 4 * side * (side + 1) }
    }

    /// Measures the defect of F.
    pub(super) fn measure(&self, emit: &mut Emit<'_>, stream: usize) -> Result<()> {
        let (r, c) = (self.rows, self.columns);
        let (factor, gram) = (self.long(self.factor), self.square(self.squares[0]));
        emit.multiply(stream, Product::new([r, r, c], factor, factor.t(), gram))?;
        let measured = arguments![gram.at, r, allowed_defect(c), self.defect, emit.control()];
        emit.launch(Launch::each("orthonormality", stream, r * r, measured))
    }

    /// What the pullback needs and the forward pass does not: P, sH and its products, and the measured defect.
    pub(super) fn prepare_backward(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        w: Address,
    ) -> Result<()> {
        let (r, c) = (self.rows, self.columns);
        self.measure(emit, stream)?;
        let (factor, root) = (self.long(self.factor), self.squares[1]);
        self.inverse_root(emit, stream)?;
        emit.multiply(
            stream,
            Product::new([r, r, c], factor, self.long(w).t(), self.square(root)),
        )?;
        let a = self.a(0);
        let scaled = arguments![root, r, a.at, a.ld, r, self.scale, 1.0_f32];
        emit.launch(Launch::each("copy_scaled", stream, r * r, scaled))?;
        if self.is_small() {
            return Ok(());
        }
        for step in 1..self.steps().len() {
            emit.multiply(
                stream,
                Product::new([r; 3], self.a(step - 1), self.z(step - 1), self.a(step)),
            )?;
        }
        Ok(())
    }

    /// P, the product of all phases.
    fn inverse_root(&self, emit: &mut Emit<'_>, stream: usize) -> Result<()> {
        let mut phases = self.phases().map(|(_, product)| self.square(product));
        let mut product = phases.next().expect("every level has phases");
        let others = [self.squares[2], self.inverse_root];
        let rest: Vec<Matrix> = phases.collect();
        for (n, next) in rest.iter().enumerate() {
            // in turn, so that the last one ends where it is wanted
            let to = self.square(others[usize::from((rest.len() - n) % 2 == 1)]);
            emit.multiply(stream, Product::new([self.rows; 3], *next, product, to))?;
            product = to;
        }
        Ok(())
    }

    /// The gradient of W at `gradient` from the cotangent of F at `cotangent`.
    pub(super) fn backward(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        cotangent: Address,
        gradient: Address,
    ) -> Result<()> {
        let (r, c) = (self.rows, self.columns);
        let [along, x, start] = self.squares;
        let (c_matrix, factor, to) =
            (self.long(cotangent), self.long(self.factor), self.long(gradient));
        let along = self.square(along);
        emit.multiply(stream, Product::new([r, r, c], c_matrix, factor.t(), along))?;
        emit.with_transpose(stream, r, (0, 0.0), (along, 1.0, -1.0), start)?;
        match self.is_small() {
            true => self.solve_small(emit, stream, start, x)?,
            false => self.solve(emit, stream, start, x)?,
        }
        let (x, p) = (self.square(x), self.square(self.inverse_root));
        emit.multiply(stream, Product::new([r; 3], p, along, x).times(-1.0).plus(1.0))?;
        emit.multiply(stream, Product::new([r, c, r], x, factor, to))?;
        emit.multiply(stream, Product::new([r, c, r], p, c_matrix, to).plus(1.0))
    }

    /// X of H X + X H = B.
    fn solve(&self, emit: &mut Emit<'_>, stream: usize, start: Address, x: Address) -> Result<()> {
        let r = self.rows;
        let [commutator, product, ..] = self.products;
        let mut b = self.square(start);
        for (step, &[_, linear, quadratic]) in self.steps().iter().enumerate() {
            // (B Z | B A) in one product: AB - BA = -(BA + (BA)ᵗ) for a symmetric A and an antisymmetric B
            let wide = Matrix::new(self.wide[step % 2], 2 * r);
            emit.multiply(stream, Product::new([r, 2 * r, r], b, self.z(step), wide))?;
            let right = Matrix { at: at(wide.at, r), ..wide };
            emit.with_transpose(stream, r, (0, 0.0), (right, -1.0, 1.0), commutator)?;
            let gram = self.square(self.gram(step));
            let product = self.square(product);
            emit.multiply(stream, Product::new([r; 3], gram, self.square(commutator), product))?;
            // the right half has been read: Z_K takes its place in memory of its own
            let z_k = self.squares[2];
            emit.with_transpose(stream, r, (commutator, linear), (product, quadratic, 1.0), z_k)?;
            emit.multiply(
                stream,
                Product::new([r; 3], self.a(step), self.square(z_k), wide).plus(1.0),
            )?;
            // a symmetric error would double in every step
            emit.with_transpose(stream, r, (0, 0.0), (wide, 0.5, -1.0), x)?;
            b = self.square(x);
        }
        let copied = arguments![x, r, x, r, r, self.scale, 0.5_f32];
        emit.launch(Launch::each("copy_scaled", stream, r * r, copied))
    }

    fn solve_small(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        start: Address,
        x: Address,
    ) -> Result<()> {
        let a = self.a(0);
        // the kernel takes a square without gaps
        let root = self.wide[0];
        let copied = arguments![a.at, a.ld, root, self.rows, self.rows, 0_u64, 1.0_f32];
        emit.launch(Launch::each("copy_scaled", stream, self.rows * self.rows, copied))?;
        let handed = arguments![
            root,
            start,
            self.grams,
            self.zs,
            x,
            self.rows,
            &packed(self.steps())[..],
            self.scale,
            0.5_f32
        ];
        let tile = self.tile();
        let kernel = ["small_sign1", "small_sign2", "small_sign4"][tile.index];
        let launch = Launch::block(kernel, stream, handed);
        emit.launch(Launch { shared: 6 * tile.bytes, ..launch })
    }
}

/// Which of the kernels for small matrices, and the bytes of one matrix in shared memory.
struct Tile {
    index: usize,
    bytes: usize,
}

/// The kernels' structure `Steps`.
fn packed(steps: &[Step]) -> Vec<u32> {
    let mut words = vec![0; 3 * STEPS_ROOM + 1];
    for (n, step) in steps.iter().enumerate() {
        for (kind, coefficient) in step.iter().enumerate() {
            words[kind * STEPS_ROOM + n] = coefficient.to_bits();
        }
    }
    words[3 * STEPS_ROOM] = u32::try_from(steps.len()).expect("a few steps");
    words
}
