//! A linear layer on a device, its activation included: memory, forward, backward.
//!
//! A convolution is one product of the batch's patches with a c_out x patch matrix; its weight gradient is cut into slices of pixels,
//! one product each, which are added in order. Signals of convolutions have their channels last.

use super::backend::{Address, Launch, Matrix, Product, arguments};
use super::bcop::BcopBuffers;
use super::blueprint::{LinearPlan, LinearShape, Method};
use super::emit::Emit;
use super::polar::PolarBuffers;
use crate::activation::Activation;
use crate::error::Result;

/// Where a layer's parameters and their gradients lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) weight: Address,
    pub(super) bias: Address,
    pub(super) d_weight: Address,
    pub(super) d_bias: Address,
    /// One value for the layer's largest defect.
    pub(super) defect: Address,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Linear {
    plan: LinearPlan,
    places: Places,
    weight: Weight,
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

/// How the weight is made.
#[derive(Debug)]
enum Weight {
    Bcop(Box<BcopBuffers>),
    /// Of the parameter, or of its transpose where that is wide, with memory for the transposes.
    Polar {
        polar: Box<PolarBuffers>,
        turned: Option<[Address; 2]>,
        d_factor: Address,
    },
    Normalized {
        weight: Address,
        norms: Address,
        d_weight: Address,
    },
    Free,
}

/// Sizes of a layer.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    /// Output pixels of an image.
    pixels: usize,
    /// Columns of a patch, and values between two of them.
    columns: usize,
    ld: usize,
    /// The kernels' structure `ConvShape`.
    conv: [u32; 6],
    n_in: usize,
}

/// Streams of a layer's weight: one for its polar factor and its chain, one for its projectors.
pub(super) type Streams = [usize; 2];

/// Most slices of a weight gradient, and least rows of one.
const MAX_SLICES: usize = 64;
const MIN_SLICE_ROWS: usize = 512;
/// Most blocks that add up columns.
const MAX_SUM_BLOCKS: usize = 128;

impl Geometry {
    fn new(plan: &LinearPlan) -> Self {
        match plan.shape {
            LinearShape::Dense { n_in } => {
                Self { pixels: 1, columns: n_in, ld: n_in, conv: [0; 6], n_in }
            }
            LinearShape::Conv { input, downsample, kernel } => {
                let (h, w) = (input.height / downsample, input.width / downsample);
                let columns = kernel * kernel * downsample * downsample * input.channels;
                let ld = columns.next_multiple_of(4);
                let conv = [h, w, input.channels, downsample, kernel, ld]
                    .map(|n| u32::try_from(n).expect("an image is planned to fit"));
                Self { pixels: h * w, columns, ld, conv, n_in: input.n_values() }
            }
        }
    }

