//! Cyclic convolution as a tensor operation.

use candle_core::{CpuStorage, Shape, Tensor};

use crate::cpu_op::{Input, cpu_op};
use crate::element::{Element, cpu_slice, engine_runs, to_vec};
use crate::engine::cpu::program::Program;
use crate::engine::cpu::spatial::{self, SpatialBuffers};
use crate::error::Result;
use crate::kernels::conv::ConvGeometry;
use crate::ops::portable::{adjoint_weight, turned};
use crate::plain::{CyclicConv, PlainLayer};
use crate::shape::{ImageShape, SignalShape};

/// `W ⋆ pad(unshuffle(x)) + β`: invertible downsampling by `downsample` (1: none), cyclic padding of k/2
/// before and (k-1)/2 after on both axes, cross-correlation with the OIHW `weight`.
///
/// Shapes: x b x c x H x W, weight c_out x c·s² x k x k, result b x c_out x H/s x W/s. Differentiable in all
/// three arguments.
///
/// # Errors
/// The shape errors of [`PlainLayer::output_shape`]; [`Error::Candle`](crate::Error::Candle) when element
/// types or devices differ.
pub fn cyclic_conv(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    downsample: usize,
) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    let input = ImageShape::new(channels, height, width);
    // the layer type knows all the checks
    let layer = PlainLayer::CyclicConv(CyclicConv::new(weight.clone(), bias.cloned(), downsample)?);
    layer.output_shape(SignalShape::Image(input), "cyclic_conv")?;
    if x.device().is_cpu() && engine_runs(x.dtype()) && x.dtype() == weight.dtype() {
        let bias = match bias {
            Some(bias) => bias.contiguous()?,
            None => Tensor::zeros(weight.dims()[0], x.dtype(), x.device())?,
        };
        let op = CyclicConvOp { downsample };
        return Ok(x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, op)?);
    }
    #[cfg(feature = "cuda")]
    {
        let geometry = CyclicConvOp { downsample }.geometry(x.shape(), weight.shape())?;
        let y = crate::engine::cuda::tensor_kernels::cyclic_conv(x, weight, geometry)?;
        if let Some(y) = y {
            return crate::ops::add_bias(y, bias);
        }
    }
    super::portable::cyclic_conv(x, weight, bias, downsample)
}

/// The adjoint of [`cyclic_conv`] without downsampling: <W ⋆ pad(x), y> = <x, Wᵗ y>.
///
/// Shapes: y b x c_out x H x W, weight c_out x c_in x k x k, result b x c_in x H x W. Differentiable in both arguments.
///
/// # Errors
/// As [`cyclic_conv`].
pub fn cyclic_conv_adjoint(y: &Tensor, weight: &Tensor) -> Result<Tensor> {
    cyclic_conv(&turned(y, weight.dims4()?.3)?, &adjoint_weight(weight)?, None, 1)
}

/// The convolution on the CPU with its own adjoint.
struct CyclicConvOp {
    downsample: usize,
}

impl CyclicConvOp {
    fn geometry(&self, x: &Shape, weight: &Shape) -> Result<ConvGeometry> {
        let (_, channels, height, width) = x.dims4()?;
        let (c_out, _, kernel, _) = weight.dims4()?;
        let input = ImageShape::new(channels, height, width);
        Ok(ConvGeometry { input, downsample: self.downsample, kernel, c_out })
    }

    /// A program of this one layer.
    fn program<T: Element>(
        geometry: ConvGeometry,
        weight: &[T],
        bias: Option<&[T]>,
    ) -> Program<'static, T> {
        let mut program = Program::new(geometry.input.n_values());
        program.push_conv(geometry, weight, bias);
        program
    }

    fn forward<T: Element>(
        &self,
        [x, weight, bias]: [Input<'_>; 3],
    ) -> Result<(CpuStorage, Shape)> {
        let geometry = self.geometry(x.1.shape(), weight.1.shape())?;
        let batch = x.1.dims()[0];
        let (x, weight) = (cpu_slice::<T>(x.0, x.1)?, cpu_slice(weight.0, weight.1)?);
        let program = Self::program(geometry, weight, Some(cpu_slice(bias.0, bias.1)?));
        let mut buffers = SpatialBuffers::default();
        spatial::forward(&program, x, batch, false, &mut buffers);
        let ImageShape { channels, height, width } = geometry.output();
        let shape = Shape::from((batch, channels, height, width));
        Ok((T::to_cpu_storage_owned(buffers.features), shape))
    }

    fn backward<T: Element>(
        &self,
        [x, weight, _]: [&Tensor; 3],
        gradient: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let geometry = self.geometry(x.shape(), weight.shape())?;
        let (images, batch) = (to_vec::<T>(x)?, x.dims()[0]);
        let program = Self::program(geometry, &to_vec::<T>(weight)?, None);
        let mut buffers = SpatialBuffers::default();
        let mut d_output = to_vec::<T>(gradient)?;
        let mut gradients = Vec::new();
        spatial::backward(
            &program,
            Some(&images),
            batch,
            true,
            &mut d_output,
            &mut buffers,
            &mut gradients,
        );
        let (d_weight, d_bias) = program.convs[0].conv.gradients(&gradients);
        let device = x.device();
        Ok([
            Tensor::from_vec(buffers.image_gradient, x.shape(), device)?,
            Tensor::from_vec(d_weight, weight.shape(), device)?,
            Tensor::from_vec(d_bias, geometry.c_out, device)?,
        ])
    }
}

cpu_op!(CyclicConvOp, "cyclic-conv", 3);
