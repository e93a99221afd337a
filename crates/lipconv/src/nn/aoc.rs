//! AOC: natively orthogonal convolutions with stride, groups and dilation, and their transposes.
//!
//! Definition. y[i] = Σ_a K[a] x[s i + d a - p] + β with stride s, dilation d and p = s ⌊q/2⌋, where q = ⌈(d(k-1) + 1) / s⌉; the
//! padding is cyclic or zeros. In each of g groups of channels, K is the block convolution of a BCOP kernel X (c_in to c',
//! size k - s' + 1) with a strided one of size s', the polar factor R of c_out x c'·s'²: K[a + b] = Σ R[b] X[a]. Here
//! s' = s / gcd(s, d), c' = c_in where c_out <= c_in s'², and c' = ⌊c_out / s'²⌋ elsewhere. For s' = 1 K is X alone, for k = s' it
//! is R alone.
//!
//! Theorem. With cyclic padding the rows of the operator are orthonormal where c_out <= c_in s², its columns where
//! c_out >= c_in s², for all sizes of images that s divides. Proof. For d = 1: X is an isometry if c' >= c_in and has
//! orthonormal rows if c' <= c_in, so has R for its windows, which are disjoint, and c' is chosen so that both are of one kind
//! (c' = c_in is both). For d > 1 with gcd(s, d) = 1: the rows need Σ_a K[a] K[a + t]ᵗ = 0 for all t != 0 with d t in s Z, that
//! is t in s Z, the condition for d = 1; the columns need, for each residue r mod s, the sums over a with a = r of
//! K[a]ᵗ K[a + t] to be 0 for t != 0 and I for t = 0, and a pixel u meets the residue u / d, which runs over all of them. For
//! gcd(s, d) > 1 the rows need t in s' Z, which the kernel for the stride s' gives; the columns cannot be orthonormal, since
//! only pixels of one residue mod gcd(s, d) are seen. With zeros for padding the operator is a compression of that of a
//! larger image: its norm is at most 1.
//!
//! Refused. k < s: some pixels would not be seen. gcd(s, d) > 1 with c_out > c_in s'²: neither rows nor columns can be orthonormal.
//!
//! Transposed. The adjoint of the convolution from c_out to c_in channels, h x w to h·s x w·s: an isometry where
//! c_in <= c_out s².
//!
//! Shapes. x b x c_in x H x W, y b x c_out x H/s x W/s. Parameters `kernel` (g x (2m-1) x n x n with m = k - s' + 1 and
//! n = max(c_in/g, c')), `frame` (g x c_out/g x c'·s'²), `bias` (c_out): those of X and R.
//!
//! Guarantee. Orthogonal up to rounding for all parameters of full rank. X contains all of O(c) in its factor H, where the published
//! 1 x 1 factor (I - 2P)(I - 2Q) reaches SO(c) only: see `blockconv::components`.
//!
//! Plain form. With cyclic padding a [`CyclicConv`](crate::CyclicConv): K in its phases mod s, dilation as zeros, groups as
//! blocks.
//!
//! Cost. One product of c_out s'² x c' with c' x c_in m² for K beside BCOP's; the convolution runs on the phases, so that an output
//! value costs as much as one of BCOP with as many taps.
//!
//! Source. Boissin, Mamalet, Fel, Picard, Massena and Serrurier (2025), arXiv 2501.07930, with another choice of c' where s² does not
//! divide c_out, and the cases of gcd(s, d) > 1 worked out.

use candle_core::{DType, Module, Tensor};
use candle_nn::VarBuilder;

use super::materialize::{Materialize, no_plain_form, plain_conv};
use super::parameter::{at_least_one, layer_name, parameter};
use crate::error::{Error, Result};
use crate::methods::{ConvMethod, LinearMethod, Method, Sizes, uniform};
use crate::ops;
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// What is beyond the edge of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Padding {
    /// The opposite edge.
    #[default]
    Cyclic,
    /// Zeros.
    Zeros,
}