    /// The structure and the number of values in units of four, where channels come in fours.
    fn in_fours(&self) -> Option<[u32; 6]> {
        let [h, w, c, s, k, ld] = self.conv;
        c.is_multiple_of(4).then_some([h, w, c / 4, s, k, ld / 4])
    }
}

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

    /// Takes more steps for the layer's polar factor; whether that can be done.
    pub(super) fn raise_level(&mut self) -> bool {
        match &mut self.weight {
            Weight::Bcop(bcop) => bcop.raise_level(),
            Weight::Polar { polar, .. } => polar.raise_level(),
            Weight::Normalized { .. } | Weight::Free => false,
        }
    }

    /// Values that the gradient of a batch's patches takes.
    pub(super) fn patch_values(&self, batch: usize) -> usize {
        match self.plan.shape {
            LinearShape::Conv { .. } => batch * self.geometry.pixels * self.geometry.ld,
            LinearShape::Dense { .. } => 0,
        }
    }

    /// Makes the weight.
    pub(super) fn assemble(&self, emit: &mut Emit<'_>, streams: Streams) -> Result<()> {
        let [stream, _] = streams;
        match &self.weight {
            Weight::Bcop(bcop) => bcop.forward(emit, streams, self.places.weight)?,
            Weight::Polar { polar, turned, .. } => {
                let w = self.upright(emit, stream, turned)?;
                polar.forward(emit, stream, w)?;
            }
            Weight::Normalized { weight, norms, .. } => {
                let n_in = self.geometry.columns;
                let arguments = arguments![self.places.weight, *weight, *norms, n_in];
                let grid = [self.plan.n_out, 1, 1];
                emit.launch(Launch::grid("normalize_rows", stream, grid, arguments))?;
            }
            Weight::Free => {}
        }
        if matches!(self.plan.shape, LinearShape::Dense { .. }) {
            return Ok(());
        }
        let (from, order, factor) = self.source();
        let Geometry { columns, conv, .. } = self.geometry;
        let packed = arguments![from, self.matrix, self.plan.n_out, &conv[..], &order[..], factor];
        emit.launch(Launch::each("pack_weight", stream, self.plan.n_out * columns, packed))
    }

    /// The parameter, or its transpose where that is wide.
    fn upright(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        turned: &Option<[Address; 2]>,
    ) -> Result<Address> {
        let Some([to, _]) = *turned else { return Ok(self.places.weight) };
        let shape = [self.plan.n_out, self.plan.n_weights / self.plan.n_out];
        emit.transpose(stream, shape, self.places.weight, to)?;
        Ok(to)
    }

    /// Measures the defect of the weight's polar factor.
    pub(super) fn measure(&self, emit: &mut Emit<'_>, [stream, _]: Streams) -> Result<()> {
        match &self.weight {
            Weight::Bcop(bcop) => bcop.measure(emit, stream),
            Weight::Polar { polar, .. } => polar.measure(emit, stream),
            Weight::Normalized { .. } | Weight::Free => Ok(()),
        }
    }

    /// What only the way back needs of the weight.
    pub(super) fn prepare_backward(&self, emit: &mut Emit<'_>, [stream, _]: Streams) -> Result<()> {
        match &self.weight {
            Weight::Bcop(bcop) => bcop.prepare_backward(emit, stream, self.places.weight),
            Weight::Polar { polar, turned, .. } => {
                let w = turned.map_or(self.places.weight, |[to, _]| to);
                polar.prepare_backward(emit, stream, w)
            }
            Weight::Normalized { .. } | Weight::Free => Ok(()),
        }
    }

    /// Where a convolution's weight lies, in the order of the kernels' structure `WeightOrder`, and the factor on it.
    fn source(&self) -> (Address, [u32; 5], f32) {
        let LinearShape::Conv { input, downsample, kernel: k } = self.plan.shape else {
            unreachable!("dense layers multiply by what they have")
        };
        let (c_out, c_in) = (self.plan.n_out, input.channels * downsample * downsample);
        let whole = |order: [usize; 4], flip: u32| {
            let [a, b, o, i] = order.map(|n| u32::try_from(n).expect("a weight is planned to fit"));
            [a, b, o, i, flip]
        };
        let oihw = whole([k, 1, c_in * k * k, k * k], 0);
        match &self.weight {
            Weight::Bcop(bcop) => {
                let n = c_out.max(c_in);
                (bcop.taps(), whole([k * c_out * n, c_out * n, n, 1], 1), 1.0)
            }
            Weight::Polar { polar, turned, .. } => {
                let turned_order = whole([k * c_out, c_out, 1, k * k * c_out], 0);
                let order = if turned.is_some() { turned_order } else { oihw };
                (polar.factor, order, 1.0 / k as f32)
            }
            Weight::Normalized { weight, .. } => (*weight, oihw, 1.0),
            Weight::Free => (self.places.weight, oihw, 1.0),
        }
    }

    /// A dense layer's n_out x n_in weight.
    fn dense_weight(&self) -> Matrix {
        let n_in = self.geometry.n_in;
        match &self.weight {
            Weight::Polar { polar, turned: Some(_), .. } => {
                Matrix::new(polar.factor, self.plan.n_out).t()
            }
            Weight::Polar { polar, .. } => Matrix::new(polar.factor, n_in),
            Weight::Normalized { weight, .. } => Matrix::new(*weight, n_in),
            Weight::Free | Weight::Bcop(_) => Matrix::new(self.places.weight, n_in),
        }
    }

    /// y from x for `batch` samples; the weight has been made.
    pub(super) fn forward(&self, emit: &mut Emit<'_>, batch: usize) -> Result<()> {
        let (n_out, g) = (self.plan.n_out, &self.geometry);
        let rows = batch * g.pixels;
        let y = Matrix::new(self.y, n_out);
        if matches!(self.plan.shape, LinearShape::Conv { .. }) {
            let (kernel, conv, n) = match g.in_fours() {
                Some(conv) => ("im2col4", conv, rows * g.columns / 4),
                None => ("im2col", g.conv, rows * g.columns),
            };
            let arguments = arguments![self.x, self.patches, rows, &conv[..]];
            emit.launch(Launch::each(kernel, 0, n, arguments))?;
            let patches = Matrix::new(self.patches, g.ld);
            let weight = Matrix::new(self.matrix, g.ld);
            emit.multiply(0, Product::new([rows, n_out, g.ld], patches, weight.t(), y))?;
        } else {
            let x = Matrix::new(self.x, g.n_in);
            emit.multiply(0, Product::new([rows, n_out, g.n_in], x, self.dense_weight().t(), y))?;
        }
        let (act, group, units) = self.activation();
        let arguments = arguments![self.y, self.places.bias, self.record, rows, n_out, act, group];
        emit.launch(Launch::each("bias_activation", 0, rows * units, arguments))
    }

    /// The kernels' number of the activation, its group, and the units of a row.
    fn activation(&self) -> (u32, usize, usize) {
        let n_out = self.plan.n_out;
        match self.plan.activation {
            None => (0, 1, n_out),
            Some(Activation::MaxMin) => (1, 1, n_out / 2),
            Some(Activation::Relu) => (2, 1, n_out),
            Some(Activation::GroupSort { group }) => (3, group, n_out / group),
        }
    }

    /// Gradients of bias and weight matrix from dy, which becomes that of the product; then dx, with `d_patches` for scratch, if
    /// it is wanted. Gradients of the weight's parameters are [`Linear::pull_back`]'s, which may begin when this has been given the device.
    pub(super) fn backward(&self, emit: &mut Emit<'_>, batch: usize) -> Result<()> {
        let (n_out, g) = (self.plan.n_out, &self.geometry);
        let rows = batch * g.pixels;
        let (act, group, units) = self.activation();
        if act > 0 {
            let arguments = arguments![self.dy, self.record, rows, n_out, act, group];
            emit.launch(Launch::each("activation_backward", 0, rows * units, arguments))?;
        }
        if !self.plan.trained {
            return Ok(());
        }
        let dy = Matrix::new(self.dy, n_out);
        if matches!(self.plan.shape, LinearShape::Conv { .. }) {
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
        let x = Matrix::new(self.x, g.n_in);
        match &self.weight {
            Weight::Polar { turned: Some(_), d_factor, .. } => {
                let to = Matrix::new(*d_factor, n_out);
                emit.multiply(0, Product::new([g.n_in, n_out, rows], x.t(), dy, to))
            }
            weight => {
                let to = match weight {
                    Weight::Polar { d_factor, .. } => *d_factor,
                    Weight::Normalized { d_weight, .. } => *d_weight,
                    Weight::Free | Weight::Bcop(_) => self.places.d_weight,
                };
                let to = Matrix::new(to, g.n_in);
                emit.multiply(0, Product::new([n_out, g.n_in, rows], dy.t(), x, to))
            }
        }
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
        if matches!(self.plan.shape, LinearShape::Dense { .. }) {
            let dx = Matrix::new(self.dx, g.n_in);
            return emit
                .multiply(0, Product::new([rows, g.n_in, n_out], dy, self.dense_weight(), dx));
        }
        let (to, weight) = (Matrix::new(d_patches, g.ld), Matrix::new(self.matrix, g.ld));
        emit.multiply(0, Product::new([rows, g.ld, n_out], dy, weight, to))?;
        let (kernel, conv, n) = match g.in_fours() {
            Some(conv) => ("col2im4", conv, batch * g.n_in / 4),
            None => ("col2im", g.conv, batch * g.n_in),
        };
        let arguments = arguments![d_patches, self.dx, rows, &conv[..]];
        emit.launch(Launch::each(kernel, 0, n, arguments))
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
        if matches!(self.plan.shape, LinearShape::Conv { .. }) {
            self.unpack(emit, stream, batch)?;
        }
        let gradient = self.places.d_weight;
        match &self.weight {
            Weight::Bcop(bcop) => bcop.backward(emit, streams, gradient),
            Weight::Polar { polar, turned, d_factor } => {
                let Some([_, d_turned]) = *turned else {
                    return polar.backward(emit, stream, *d_factor, gradient);
                };
                polar.backward(emit, stream, *d_factor, d_turned)?;
                let shape = [self.plan.n_weights / self.plan.n_out, self.plan.n_out];
                emit.transpose(stream, shape, d_turned, gradient)
            }
            Weight::Normalized { weight, norms, d_weight } => {
                let n_in = self.geometry.columns;
                let arguments = arguments![*weight, *d_weight, *norms, gradient, n_in];
                let grid = [self.plan.n_out, 1, 1];
                emit.launch(Launch::grid("normalize_rows_backward", stream, grid, arguments))
            }
            Weight::Free => Ok(()),
        }
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
        let (_, order, factor) = self.source();
        let c_in = self.geometry.columns / (self.geometry.conv[4] * self.geometry.conv[4]) as usize;
        let (to, n) = match &self.weight {
            Weight::Bcop(bcop) => (bcop.d_taps(), self.plan.n_out.max(c_in)),
            Weight::Polar { d_factor, .. } => (*d_factor, c_in),
            Weight::Normalized { d_weight, .. } => (*d_weight, c_in),
            Weight::Free => (self.places.d_weight, c_in),
        };
        let slices = slices(batch * self.geometry.pixels);
        let (n_out, conv) = (self.plan.n_out, self.geometry.conv);
        let values = (conv[4] * conv[4]) as usize * n_out * n;
        let arguments =
            arguments![self.d_matrix, to, slices, n_out, n, &conv[..], &order[..], factor];
        emit.launch(Launch::each("unpack_weight", stream, values, arguments))
    }
}

