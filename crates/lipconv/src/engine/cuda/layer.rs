//! A linear layer on a device, its activation included: memory, forward, backward.
//!
//! A convolution is one product of the batch's patches with a c_out x patch matrix; its weight gradient is cut into slices of pixels,
//! one product each, which are added in order. Signals of convolutions have their channels last.

use super::backend::{Address, Launch, Matrix, Product, arguments};
use super::blueprint::{LinearPlan, LinearShape};
use super::emit::Emit;
use super::geometry::Geometry;
use super::quotient::Order;
use super::weight::{Dense, Places, Streams, Weight, oihw};
use crate::activation::Activation;
use crate::error::Result;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Linear {
    plan: LinearPlan,
    places: Places,
    pub(super) weight: Weight,
    geometry: Geometry,
    /// Input, as the product takes it: channels last, or vectors.
    pub(super) x: Address,
    /// The input's gradient.
    pub(super) dx: Address,
    /// Output after bias and activation, and its gradient.
    pub(super) y: Address,
    pub(super) dy: Address,
    record: Address,
    sums: Address,
    /// The matrix of a product with patches, and slices of its gradient.
    matrix: Address,
    d_matrix: Address,
    patches: Address,
}

/// Most slices of a weight gradient, and least rows of one.
const MAX_SLICES: usize = 64;
const MIN_SLICE_ROWS: usize = 512;
/// Most blocks that add up columns.
const MAX_SUM_BLOCKS: usize = 128;

fn slices(rows: usize) -> usize {
    let mut slices = MAX_SLICES;
    while slices > 1 && (!rows.is_multiple_of(slices) || rows / slices < MIN_SLICE_ROWS) {
        slices /= 2;
    }
    slices
}

impl Linear {
    /// Memory of a layer for batches of at most `batch`; `x` and `dx` are where the layer before leaves its output and expects
    /// its gradient, `patches` is shared scratch for the gradient of patches.
    pub(super) fn new(
        emit: &mut Emit<'_>,
        plan: &LinearPlan,
        batch: usize,
        places: Places,
        [x, dx]: [Address; 2],
    ) -> Result<Self> {
        let geometry = Geometry::new(plan);
        let rows = batch * geometry.pixels;
        let is_conv = matches!(plan.shape, LinearShape::Conv { .. });
        let outputs = rows * plan.n_out;
        let weight = Weight::new(emit, plan, places)?;
        let (matrix, d_matrix, patches) = if is_conv {
            let length = plan.n_out * geometry.ld;
            let slices = emit.floats(MAX_SLICES * length)?;
            (emit.floats(length)?, slices, emit.floats(rows * geometry.ld)?)
        } else {
            (0, 0, 0)
        };
        Ok(Self {
            plan: plan.clone(),
            places,
            weight,
            geometry,
            x,
            dx,
            y: emit.floats(outputs)?,
            dy: emit.floats(outputs)?,
            record: emit.bytes(outputs)?,
            sums: emit.floats(MAX_SUM_BLOCKS * plan.n_out)?,
            matrix,
            d_matrix,
            patches,
        })
    }

    fn is_conv(&self) -> bool {
        matches!(self.plan.shape, LinearShape::Conv { .. })
    }

    /// Values that the gradient of a batch's patches takes.
    pub(super) fn patch_values(&self, batch: usize) -> usize {
        if self.is_conv() { batch * self.geometry.pixels * self.geometry.ld } else { 0 }
    }

    /// Makes the weight.
    pub(super) fn assemble(&self, emit: &mut Emit<'_>, streams: Streams) -> Result<()> {
        self.weight.assemble(emit, streams)?;
        if !self.is_conv() {
            return Ok(());
        }
        let (from, order, factor) = self.weight.source(&self.plan);
        let [stream, _] = streams;
        self.pack(emit, stream, [from, self.matrix], (order, factor))
    }

    /// The matrix of a product with patches, from a weight in some order.
    fn pack(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        [from, to]: [Address; 2],
        (order, factor): (Order, f32),
    ) -> Result<()> {
        let Geometry { columns, conv, .. } = self.geometry;
        let packed = arguments![from, to, self.plan.n_out, &conv[..], &order[..], factor];
        emit.launch(Launch::each("pack_weight", stream, self.plan.n_out * columns, packed))
    }