/// Settings of a natively strided convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AocConfig {
    /// The stride; it divides height and width.
    pub stride: usize,
    /// Groups of channels that do not meet.
    pub groups: usize,
    /// Distance of neighbouring taps.
    pub dilation: usize,
    /// What is beyond the edge.
    pub padding: Padding,
    /// Whether there is a bias.
    pub bias: bool,
    /// Seed of the starting values.
    pub seed: u64,
}

impl Default for AocConfig {
    /// Stride, groups and dilation 1, cyclic, with a bias.
    fn default() -> Self {
        Self { stride: 1, groups: 1, dilation: 1, padding: Padding::Cyclic, bias: true, seed: 0 }
    }
}

/// The numbers of one group.
#[derive(Debug, Clone, Copy)]
struct Plan {
    c_in: usize,
    c_out: usize,
    kernel: usize,
    /// s'.
    inner_stride: usize,
    /// c'.
    inner: usize,
}

impl Plan {
    fn new(
        name: &str,
        c_in: usize,
        c_out: usize,
        kernel: usize,
        config: &AocConfig,
    ) -> Result<Self> {
        let AocConfig { stride, groups, dilation, .. } = *config;
        let counts = [
            ("c_in", c_in),
            ("c_out", c_out),
            ("kernel_size", kernel),
            ("stride", stride),
            ("groups", groups),
            ("dilation", dilation),
        ];
        at_least_one(name, &counts)?;
        for channels in [c_in, c_out] {
            if !channels.is_multiple_of(groups) {
                let layer = name.to_owned();
                return Err(Error::GroupsDoNotDivide { layer, channels, group: groups });
            }
        }
        let impossible = |reason: String| Error::NotOrthogonal { layer: name.to_owned(), reason };
        if kernel < stride {
            return Err(impossible(format!(
                "the kernel size {kernel} is below the stride {stride}, so that some pixels would not be seen"
            )));
        }
        let (c_in, c_out) = (c_in / groups, c_out / groups);
        let inner_stride = stride / greatest_common_divisor(stride, dilation);
        let most = c_in * inner_stride * inner_stride;
        if inner_stride < stride && c_out > most {
            return Err(impossible(format!(
                "stride {stride} and dilation {dilation} see one pixel of {} along each axis, on which at most {most} of the \
                 {c_out} output channels of a group can be orthogonal",
                stride / inner_stride
            )));
        }
        let inner = match (inner_stride, kernel == inner_stride) {
            (1, _) => c_out,
            (_, true) => c_in,
            _ if c_out <= most => c_in,
            _ => c_out / (inner_stride * inner_stride),
        };
        Ok(Self { c_in, c_out, kernel, inner_stride, inner })
    }

    /// The sizes of X, if there is one.
    fn convolution(&self) -> Option<Sizes> {
        let size = self.kernel - self.inner_stride + 1;
        let exists = self.inner_stride == 1 || size > 1;
        exists.then(|| Sizes::conv(self.inner, self.c_in, size, (size, size)))
    }

