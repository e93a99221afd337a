//! How a layer's weight is made of its parameter on a device, and the way back.

use super::backend::{Address, Matrix};
use super::bcop::BcopBuffers;
use super::blueprint::{LinearPlan, LinearShape, Method};
use super::emit::Emit;
use super::polar::PolarBuffers;
use super::quotient::{Order, Quotient};
use crate::error::Result;

/// Where a layer's parameters and their gradients lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) weight: Address,
    pub(super) bias: Address,
    pub(super) d_weight: Address,
    pub(super) d_bias: Address,
    /// The vector that the method keeps between steps, if it keeps one.
    pub(super) vector: Address,
    /// One value for the layer's largest defect.
    pub(super) defect: Address,
}

/// Streams of a layer's weight: one for its polar factor and its chain, one for its projectors.
pub(super) type Streams = [usize; 2];

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Weight {
    rows: usize,
    columns: usize,
    places: Places,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Bcop(Box<BcopBuffers>),
    /// Of the parameter, or of its transpose where that is wide, with memory for the transposes.
    Polar {
        polar: Box<PolarBuffers>,
        turned: Option<[Address; 2]>,
        d_factor: Address,
    },
    Quotient(Box<Quotient>),
    Free,
}

/// A dense weight or its gradient with n_out rows, which may lie in memory as its transpose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dense {
    pub(super) weight: Address,
    pub(super) d_weight: Address,
    pub(super) turned: bool,
}

/// Strides of the kernels' structure `WeightOrder`.
fn order(strides: [usize; 4], flip: u32) -> Order {
    let [a, b, o, i] = strides.map(|n| u32::try_from(n).expect("a weight is planned to fit"));
    [a, b, o, i, flip]
}

/// The order of a weight as files have it.
pub(super) fn oihw(plan: &LinearPlan) -> Order {
    match plan.shape {
        LinearShape::Conv { input, downsample, kernel: k } => {
            let c_in = input.channels * downsample * downsample;
            order([k, 1, c_in * k * k, k * k], 0)
        }
        LinearShape::Dense { n_in } => order([0, 0, n_in, 1], 0),
    }
}

impl Weight {
    pub(super) fn new(emit: &mut Emit<'_>, plan: &LinearPlan, places: Places) -> Result<Self> {
        let (rows, columns) = (plan.n_out, plan.n_weights / plan.n_out);
        let kind = match plan.method {
            Method::Bcop { n } => {
                let LinearShape::Conv { kernel, .. } = plan.shape else {
                    unreachable!("BCOP is a method of convolutions")
                };
                let shape = [plan.n_out, n, kernel];
                Kind::Bcop(Box::new(BcopBuffers::new(emit, shape, places.defect)?))
            }
            Method::Polar | Method::Rko => {
                let (short, long) = (rows.min(columns), rows.max(columns));
                let polar = Box::new(PolarBuffers::new(emit, short, long, places.defect)?);
                let turned = if rows > columns {
                    Some([emit.floats(plan.n_weights)?, emit.floats(plan.n_weights)?])
                } else {
                    None
                };
                Kind::Polar { polar, turned, d_factor: emit.floats(plan.n_weights)? }
            }
            Method::UnitRows | Method::Ossn | Method::RowSums => {
                let vector = places.vector;
                Kind::Quotient(Box::new(Quotient::new(emit, plan, vector, oihw(plan))?))
            }
            Method::Free => Kind::Free,
        };
        Ok(Self { rows, columns, places, kind })
    }

    /// How many times more steps were asked for.
    pub(super) fn level(&self) -> usize {
        match &self.kind {
            Kind::Bcop(bcop) => bcop.level(),
            Kind::Polar { polar, .. } => polar.level(),
            Kind::Quotient(_) | Kind::Free => 0,
        }
    }

    /// Takes more steps for the polar factor; whether that can be done.
    pub(super) fn raise_level(&mut self) -> bool {
        match &mut self.kind {
            Kind::Bcop(bcop) => bcop.raise_level(),
            Kind::Polar { polar, .. } => polar.raise_level(),
            Kind::Quotient(_) | Kind::Free => false,
        }
    }

    /// Makes the weight.
    pub(super) fn assemble(&self, emit: &mut Emit<'_>, streams: Streams) -> Result<()> {
        let [stream, _] = streams;
        match &self.kind {
            Kind::Bcop(bcop) => bcop.forward(emit, streams, self.places.weight),
            Kind::Polar { polar, turned, .. } => {
                let w = self.upright(emit, stream, turned)?;
                polar.forward(emit, stream, w)
            }
            Kind::Quotient(quotient) => quotient.forward(emit, stream, self.places.weight),
            Kind::Free => Ok(()),
        }
    }

    /// The parameter, or its transpose where that is wide.
    fn upright(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        turned: &Option<[Address; 2]>,
    ) -> Result<Address> {
        let Some([to, _]) = *turned else { return Ok(self.places.weight) };
        emit.transpose(stream, [self.rows, self.columns], self.places.weight, to)?;
        Ok(to)
    }