    /// Rows and columns of a dense layer's weight.
    pub(super) fn dense_shape(&self) -> [usize; 2] {
        [self.plan.n_out, self.geometry.n_in]
    }

    /// A dense layer's weight.
    pub(super) fn dense(&self) -> Dense {
        self.weight.dense()
    }

    /// y from x for `batch` samples; the weight has been made.
    pub(super) fn forward(&self, emit: &mut Emit<'_>, batch: usize) -> Result<()> {
        let (n_out, g) = (self.plan.n_out, &self.geometry);
        let rows = batch * g.pixels;
        let y = Matrix::new(self.y, n_out);
        if self.is_conv() {
            g.gather(emit, 0, batch, [self.x, self.patches])?;
            let patches = Matrix::new(self.patches, g.ld);
            let weight = Matrix::new(self.matrix, g.ld);
            emit.multiply(0, Product::new([rows, n_out, g.ld], patches, weight.t(), y))?;
        } else {
            let (x, weight) =
                (Matrix::new(self.x, g.n_in), self.dense().matrix(self.dense_shape()));
            emit.multiply(0, Product::new([rows, n_out, g.n_in], x, weight.t(), y))?;
        }
        let (act, group, units) = self.activation();
        let arguments = arguments![self.y, self.places.bias, self.record, rows, n_out, act, group];
        emit.launch(Launch::each("bias_activation", 0, rows * units, arguments))
    }

    /// The kernels' number of the activation, its group, and the units of a row.
    fn activation(&self) -> (u32, usize, usize) {
        let n_out = self.plan.n_out;
        let number = self.plan.activation.and_then(Activation::kernel_number).unwrap_or(0);
        let group = self.plan.activation.map_or(1, Activation::group);
        (number, group, n_out / group)
    }

    /// dy of the output to that of the product, in place.
    pub(super) fn backward_activation(&self, emit: &mut Emit<'_>, batch: usize) -> Result<()> {
        let (act, group, units) = self.activation();
        if act == 0 {
            return Ok(());
        }
        let rows = batch * self.geometry.pixels;
        let arguments = arguments![self.dy, self.record, rows, self.plan.n_out, act, group];
        emit.launch(Launch::each("activation_backward", 0, rows * units, arguments))
    }

    /// The gradient of the weight from that of the product; that of the weight's parameter is [`Linear::pull_back`]'s, which may begin
    /// when this has been given the device.
    pub(super) fn backward_weight(&self, emit: &mut Emit<'_>, batch: usize) -> Result<()> {
        if !self.plan.trained {
            return Ok(());
        }
        let (n_out, g) = (self.plan.n_out, &self.geometry);
        let rows = batch * g.pixels;
        let dy = Matrix::new(self.dy, n_out);
        if self.is_conv() {
            let slices = slices(rows);
            let height = rows / slices;
            let (patches, to) = (Matrix::new(self.patches, g.ld), Matrix::new(self.d_matrix, g.ld));
            let product = Product::new(
                [n_out, g.ld, height],
                dy.t().every(height * n_out),
                patches.every(height * g.ld),
                to.every(n_out * g.ld),
            );
            return emit.multiply(0, product.batch(slices));
        }
        let (x, dense) = (Matrix::new(self.x, g.n_in), self.dense());
        if dense.turned {
            let to = Matrix::new(dense.d_weight, n_out);
            return emit.multiply(0, Product::new([g.n_in, n_out, rows], x.t(), dy, to));
        }
        let to = Matrix::new(dense.d_weight, g.n_in);
        emit.multiply(0, Product::new([n_out, g.n_in, rows], dy.t(), x, to))
    }