    /// The sizes of R, if there is one.
    fn frame(&self) -> Option<Sizes> {
        let area = self.inner_stride * self.inner_stride;
        (area > 1).then(|| Sizes::dense(self.c_out, self.inner * area))
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The parameters of a kernel and what it is made of them.
#[derive(Debug, Clone)]
struct Kernel {
    name: String,
    plan: Plan,
    convolution: Option<Tensor>,
    frame: Option<Tensor>,
    config: AocConfig,
}

impl Kernel {
    fn new(
        (c_in, c_out, kernel_size): (usize, usize, usize),
        config: AocConfig,
        vb: &VarBuilder<'_>,
        kind: &str,
    ) -> Result<Self> {
        let name = layer_name(vb, kind);
        let plan = Plan::new(&name, c_in, c_out, kernel_size, &config)?;
        let stack = |what: &str, method: Method, sizes: Option<Sizes>| {
            let Some(sizes) = sizes else { return Ok(None) };
            let definition = method.definition();
            let mut shape = vec![config.groups];
            shape.extend(definition.parameter_shape(&sizes));
            let draw = |rng: &mut _| {
                (0..config.groups).flat_map(|_| definition.draw(&sizes, rng)).collect()
            };
            parameter(vb, what, &shape, config.seed, draw).map(Some)
        };
        let convolution = stack("kernel", ConvMethod::Bcop.into(), plan.convolution())?;
        let frame = stack("frame", LinearMethod::Bjorck.into(), plan.frame())?;
        Ok(Self { name, plan, convolution, frame, config })
    }

    /// K of all groups, OIHW.
    fn weight(&self) -> Result<Tensor> {
        let groups = (0..self.config.groups).map(|group| self.of_group(group));
        Ok(Tensor::cat(&groups.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// K of one group, OIHW.
    fn of_group(&self, group: usize) -> Result<Tensor> {
        let factor = |method: Method, sizes: Option<Sizes>, parameter: &Option<Tensor>| {
            let Some((sizes, parameter)) = sizes.zip(parameter.as_ref()) else { return Ok(None) };
            ops::weight(method, &sizes, &parameter.get(group)?, None).map(|w| Some(w.weight))
        };
        let x = factor(ConvMethod::Bcop.into(), self.plan.convolution(), &self.convolution)?;
        let r = factor(LinearMethod::Bjorck.into(), self.plan.frame(), &self.frame)?;
        let Plan { c_out, inner, inner_stride: s, .. } = self.plan;
        let frame = |r: Tensor| r.reshape((c_out, inner, s, s));
        match (x, r) {
            (Some(x), Some(r)) => block_product(&frame(r)?, &x),
            (Some(x), None) => Ok(x),
            (None, Some(r)) => Ok(frame(r)?),
            (None, None) => unreachable!("a stride of 1 has a convolution, any other a frame"),
        }
    }

    /// Every group's kernel in its phases.
    fn phases(&self) -> Result<Vec<Tensor>> {
        let AocConfig { stride, dilation, groups, .. } = self.config;
        (0..groups).map(|group| phases(&self.of_group(group)?, stride, dilation)).collect()
    }

    /// One operation on each group of channels, its kernel and its part of the bias.
    fn by_group(
        &self,
        x: &Tensor,
        channels: usize,
        bias: Option<&Tensor>,
        operation: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let groups = self.config.groups;
        let (_, found, ..) = x.dims4()?;
        if found != channels * groups {
            let (what, got) = (format!("input of {}", self.name), x.dims().to_vec());
            let mut expected = got.clone();
            expected[1] = channels * groups;
            return Err(Error::ShapeMismatch { what, expected, got });
        }
        let kernels = self.phases()?.into_iter().enumerate();
        let outputs = kernels.map(|(group, kernel)| {
            let x = x.narrow(1, group * channels, channels)?.contiguous()?;
            let part = |bias: &Tensor| {
                let n = bias.elem_count() / groups;
                bias.narrow(0, group * n, n)
            };
            operation(&x, &kernel, bias.map(part).transpose()?.as_ref())
        });
        Ok(Tensor::cat(&outputs.collect::<Result<Vec<_>>>()?, 1)?)
    }
}

/// Σ R[b] X[a] at a + b: the kernel of R after X.
fn block_product(r: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (c_out, inner, s, _) = r.dims4()?;
    let (_, c_in, m, _) = x.dims4()?;
    let taps = r.permute((2, 3, 0, 1))?.contiguous()?.reshape((s * s * c_out, inner))?;
    let products = taps.matmul(&x.contiguous()?.reshape((inner, c_in * m * m))?)?;
    let products = products.reshape(&[s * s, c_out, c_in, m, m])?;
    let placed = (0..s * s).map(|tap| {
        let (y, x) = (tap / s, tap % s);
        let rows = products.get(tap)?.pad_with_zeros(2, y, s - 1 - y)?;
        rows.pad_with_zeros(3, x, s - 1 - x)
    });
    let placed = placed.collect::<candle_core::Result<Vec<_>>>()?;
    let (first, rest) = placed.split_first().expect("a stride is at least 1");
    Ok(rest.iter().try_fold(first.clone(), |sum, part| sum + part)?)
}

/// A kernel with stride and dilation as a kernel of stride 1 on the downsampled image: c_out x c_in s² x q x q.
fn phases(kernel: &Tensor, stride: usize, dilation: usize) -> Result<Tensor> {
    let (c_out, c_in, k, _) = kernel.dims4()?;
    let span = dilation * (k - 1) + 1;
    let q = span.div_ceil(stride);
    let mut dilated = kernel.reshape(&[c_out, c_in, k, 1, k, 1])?;
    for axis in [3, 5] {
        dilated = dilated.pad_with_zeros(axis, 0, dilation - 1)?;
    }
    let mut dilated = dilated.reshape((c_out, c_in, k * dilation, k * dilation))?;
    for axis in [2, 3] {
        dilated = dilated.narrow(axis, 0, span)?.pad_with_zeros(axis, 0, q * stride - span)?;
    }
    let split = dilated.contiguous()?.reshape(&[c_out, c_in, q, stride, q, stride])?;
    let split = split.permute(vec![0, 1, 3, 5, 2, 4])?.contiguous()?;
    Ok(split.reshape((c_out, c_in * stride * stride, q, q))?)
}

/// Zeros on both sides of both spatial axes.
fn surrounded(x: &Tensor, before: usize, after: usize) -> Result<Tensor> {
    Ok(x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?.contiguous()?)
}

/// A part of both spatial axes.
fn cropped(x: &Tensor, start: usize, (height, width): (usize, usize)) -> Result<Tensor> {
    Ok(x.narrow(2, start, height)?.narrow(3, start, width)?.contiguous()?)
}

fn convolve(
    x: &Tensor,
    kernel: &Tensor,
    bias: Option<&Tensor>,
    config: &AocConfig,
) -> Result<Tensor> {
    let (stride, q) = (config.stride, kernel.dims()[2]);
    if config.padding == Padding::Cyclic {
        return ops::cyclic_conv(x, kernel, bias, stride);
    }
    let (.., height, width) = x.dims4()?;
    let (before, after) = (q / 2, (q - 1) / 2);
    let padded = surrounded(x, stride * before, stride * after)?;
    let y = ops::cyclic_conv(&padded, kernel, bias, stride)?;
    cropped(&y, before, (height / stride, width / stride))
}

/// The adjoint of [`convolve`] without its bias, and another bias.
fn convolve_back(
    y: &Tensor,
    kernel: &Tensor,
    bias: Option<&Tensor>,
    config: &AocConfig,
) -> Result<Tensor> {
    let (stride, q) = (config.stride, kernel.dims()[2]);
    let (before, after) = (q / 2, (q - 1) / 2);
    let (.., height, width) = y.dims4()?;
    let padded = match config.padding {
        Padding::Cyclic => y.clone(),
        Padding::Zeros => surrounded(y, before, after)?,
    };
    let x = ops::pixel_shuffle(&ops::cyclic_conv_adjoint(&padded, kernel)?, stride)?;
    let x = match config.padding {
        Padding::Cyclic => x,
        Padding::Zeros => cropped(&x, stride * before, (stride * height, stride * width))?,
    };
    ops::add_bias(x, bias)
}

fn bias(vb: &VarBuilder<'_>, channels: usize, config: &AocConfig) -> Result<Option<Tensor>> {
    let bound = 1.0 / (channels as f64).sqrt();
    let draw = |rng: &mut _| uniform(channels, bound, rng);
    config.bias.then(|| parameter(vb, "bias", &[channels], config.seed, draw)).transpose()
}

/// A natively strided orthogonal convolution.
#[derive(Debug, Clone)]
pub struct AocConv2d {
    kernel: Kernel,
    bias: Option<Tensor>,
}

/// A convolution from `c_in` to `c_out` channels; parameters `kernel`, `frame` and `bias`.
///
/// # Errors
/// [`Error::Zero`], [`Error::GroupsDoNotDivide`]; [`Error::NotOrthogonal`] with the reason where no kernel is orthogonal.
pub fn aoc_conv2d(
    c_in: usize,
    c_out: usize,
    kernel_size: usize,
    config: AocConfig,
    vb: VarBuilder<'_>,
) -> Result<AocConv2d> {
    let kernel = Kernel::new((c_in, c_out, kernel_size), config, &vb, "aoc-conv2d")?;
    Ok(AocConv2d { bias: bias(&vb, c_out, &config)?, kernel })
}

impl AocConv2d {
    /// The kernel, c_out x c_in/groups x k x k, differentiable in the parameters.
    ///
    /// # Errors
    /// As for [`ops::weight`].
    pub fn weight(&self) -> Result<Tensor> {
        self.kernel.weight()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &AocConfig {
        &self.kernel.config
    }
}

impl Module for AocConv2d {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let Kernel { config, plan, .. } = &self.kernel;
        let convolved = |x: &Tensor, k: &Tensor, b: Option<&Tensor>| convolve(x, k, b, config);
        Ok(self.kernel.by_group(x, plan.c_in, self.bias.as_ref(), convolved)?)
    }
}

impl Materialize for AocConv2d {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let Kernel { name, config, .. } = &self.kernel;
        if config.padding == Padding::Zeros {
            return no_plain_form(name, "its padding is zeros, and plain networks pad cyclically");
        }
        let kernels = self.kernel.phases()?;
        let rows = kernels.iter().enumerate().map(|(group, kernel)| {
            let columns = kernel.dims()[1];
            let after = (config.groups - 1 - group) * columns;
            kernel.pad_with_zeros(1, group * columns, after)
        });
        let weight = Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        plain_conv(name, input, dtype, (&weight, self.bias.as_ref()), config.stride)
    }
}

/// The adjoint of a natively strided orthogonal convolution.
#[derive(Debug, Clone)]
pub struct AocConvTranspose2d {
    kernel: Kernel,
    bias: Option<Tensor>,
}

/// A transposed convolution from `c_in` to `c_out` channels; parameters as for [`aoc_conv2d`] from `c_out` to `c_in`.
///
/// # Errors
/// As for [`aoc_conv2d`].
pub fn aoc_conv_transpose2d(
    c_in: usize,
    c_out: usize,
    kernel_size: usize,
    config: AocConfig,
    vb: VarBuilder<'_>,
) -> Result<AocConvTranspose2d> {
    let kernel = Kernel::new((c_out, c_in, kernel_size), config, &vb, "aoc-conv-transpose2d")?;
    Ok(AocConvTranspose2d { bias: bias(&vb, c_out, &config)?, kernel })
}

impl AocConvTranspose2d {
    /// The kernel of the convolution that this is the adjoint of, c_in x c_out/groups x k x k.
    ///
    /// # Errors
    /// As for [`ops::weight`].
    pub fn weight(&self) -> Result<Tensor> {
        self.kernel.weight()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &AocConfig {
        &self.kernel.config
    }
}

impl Module for AocConvTranspose2d {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let Kernel { config, plan, .. } = &self.kernel;
        let convolved = |y: &Tensor, k: &Tensor, b: Option<&Tensor>| convolve_back(y, k, b, config);
        Ok(self.kernel.by_group(x, plan.c_out, self.bias.as_ref(), convolved)?)
    }
}

impl Materialize for AocConvTranspose2d {
    fn materialize(&self, _: SignalShape, _: DType) -> Result<Vec<PlainLayer>> {
        no_plain_form(&self.kernel.name, "plain networks have no transposed convolutions")
    }
}
