//! Weights on a device that are their parameter over something: unit rows, OSSN, RK-L2NE.
//!
//! The mathematics is that of the CPU's methods of the same names. OSSN's power iteration goes through the very kernels of the
//! layer, with one image; its vectors have their channels last, before downsampling, which changes no norm.

use super::backend::{Address, Launch, Matrix, Product, arguments, at};
use super::blueprint::{LinearPlan, Method};
use super::emit::Emit;
use super::geometry::Geometry;
use crate::error::Result;

/// Power iterations of one step, as on the CPU.
const N_ITERATIONS: usize = 10;
/// Most blocks of a sum.
const MAX_BLOCKS: usize = 64;
/// A dense or OIHW weight in the order of the kernels' structure `WeightOrder`.
pub(super) type Order = [u32; 5];

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Quotient {
    pub(super) weight: Address,
    /// Its gradient.
    pub(super) d_weight: Address,
    n: usize,
    n_out: usize,
    geometry: Geometry,
    partial: Address,
    by: Divisor,
}

/// What the parameter is divided by.
#[derive(Debug)]
enum Divisor {
    /// The norms of its rows.
    Rows { norms: Address },
    /// An estimate of the operator norm, where that exceeds 1.
    Norm(Box<Power>),
    /// k √min(‖F Fᵗ‖_∞, ‖Fᵗ F‖_∞).
    RowSums(Box<RowSums>),
}

#[derive(Debug)]
struct Power {
    /// The vector of the step before, and the one that this step arrives at.
    before: Address,
    right: Address,
    left: Address,
    /// Patches of the vector, and their gradient.
    patches: Address,
    /// The parameter as the product with patches takes it, and the gradient of the norm in that form and in the parameter's.
    matrix: Address,
    d_matrix: Address,
    d_norm: Address,
    norm: Address,
    order: Order,
}

#[derive(Debug)]
struct RowSums {
    of_rows: Address,
    of_columns: Address,
    sums: Address,
    /// The two norms and the rows that attain them.
    norms: Address,
    places: Address,
}

impl Quotient {
    /// Memory for the weight of a layer; `vector` is where its method's vector lies, `order` that of an OIHW weight.
    pub(super) fn new(
        emit: &mut Emit<'_>,
        plan: &LinearPlan,
        vector: Address,
        order: Order,
    ) -> Result<Self> {
        let (n, n_out, geometry) = (plan.n_weights, plan.n_out, Geometry::new(plan));
        let by = match plan.method {
            Method::Ossn => Divisor::Norm(Box::new(Power {
                before: vector,
                right: emit.floats(geometry.n_in)?,
                left: emit.floats(geometry.pixels * n_out)?,
                patches: emit.floats(geometry.pixels * geometry.ld)?,
                matrix: emit.floats(n_out * geometry.ld)?,
                d_matrix: emit.floats(n_out * geometry.ld)?,
                d_norm: emit.floats(n)?,
                norm: emit.floats(1)?,
                order,
            })),
            Method::RowSums => {
                let columns = n / n_out;
                Divisor::RowSums(Box::new(RowSums {
                    of_rows: emit.floats(n_out * n_out)?,
                    of_columns: emit.floats(columns * columns)?,
                    sums: emit.floats(n_out.max(columns))?,
                    norms: emit.floats(2)?,
                    places: emit.floats(2)?,
                }))
            }
            _ => Divisor::Rows { norms: emit.floats(n_out)? },
        };
        let (weight, d_weight) = (emit.floats(n)?, emit.floats(n)?);
        let partial = emit.bytes(8 * MAX_BLOCKS)?;
        Ok(Self { weight, d_weight, n, n_out, geometry, partial, by })
    }

    fn columns(&self) -> usize {
        self.n / self.n_out
    }

    /// The weight from the parameter.
    pub(super) fn forward(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        parameter: Address,
    ) -> Result<()> {
        match &self.by {
            Divisor::Rows { norms } => {
                let arguments = arguments![parameter, self.weight, *norms, self.columns()];
                let grid = [self.n_out, 1, 1];
                emit.launch(Launch::grid("normalize_rows", stream, grid, arguments))
            }
            Divisor::Norm(power) => {
                self.iterate(emit, stream, parameter, power)?;
                let arguments = arguments![parameter, self.weight, self.n, power.norm];
                emit.launch(Launch::each("divide_by_norm", stream, self.n, arguments))
            }
            Divisor::RowSums(sums) => self.divide_by_row_sums(emit, stream, parameter, sums),
        }
    }

    /// The parameter's gradient at `gradient` from the weight's at `d_weight`.
    pub(super) fn backward(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        [parameter, gradient]: [Address; 2],
    ) -> Result<()> {
        let (n, d) = (self.n, self.d_weight);
        match &self.by {
            Divisor::Rows { norms } => {
                let arguments = arguments![self.weight, d, *norms, gradient, self.columns()];
                let grid = [self.n_out, 1, 1];
                emit.launch(Launch::grid("normalize_rows_backward", stream, grid, arguments))
            }
            Divisor::Norm(power) => {
                self.norm_gradient(emit, stream, power)?;
                let blocks = self.dot(emit, stream, [d, parameter], n)?;
                let (partial, norm) = (self.partial, power.norm);
                let arguments = arguments![d, power.d_norm, gradient, n, partial, blocks, norm];
                emit.launch(Launch::each("norm_gradient", stream, n, arguments))
            }
            Divisor::RowSums(sums) => {
                let blocks = self.dot(emit, stream, [d, parameter], n)?;
                let RowSums { of_rows, of_columns, norms, places, .. } = **sums;
                let (rows, columns, kernel) = (self.n_out, self.columns(), self.kernel());
                let partial = self.partial;
                let handed = arguments![
                    parameter, d, of_rows, of_columns, norms, places, partial, blocks, kernel,
                    gradient, rows, columns
                ];
                emit.launch(Launch::each("row_sum_gradient", stream, n, handed))
            }
        }
    }

