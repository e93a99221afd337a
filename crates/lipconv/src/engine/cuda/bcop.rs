//! BCOP kernels on a device: see the crate `blockconv` for the mathematics.
//!
//! The orthogonal factor H is made on one stream, all projectors of the kernel on another, in batches. The chain
//! H □ [P; I-P] □ [Q  I-Q] □ … starts with the first c_out rows of H, so that every stage is a stack of taps x c_out rows and n
//! columns, and one product for each factor; of the last stage the first c_in columns are the kernel.

use super::backend::{Address, Launch, Matrix, Product, arguments, at};
use super::emit::Emit;
use super::polar::PolarBuffers;
use crate::error::Result;

/// Threads of the block that inverts a Cholesky factor.
const INVERSION_THREADS: u32 = 512;
/// Rank up to which a Gram matrix in f64 is inverted in shared memory.
const SHARED_RANK: usize = 128;

/// Memory for one kernel and its pullback.
#[derive(Debug)]
pub(super) struct BcopBuffers {
    c_out: usize,
    n: usize,
    k: usize,
    h: PolarBuffers,
    ranges: Ranges,
    /// A_0 = H, A_1, …, the last of which has the kernel's taps.
    stages: Vec<Address>,
    /// Their cotangents, and those of the products A_f P_f.
    d_stages: Vec<Address>,
    d_products: Vec<Address>,
    product: Address,
    /// The cotangent of H, n x n with c_out rows in use.
    d_h: Address,
    d_projectors: Address,
}

/// The projectors of a kernel.
#[derive(Debug)]
struct Ranges {
    count: usize,
    n: usize,
    rank: usize,
    defect: Address,
    projectors: Address,
    bases: Address,
    inverses: Address,
    doubled: Address,
    pulled: Address,
    along: Address,
}

impl BcopBuffers {
    /// For kernels of size k ≥ 1 with n = max(c_out, c_in) ≥ 2.
    pub(super) fn new(
        emit: &mut Emit<'_>,
        [c_out, n, k]: [usize; 3],
        defect: Address,
    ) -> Result<Self> {
        let taps = |stage: usize| (stage.div_ceil(2) + 1) * (stage / 2 + 1);
        let factors = 2 * (k - 1);
        let block = c_out * n;
        let h = PolarBuffers::new(emit, n, n, defect)?;
        let mut stages = vec![h.factor];
        let d_h = emit.floats(n * n)?;
        let mut d_stages = vec![d_h];
        let mut d_products = Vec::new();
        for stage in 1..=factors {
            stages.push(emit.floats(taps(stage) * block)?);
            d_stages.push(emit.floats(taps(stage) * block)?);
            d_products.push(emit.floats(taps(stage - 1) * block)?);
        }
        let product = emit.floats(taps(factors) * block)?;
        let d_projectors = emit.floats(factors * n * n)?;
        let ranges = Ranges::new(emit, factors, n, defect)?;
        Ok(Self {
            c_out,
            n,
            k,
            h,
            ranges,
            stages,
            d_stages,
            d_products,
            product,
            d_h,
            d_projectors,
        })
    }

    /// max(c_out, c_in).
    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// As [`PolarBuffers::level`].
    pub(super) fn level(&self) -> usize {
        self.h.level()
    }

    /// As [`PolarBuffers::raise_level`].
    pub(super) fn raise_level(&mut self) -> bool {
        self.h.raise_level()
    }

    /// As [`PolarBuffers::measure`].
    pub(super) fn measure(&self, emit: &mut Emit<'_>, stream: usize) -> Result<()> {
        self.h.measure(emit, stream)
    }

    /// The kernel's taps, k x k x c_out x n.
    pub(super) fn taps(&self) -> Address {
        self.stages[self.stages.len() - 1]
    }

    /// Where the cotangent of the taps is expected.
    pub(super) fn d_taps(&self) -> Address {
        self.d_stages[self.d_stages.len() - 1]
    }

    fn factors(&self) -> usize {
        2 * (self.k - 1)
    }

    /// Groups, taps and block of the stack that factor `factor` multiplies: vertical factors have even numbers.
    fn stack(&self, factor: usize) -> [usize; 3] {
        let (vertical, horizontal) = (factor.div_ceil(2) + 1, factor / 2 + 1);
        let tap = self.c_out * self.n;
        match factor.is_multiple_of(2) {
            true => [1, vertical, horizontal * tap],
            false => [vertical, horizontal, tap],
        }
    }

    fn rows(&self, factor: usize) -> usize {
        let [groups, taps, block] = self.stack(factor);
        groups * taps * block / self.n
    }

    fn projector(&self, factor: usize) -> Matrix {
        Matrix::new(at(self.ranges.projectors, factor * self.n * self.n), self.n)
    }

    /// The taps from the parameters at `parameters`; `other` is a second stream.
    pub(super) fn forward(
        &self,
        emit: &mut Emit<'_>,
        [stream, other]: [usize; 2],
        parameters: Address,
    ) -> Result<()> {
        let n = self.n;
        self.h.forward(emit, stream, parameters)?;
        if self.factors() == 0 {
            return Ok(());
        }
        self.ranges.forward(emit, other, at(parameters, n * n))?;
        emit.wait(stream, other)?;
        for factor in 0..self.factors() {
            let (a, rows) = (Matrix::new(self.stages[factor], n), self.rows(factor));
            let product = Matrix::new(self.product, n);
            emit.multiply(stream, Product::new([rows, n, n], a, self.projector(factor), product))?;
            let [groups, taps, block] = self.stack(factor);
            let to = self.stages[factor + 1];
            let expanded = arguments![a.at, product.at, to, groups, taps, block];
            emit.launch(Launch::each(
                "chain_expand",
                stream,
                groups * (taps + 1) * block,
                expanded,
            ))?;
        }
        Ok(())
    }

