//! The two layers of a generator that critics do not have: transposed convolution and batch normalisation.

mod batch_norm;
mod conv_transpose;

use candle_core::{DType, Tensor};

use crate::element::engine_runs;
use crate::error::{Error, Result};

/// `Wᵀ ⋆ x + β`: transposed convolution of kernel size 4, stride 2 and padding 1, PyTorch's
/// `ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)`, which doubles both sides of an image.
///
/// Shapes: x b x c_in x h x w, weight c_in x c_out x 4 x 4, bias c_out, result b x c_out x 2h x 2w. Differentiable in all
/// three arguments. No cyclic padding: what would land outside the image is dropped.
///
/// # Errors
/// [`Error::ShapeMismatch`] when the weight or the bias does not fit; [`Error::Candle`] when element types or devices differ.
pub fn conv_transpose(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (_, c_in, ..) = x.dims4()?;
    if !matches!(weight.dims(), [c, _, 4, 4] if *c == c_in) {
        return Err(Error::ShapeMismatch {
            what: "weight of a transposed convolution".into(),
            expected: vec![c_in, 0, 4, 4],
            got: weight.dims().to_vec(),
        });
    }
    check_channels("bias of a transposed convolution", weight.dims()[1], bias)?;
    if !on_cpu(&[Some(x), Some(weight), bias]) {
        return super::portable::conv_transpose(x, weight, bias);
    }
    let bias = match bias {
        Some(bias) => bias.contiguous()?,
        None => Tensor::zeros(weight.dims()[1], x.dtype(), x.device())?,
    };
    let op = conv_transpose::ConvTransposeOp;
    Ok(x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, op)?)
}

/// What batch normalisation computes.
#[derive(Debug, Clone)]
pub struct BatchNormed {
    /// Of the shape of the input.
    pub output: Tensor,
    /// Mean of each channel, without a graph.
    pub mean: Tensor,
    /// Variance of each channel, divided by the number of values, without a graph.
    pub variance: Tensor,
}

/// `γ (x - μ) / √(σ² + ε) + β` with mean μ and variance σ² of each channel over the batch and all pixels, as PyTorch's
/// `BatchNorm1d` and `BatchNorm2d` in training.
///
/// Shapes: x b x c or b x c x h x w; scale γ and shift β c. Differentiable in x, γ and β.
///
/// # Errors
/// [`Error::ShapeMismatch`] when γ or β does not fit, [`Error::InvalidSetting`] for fewer than two values in a channel, whose
/// variance says nothing; [`Error::Candle`] when element types or devices differ.
pub fn batch_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, epsilon: f64) -> Result<BatchNormed> {
    let channels = x.dim(1)?;
    check_channels("scale of a batch normalisation", channels, Some(scale))?;
    check_channels("shift of a batch normalisation", channels, Some(shift))?;
    let n_values = x.elem_count() / channels.max(1);
    if n_values < 2 {
        let (name, expected) = ("values in a channel of a batch", "at least 2 to normalise them");
        return Err(Error::InvalidSetting { name, value: n_values.to_string(), expected });
    }
    if !on_cpu(&[Some(x), Some(scale), Some(shift)]) {
        return super::portable::batch_norm(x, scale, shift, epsilon);
    }
    let (x, scale, shift) = (x.contiguous()?, scale.contiguous()?, shift.contiguous()?);
    match x.dtype() {
        DType::F64 => batch_norm::batch_norm::<f64>(&x, &scale, &shift, epsilon),
        _ => batch_norm::batch_norm::<f32>(&x, &scale, &shift, epsilon),
    }
}

/// Whether the CPU's own kernels can take all of these tensors.
fn on_cpu(tensors: &[Option<&Tensor>]) -> bool {
    let mut tensors = tensors.iter().flatten();
    let Some(first) = tensors.next() else { return false };
    let fits = |t: &Tensor| t.device().is_cpu() && t.dtype() == first.dtype();
    fits(first) && engine_runs(first.dtype()) && tensors.all(|t| fits(t))
}

fn check_channels(what: &str, channels: usize, tensor: Option<&Tensor>) -> Result<()> {
    match tensor {
        Some(tensor) if tensor.dims() != [channels] => {
            let (expected, got) = (vec![channels], tensor.dims().to_vec());
            Err(Error::ShapeMismatch { what: what.into(), expected, got })
        }
        _ => Ok(()),
    }
}