impl Weight {
    fn new(emit: &mut Emit<'_>, plan: &LinearPlan, places: Places) -> Result<Self> {
        let (rows, columns) = (plan.n_out, plan.n_weights / plan.n_out);
        Ok(match plan.method {
            Method::Bcop { n } => {
                let LinearShape::Conv { kernel, .. } = plan.shape else {
                    unreachable!("BCOP is a method of convolutions")
                };
                let shape = [plan.n_out, n, kernel];
                Self::Bcop(Box::new(BcopBuffers::new(emit, shape, places.defect)?))
            }
            Method::Polar | Method::Rko => {
                let (short, long) = (rows.min(columns), rows.max(columns));
                let polar = Box::new(PolarBuffers::new(emit, short, long, places.defect)?);
                let turned = if rows > columns {
                    Some([emit.floats(plan.n_weights)?, emit.floats(plan.n_weights)?])
                } else {
                    None
                };
                Self::Polar { polar, turned, d_factor: emit.floats(plan.n_weights)? }
            }
            Method::Normalized => Self::Normalized {
                weight: emit.floats(plan.n_weights)?,
                norms: emit.floats(plan.n_out)?,
                d_weight: emit.floats(plan.n_weights)?,
            },
            Method::Free => Self::Free,
        })
    }
}