    /// Measures the defect of the polar factor.
    pub(super) fn measure(&self, emit: &mut Emit<'_>, [stream, _]: Streams) -> Result<()> {
        match &self.kind {
            Kind::Bcop(bcop) => bcop.measure(emit, stream),
            Kind::Polar { polar, .. } => polar.measure(emit, stream),
            Kind::Quotient(_) | Kind::Free => Ok(()),
        }
    }

    /// What only the way back needs of the weight.
    pub(super) fn prepare_backward(&self, emit: &mut Emit<'_>, [stream, _]: Streams) -> Result<()> {
        match &self.kind {
            Kind::Bcop(bcop) => bcop.prepare_backward(emit, stream, self.places.weight),
            Kind::Polar { polar, turned, .. } => {
                let w = turned.map_or(self.places.weight, |[to, _]| to);
                polar.prepare_backward(emit, stream, w)
            }
            Kind::Quotient(_) | Kind::Free => Ok(()),
        }
    }

    /// The gradient of the parameter from that of the weight.
    pub(super) fn pull_back(&self, emit: &mut Emit<'_>, streams: Streams) -> Result<()> {
        let ([stream, _], gradient) = (streams, self.places.d_weight);
        match &self.kind {
            Kind::Bcop(bcop) => bcop.backward(emit, streams, gradient),
            Kind::Polar { polar, turned, d_factor } => {
                let Some([_, d_turned]) = *turned else {
                    return polar.backward(emit, stream, *d_factor, gradient);
                };
                polar.backward(emit, stream, *d_factor, d_turned)?;
                emit.transpose(stream, [self.columns, self.rows], d_turned, gradient)
            }
            Kind::Quotient(quotient) => {
                quotient.backward(emit, stream, [self.places.weight, gradient])
            }
            Kind::Free => Ok(()),
        }
    }

    /// Keeps what the next step starts from, if this one has not failed.
    pub(super) fn keep(&self, emit: &mut Emit<'_>, stream: usize) -> Result<()> {
        match &self.kind {
            Kind::Quotient(quotient) => quotient.keep(emit, stream),
            Kind::Bcop(_) | Kind::Polar { .. } | Kind::Free => Ok(()),
        }
    }

    /// Where a convolution's weight lies, in which order, and the factor on it.
    pub(super) fn source(&self, plan: &LinearPlan) -> (Address, Order, f32) {
        let LinearShape::Conv { kernel: k, .. } = plan.shape else {
            unreachable!("dense layers multiply by what they have")
        };
        let c_out = self.rows;
        match &self.kind {
            Kind::Bcop(bcop) => {
                let n = bcop.n();
                (bcop.taps(), order([k * c_out * n, c_out * n, n, 1], 1), 1.0)
            }
            Kind::Polar { polar, turned, .. } => {
                let turned_order = order([k * c_out, c_out, 1, k * k * c_out], 0);
                let order = if turned.is_some() { turned_order } else { oihw(plan) };
                (polar.factor, order, 1.0 / k as f32)
            }
            Kind::Quotient(quotient) => (quotient.weight, oihw(plan), 1.0),
            Kind::Free => (self.places.weight, oihw(plan), 1.0),
        }
    }

    /// Where a convolution's gradient is expected, in the order of [`Weight::source`], and its input channels there.
    pub(super) fn sink(&self, c_in: usize) -> (Address, usize) {
        match &self.kind {
            Kind::Bcop(bcop) => (bcop.d_taps(), bcop.n()),
            Kind::Polar { d_factor, .. } => (*d_factor, c_in),
            Kind::Quotient(quotient) => (quotient.d_weight, c_in),
            Kind::Free => (self.places.d_weight, c_in),
        }
    }

    /// A dense layer's weight and where its gradient is expected.
    pub(super) fn dense(&self) -> Dense {
        match &self.kind {
            Kind::Polar { polar, turned, d_factor } => {
                Dense { weight: polar.factor, d_weight: *d_factor, turned: turned.is_some() }
            }
            Kind::Quotient(quotient) => {
                Dense { weight: quotient.weight, d_weight: quotient.d_weight, turned: false }
            }
            Kind::Free | Kind::Bcop(_) => {
                Dense { weight: self.places.weight, d_weight: self.places.d_weight, turned: false }
            }
        }
    }
}

impl Dense {
    /// The n_out x n_in weight.
    pub(super) fn matrix(&self, [n_out, n_in]: [usize; 2]) -> Matrix {
        match self.turned {
            true => Matrix::new(self.weight, n_out).t(),
            false => Matrix::new(self.weight, n_in),
        }
    }

    /// The kernels' structure `Strided`.
    pub(super) fn strides(&self, [n_out, n_in]: [usize; 2]) -> [u32; 2] {
        let strides = if self.turned { [1, n_out] } else { [n_in, 1] };
        strides.map(|n| u32::try_from(n).expect("a weight is planned to fit"))
    }
}