    /// Keeps what the next step starts from, if this one has not failed.
    pub(super) fn keep(&self, emit: &mut Emit<'_>, stream: usize) -> Result<()> {
        let Divisor::Norm(power) = &self.by else { return Ok(()) };
        let n = self.geometry.n_in;
        let arguments = arguments![power.right, power.before, n, emit.control()];
        emit.launch(Launch::each("keep_values", stream, n, arguments))
    }

    fn kernel(&self) -> f32 {
        self.geometry.conv[4] as f32
    }

    /// ⟨a, b⟩ as partial sums; how many.
    fn dot(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        [a, b]: [Address; 2],
        n: usize,
    ) -> Result<usize> {
        let blocks = n.div_ceil(1024).clamp(1, MAX_BLOCKS);
        let arguments = arguments![a, b, self.partial, n];
        emit.launch(Launch::grid("dot", stream, [blocks, 1, 1], arguments))?;
        Ok(blocks)
    }

    /// x / ‖x‖ in place; the norm at `norm`.
    fn unit(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        [x, norm]: [Address; 2],
        n: usize,
    ) -> Result<()> {
        let blocks = self.dot(emit, stream, [x, x], n)?;
        let arguments = arguments![x, self.partial, blocks, n, norm];
        emit.launch(Launch::each("to_unit", stream, n, arguments))
    }

    fn iterate(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        parameter: Address,
        power: &Power,
    ) -> Result<()> {
        let Power { before, right, left, patches, matrix, norm, order, .. } = *power;
        let (g, n_out) = (&self.geometry, self.n_out);
        let packed = arguments![parameter, matrix, n_out, &g.conv[..], &order[..], 1.0_f32];
        emit.launch(Launch::each("pack_weight", stream, n_out * g.columns, packed))?;
        let (weight, image) = (Matrix::new(matrix, g.ld), Matrix::new(left, n_out));
        let rows = Matrix::new(patches, g.ld);
        let mut from = before;
        for _ in 0..N_ITERATIONS {
            g.gather(emit, stream, 1, [from, patches])?;
            let product = Product::new([g.pixels, n_out, g.ld], rows, weight.t(), image);
            emit.multiply(stream, product)?;
            self.unit(emit, stream, [left, norm], g.pixels * n_out)?;
            let product = Product::new([g.pixels, g.ld, n_out], image, weight, rows);
            emit.multiply(stream, product)?;
            g.scatter(emit, stream, 1, [patches, right])?;
            self.unit(emit, stream, [right, norm], g.n_in)?;
            from = right;
        }
        Ok(())
    }

    /// The gradient of the norm: that of the weight of a convolution with input `right` and output gradient `left`.
    fn norm_gradient(&self, emit: &mut Emit<'_>, stream: usize, power: &Power) -> Result<()> {
        let Power { right, left, patches, d_matrix, d_norm, order, .. } = *power;
        let (g, n_out) = (&self.geometry, self.n_out);
        g.gather(emit, stream, 1, [right, patches])?;
        let (left, to) = (Matrix::new(left, n_out), Matrix::new(d_matrix, g.ld));
        let rows = Matrix::new(patches, g.ld);
        emit.multiply(stream, Product::new([n_out, g.ld, g.pixels], left.t(), rows, to))?;
        let c_in = g.c_in();
        let unpacked =
            arguments![d_matrix, d_norm, 1_u32, n_out, c_in, &g.conv[..], &order[..], 1.0_f32];
        emit.launch(Launch::each("unpack_weight", stream, self.n, unpacked))
    }

    fn divide_by_row_sums(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        parameter: Address,
        sums: &RowSums,
    ) -> Result<()> {
        let (rows, columns) = (self.n_out, self.columns());
        let f = Matrix::new(parameter, columns);
        let of_rows =
            Product::new([rows, rows, columns], f, f.t(), Matrix::new(sums.of_rows, rows));
        let to = Matrix::new(sums.of_columns, columns);
        let of_columns = Product::new([columns, columns, rows], f.t(), f, to);
        for (index, (n, product)) in
            [(rows, of_rows), (columns, of_columns)].into_iter().enumerate()
        {
            emit.multiply(stream, product)?;
            let summed = arguments![product.c.at, sums.sums, n];
            emit.launch(Launch::grid("row_abs_sums", stream, [n, 1, 1], summed))?;
            let (norm, place) = (at(sums.norms, index), at(sums.places, index));
            let largest = arguments![sums.sums, n, norm, place];
            emit.launch(Launch::block("largest_sum", stream, largest))?;
        }
        let divided = arguments![parameter, self.weight, self.n, sums.norms, self.kernel()];
        emit.launch(Launch::each("divide_by_row_sum", stream, self.n, divided))
    }
}