    /// What the pullback needs beside the forward pass.
    pub(super) fn prepare_backward(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        parameters: Address,
    ) -> Result<()> {
        self.h.prepare_backward(emit, stream, parameters)
    }

    /// The gradient of the parameters from the cotangent at [`BcopBuffers::d_taps`].
    pub(super) fn backward(
        &self,
        emit: &mut Emit<'_>,
        [stream, other]: [usize; 2],
        gradient: Address,
    ) -> Result<()> {
        let n = self.n;
        for factor in (0..self.factors()).rev() {
            let [groups, taps, block] = self.stack(factor);
            let (da, db) = (self.d_stages[factor], self.d_products[factor]);
            let contracted = arguments![self.d_stages[factor + 1], da, db, groups, taps, block];
            emit.launch(Launch::each("chain_contract", stream, groups * taps * block, contracted))?;
            let rows = self.rows(factor);
            let (da, db) = (Matrix::new(da, n), Matrix::new(db, n));
            let projector = self.projector(factor);
            emit.multiply(stream, Product::new([rows, n, n], db, projector.t(), da).plus(1.0))?;
        }
        if self.factors() > 0 {
            emit.wait(other, stream)?;
            for factor in 0..self.factors() {
                let a = Matrix::new(self.stages[factor], n);
                let db = Matrix::new(self.d_products[factor], n);
                let to = Matrix::new(at(self.d_projectors, factor * n * n), n);
                emit.multiply(other, Product::new([n, n, self.rows(factor)], a.t(), db, to))?;
            }
            self.ranges.backward(emit, other, self.d_projectors, at(gradient, n * n))?;
        }
        self.h.backward(emit, stream, self.d_h, gradient)?;
        if self.factors() > 0 {
            emit.wait(stream, other)?;
        }
        Ok(())
    }
}

impl Ranges {
    fn new(emit: &mut Emit<'_>, count: usize, n: usize, defect: Address) -> Result<Self> {
        let rank = n / 2;
        Ok(Self {
            count,
            n,
            rank,
            defect,
            projectors: emit.floats(count * n * n)?,
            bases: emit.floats(count * n * rank)?,
            inverses: emit.bytes(8 * count * rank * rank)?,
            doubled: emit.floats(count * n * n)?,
            pulled: emit.floats(count * n * rank)?,
            along: emit.floats(count * rank * rank)?,
        })
    }

    fn forward(&self, emit: &mut Emit<'_>, stream: usize, slices: Address) -> Result<()> {
        let Self { count, n, rank, .. } = *self;
        let tiles = rank.div_ceil(16);
        let gram = arguments![slices, self.inverses, n, rank];
        emit.launch(Launch::grid("projector_gram", stream, [tiles, tiles, count], gram))?;
        let in_shared = rank <= SHARED_RANK;
        let inverted =
            arguments![self.inverses, rank, u32::from(in_shared), self.defect, emit.control()];
        let shared = 8 * (2 * rank + if in_shared { rank * rank } else { 0 });
        let launch = Launch::grid("cholesky_inverse", stream, [count, 1, 1], inverted);
        emit.launch(Launch { threads: INVERSION_THREADS, shared, ..launch })?;
        // the slices' first columns, in rows of n
        let basis = arguments![slices, self.inverses, self.bases, n, rank, 0_u32];
        let grid = [tiles, n.div_ceil(16), count];
        emit.launch(Launch::grid("triangular_product", stream, grid, basis))?;
        let q = Matrix::new(self.bases, rank).every(n * rank);
        let projectors = Matrix::new(self.projectors, n).every(n * n);
        emit.multiply(stream, Product::new([n, n, rank], q, q.t(), projectors).batch(count))
    }

    /// (I - P)(C + Cᵗ) Q R^-T into the first columns of each slice of the gradient.
    fn backward(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        cotangents: Address,
        gradient: Address,
    ) -> Result<()> {
        let Self { count, n, rank, .. } = *self;
        let v = (Matrix::new(cotangents, n), 1.0, 1.0);
        emit.with_transposes(stream, [n, count], (0, 0.0), v, self.doubled)?;
        let q = Matrix::new(self.bases, rank).every(n * rank);
        let doubled = Matrix::new(self.doubled, n).every(n * n);
        let pulled = Matrix::new(self.pulled, rank).every(n * rank);
        let along = Matrix::new(self.along, rank).every(rank * rank);
        emit.multiply(stream, Product::new([n, rank, n], doubled, q, pulled).batch(count))?;
        emit.multiply(stream, Product::new([rank, rank, n], q.t(), pulled, along).batch(count))?;
        let rest = Product::new([n, rank, rank], q, along, pulled).times(-1.0).plus(1.0);
        emit.multiply(stream, rest.batch(count))?;
        let out = arguments![self.pulled, self.inverses, gradient, n, rank, 1_u32];
        let grid = [rank.div_ceil(16), n.div_ceil(16), count];
        emit.launch(Launch::grid("triangular_product", stream, grid, out))
    }
}
