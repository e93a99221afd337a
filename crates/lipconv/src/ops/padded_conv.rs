//! A convolution with padding, stride, dilation and groups as a product with a matrix of shifted inputs.

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::ops::add_bias;
use crate::plain::PaddedConv;
use crate::shape::{ImageShape, SignalShape};

/// Values of the matrix of shifted inputs that are held at a time: 64 MiB of f32, or those of one row of one image.
const MOST_VALUES: usize = 1 << 24;

/// The layer on b x c x h x w, in candle's operations: differentiable in x, on every device.
///
/// # Errors
/// The shape errors of [`PlainLayer::output_shape`](crate::PlainLayer::output_shape); [`Error::Candle`](crate::Error::Candle) when element
/// types or devices differ.
pub fn padded_conv(x: &Tensor, conv: &PaddedConv) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let input = ImageShape::new(channels, height, width);
    let output = conv.output_image(SignalShape::Image(input), "padded_conv")?;
    if batch == 0 {
        let shape = (0, output.channels, output.height, output.width);
        return Ok(Tensor::zeros(shape, x.dtype(), x.device())?);
    }
    let [vertical, horizontal] = conv.axes(input);
    let row = [channels, vertical.n_taps, horizontal.n_taps, output.width];
    let row = row.into_iter().fold(1, usize::saturating_mul);
    let n_rows = (MOST_VALUES / row).clamp(1, output.height);
    let n_images = (MOST_VALUES / row.saturating_mul(n_rows)).clamp(1, batch);
    let images = (0..batch).step_by(n_images).map(|start| {
        let images = x.narrow(0, start, n_images.min(batch - start))?;
        // one more value a channel, 0, for what lies outside
        let images = images.flatten_from(2)?.pad_with_zeros(2, 0, 1)?.contiguous()?;
        let rows = (0..output.height).step_by(n_rows).map(|y| {
            let ys = y..(y + n_rows).min(output.height);
            let n = ys.len();
            let sources = sources(conv, input, output, ys, x.device())?;
            convolved(&images, conv, ImageShape { height: n, ..output }, &sources)
        });
        joined(&rows.collect::<Result<Vec<_>>>()?, 2)
    });
    joined(&images.collect::<Result<Vec<_>>>()?, 0)
}

fn joined(parts: &[Tensor], axis: usize) -> Result<Tensor> {
    match parts {
        [part] => Ok(part.clone()),
        parts => Ok(Tensor::cat(parts, axis)?),
    }
}

/// Some rows of the output; `pixels` is b x c x h·w + 1.
fn convolved(
    pixels: &Tensor,
    conv: &PaddedConv,
    output: ImageShape,
    sources: &Tensor,
) -> Result<Tensor> {
    let b = pixels.dims()[0];
    let (groups, weight) = (conv.window().groups, conv.weight());
    let (n_pixels, terms) = (output.n_pixels(), weight.elem_count() / weight.dims()[0]);
    let columns = pixels.index_select(sources, 2)?;
    let columns = columns.reshape((b, groups, terms, n_pixels))?;
    let weight = weight.reshape((1, groups, output.channels / groups, terms))?;
    let y = weight.broadcast_matmul(&columns)?;
    let y = y.reshape((b, output.channels, output.height, output.width))?;
    add_bias(y, conv.bias())
}

/// For every tap and output pixel of some rows the position in a channel, height·width for what is outside.
fn sources(
    conv: &PaddedConv,
    input: ImageShape,
    output: ImageShape,
    rows: Range<usize>,
    device: &Device,
) -> Result<Tensor> {
    let [vertical, horizontal] = conv.axes(input);
    let outside = input.n_pixels();
    let mut sources = Vec::new();
    for (i, j) in (0..vertical.n_taps).flat_map(|i| (0..horizontal.n_taps).map(move |j| (i, j))) {
        for y in rows.clone() {
            let row = vertical.source(y, i);
            sources.extend((0..output.width).map(|x| {
                let at = row.zip(horizontal.source(x, j));
                at.map_or(outside, |(row, column)| row * input.width + column) as u32
            }));
        }
    }
    let n = sources.len();
    Ok(Tensor::from_vec(sources, n, device)?)
}
