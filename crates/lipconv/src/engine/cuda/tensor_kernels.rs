//! Convolution and MaxMin on candle's CUDA tensors, by kernels on candle's own stream: nothing waits for the device.
//!
//! A convolution is a product of candle's (cuBLAS) with the patches of the whole batch. Patches, their adjoint and the exchange of
//! channels and images are linear maps, each the other's adjoint, so that candle's graph differentiates the rest as often as wanted.

#![expect(unsafe_code, reason = "kernels, and memory that candle has not written yet")]

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, DType, Layout, Shape, Tensor,
};

use super::backend::{Launch, arguments};
use super::hardware::compile;
use crate::error::Result;
use crate::kernels::conv::ConvGeometry;
use crate::shape::ImageShape;

/// Most values of a tensor: the kernels count them in 31 bits.
const MOST_VALUES: usize = (1 << 31) - 1;

fn runs_here(x: &Tensor, n_values: usize) -> bool {
    x.device().is_cuda() && x.dtype() == DType::F32 && (1..=MOST_VALUES).contains(&n_values)
}

/// The convolution of b x c x H x W without its bias, differentiable in both arguments; `None` where the kernels do not take it.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle).
pub(crate) fn cyclic_conv(
    x: &Tensor,
    weight: &Tensor,
    geometry: ConvGeometry,
) -> Result<Option<Tensor>> {
    let ConvGeometry { input, downsample, kernel, c_out } = geometry;
    let output = geometry.output();
    let (batch, plane) = (x.dims()[0], output.height * output.width);
    let (rows, columns) = (geometry.n_terms(), batch * plane);
    let most = rows.saturating_mul(columns).max(c_out.saturating_mul(columns));
    if !runs_here(x, most) || weight.dtype() != DType::F32 {
        return Ok(None);
    }
    let ImageShape { channels, height, width } = output;
    let shape = [height, width, input.channels, downsample, kernel, 0]
        .map(|n| u32::try_from(n).expect("a size below 2^31"));
    let sizes = arguments![columns, &shape[..]];
    let image = Side { kernel: "fold", arguments: sizes.clone(), shape: x.shape().clone() };
    let patches = Side { kernel: "unfold", arguments: sizes, shape: (rows, columns).into() };
    let patches = x.contiguous()?.apply_op1(LinearMap { from: image, to: patches })?;
    let y = weight.reshape((c_out, rows))?.matmul(&patches)?;
    let by_channels = Side {
        kernel: "exchange_axes",
        arguments: arguments![batch, c_out, plane],
        shape: y.shape().clone(),
    };
    let by_images = Side {
        kernel: "exchange_axes",
        arguments: arguments![c_out, batch, plane],
        shape: (batch, channels, height, width).into(),
    };
    Ok(Some(y.apply_op1(LinearMap { from: by_channels, to: by_images })?))
}

/// MaxMin of b x c x …, c even; `None` where the kernels do not take it.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle).
pub(crate) fn max_min(x: &Tensor) -> Result<Option<Tensor>> {
    if !runs_here(x, x.elem_count()) {
        return Ok(None);
    }
    Ok(Some(x.contiguous()?.apply_op1(MaxMin)?))
}

/// Runs a kernel with the arguments `inputs…, result, arguments…` over `n` values; the result has `shape`.
fn run(
    kernel: &'static str,
    inputs: &[(&CudaStorage, &Layout)],
    arguments: Vec<Vec<u64>>,
    (n, shape): (usize, &Shape),
) -> candle_core::Result<CudaStorage> {
    let device: &CudaDevice = &inputs[0].0.device;
    let (major, minor) = device.cuda_stream().context().compute_capability().w()?;
    let ptx = compile(&format!("compute_{major}{minor}"))?;
    let function = device.get_or_load_custom_func(kernel, "lipconv", &ptx)?;
    let views = inputs.iter().map(|(storage, layout)| {
        Ok(storage.as_cuda_slice::<f32>()?.slice(layout.start_offset()..))
    });
    let views = views.collect::<candle_core::Result<Vec<_>>>()?;
    // SAFETY: the kernel writes all of it
    let mut result = unsafe { device.alloc::<f32>(shape.elem_count()) }?;
    let launch = Launch::each(kernel, 0, n, arguments);
    let mut builder = function.builder();
    for view in &views {
        builder.arg(view);
    }
    builder.arg(&mut result);
    for words in &launch.arguments {
        // the driver copies as many bytes as the kernel declares, from the first word on
        builder.arg(&words[0]);
    }
    let [x, y, z] = launch.grid;
    let grid = LaunchConfig {
        grid_dim: (x, y, z),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: the arguments are those that the kernel declares, of sizes that the callers checked
    unsafe { builder.launch(grid) }.w()?;
    drop(builder);
    Ok(CudaStorage::wrap_cuda_slice(result, device.clone()))
}

pub(super) fn not_on_the_cpu<T>(name: &str) -> candle_core::Result<T> {
    candle_core::bail!("{name} of a CUDA device was handed a tensor of the CPU")
}

/// One side of a linear map: the kernel that makes it from the other side, and its shape.
#[derive(Debug, Clone)]
struct Side {
    kernel: &'static str,
    arguments: Vec<Vec<u64>>,
    shape: Shape,
}

/// A linear map of contiguous tensors whose adjoint is a kernel too.
#[derive(Debug, Clone)]
struct LinearMap {
    from: Side,
    to: Side,
}

impl CustomOp1 for LinearMap {
    fn name(&self) -> &'static str {
        self.to.kernel
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        not_on_the_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let Side { kernel, arguments, shape } = &self.to;
        let y = run(kernel, &[(x, layout)], arguments.clone(), (shape.elem_count(), shape))?;
        Ok((y, shape.clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let adjoint = Self { from: self.to.clone(), to: self.from.clone() };
        gradient.contiguous()?.apply_op1(adjoint).map(Some)
    }
}

/// Signals, and half of the values of each.
fn halves(shape: &Shape) -> [usize; 2] {
    let signals = shape.dims()[0];
    [signals, shape.elem_count() / (2 * signals)]
}

struct MaxMin;

impl CustomOp1 for MaxMin {
    fn name(&self) -> &'static str {
        "max-min"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        not_on_the_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (shape, [signals, half]) = (layout.shape(), halves(layout.shape()));
        let sizes = arguments![signals, half];
        let y = run("max_min", &[(x, layout)], sizes, (signals * half, shape))?;
        Ok((y, shape.clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        x.detach().apply_op2_no_bwd(&gradient.contiguous()?, &MaxMinGradient).map(Some)
    }
}

/// The gradient of MaxMin from its argument and the gradient of its value.
struct MaxMinGradient;

impl CustomOp2 for MaxMinGradient {
    fn name(&self) -> &'static str {
        "max-min-gradient"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        not_on_the_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        gradient: &CudaStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (shape, [signals, half]) = (layout.shape(), halves(layout.shape()));
        let inputs = [(x, layout), (gradient, gradient_layout)];
        let dx =
            run("max_min_gradient", &inputs, arguments![signals, half], (signals * half, shape))?;
        Ok((dx, shape.clone()))
    }
}