    /// dx from the product's gradient.
    pub(super) fn backward_input(
        &self,
        emit: &mut Emit<'_>,
        batch: usize,
        d_patches: Address,
    ) -> Result<()> {
        let (n_out, g) = (self.plan.n_out, &self.geometry);
        let rows = batch * g.pixels;
        let dy = Matrix::new(self.dy, n_out);
        if !self.is_conv() {
            let (dx, weight) =
                (Matrix::new(self.dx, g.n_in), self.dense().matrix(self.dense_shape()));
            return emit.multiply(0, Product::new([rows, g.n_in, n_out], dy, weight, dx));
        }
        let (to, weight) = (Matrix::new(d_patches, g.ld), Matrix::new(self.matrix, g.ld));
        emit.multiply(0, Product::new([rows, g.ld, n_out], dy, weight, to))?;
        g.scatter(emit, 0, batch, [d_patches, self.dx])
    }

    /// Gradients of the parameters, on the layer's own streams.
    pub(super) fn pull_back(
        &self,
        emit: &mut Emit<'_>,
        streams: Streams,
        batch: usize,
    ) -> Result<()> {
        let [stream, _] = streams;
        self.bias_gradient(emit, stream, batch)?;
        if !self.plan.trained {
            return Ok(());
        }
        if self.is_conv() {
            self.unpack(emit, stream, batch)?;
        }
        self.weight.pull_back(emit, streams)
    }

    fn bias_gradient(&self, emit: &mut Emit<'_>, stream: usize, batch: usize) -> Result<()> {
        let (n_out, rows) = (self.plan.n_out, batch * self.geometry.pixels);
        let height = rows.div_ceil(MAX_SUM_BLOCKS);
        let blocks = rows.div_ceil(height);
        let summed = arguments![self.dy, self.sums, rows, n_out, height];
        let grid = [blocks, n_out.div_ceil(256), 1];
        emit.launch(Launch::grid("column_sums", stream, grid, summed))?;
        let added = arguments![self.sums, self.places.d_bias, blocks, n_out, 1.0_f32];
        emit.launch(Launch::each("add_slices", stream, n_out, added))
    }

    /// A convolution's weight gradient in the order in which the weight was made.
    fn unpack(&self, emit: &mut Emit<'_>, stream: usize, batch: usize) -> Result<()> {
        let (_, order, factor) = self.weight.source(&self.plan);
        let (to, n) = self.weight.sink(self.geometry.c_in());
        let slices = slices(batch * self.geometry.pixels);
        self.unpack_to(emit, stream, (self.d_matrix, slices), (to, n), (order, factor))
    }

    fn unpack_to(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        (from, slices): (Address, usize),
        (to, n): (Address, usize),
        (order, factor): (Order, f32),
    ) -> Result<()> {
        let (n_out, conv) = (self.plan.n_out, self.geometry.conv);
        let values = (conv[4] * conv[4]) as usize * n_out * n;
        let arguments = arguments![from, to, slices, n_out, n, &conv[..], &order[..], factor];
        emit.launch(Launch::each("unpack_weight", stream, values, arguments))
    }

    /// The weight that has been made, as OIHW or n_out x n_in.
    pub(super) fn hand_out(&self, emit: &mut Emit<'_>, to: Address) -> Result<()> {
        if self.is_conv() {
            let to = (to, self.geometry.c_in());
            return self.unpack_to(emit, 0, (self.matrix, 1), to, (oihw(&self.plan), 1.0));
        }
        let ([n_out, n_in], dense) = (self.dense_shape(), self.dense());
        if dense.turned {
            return emit.transpose(0, [n_in, n_out], dense.weight, to);
        }
        let arguments = arguments![dense.weight, to, n_out * n_in, emit.control()];
        emit.launch(Launch::each("keep_values", 0, n_out * n_in, arguments))
    }

    /// Its gradient, where [`Weight::pull_back`] expects it.
    pub(super) fn take_in(&self, emit: &mut Emit<'_>, stream: usize, from: Address) -> Result<()> {
        if self.is_conv() {
            self.pack(emit, stream, [from, self.d_matrix], (oihw(&self.plan), 1.0))?;
            return self.unpack(emit, stream, 1);
        }
        let ([n_out, n_in], dense) = (self.dense_shape(), self.dense());
        if dense.turned {
            return emit.transpose(stream, [n_out, n_in], from, dense.d_weight);
        }
        let arguments = arguments![from, dense.d_weight, n_out * n_in, emit.control()];
        emit.launch(Launch::each("keep_values", stream, n_out * n_in, arguments))
    }
}
