//! Convolutions, matrix products, pooling and batch normalisation.

use candle_core::{Device, Tensor};
use lipconv::{Boundary, PaddedConv, Window, ops};

use super::Importer;
use super::call::Call;
use crate::draft::Piece;
use crate::error::Result;
use crate::movement::{check_size, n_values};
use crate::value::{Constant, Element, Value, View};

/// Strides, dilation, groups and padding of a node.
struct Settings {
    stride: [usize; 2],
    dilation: [usize; 2],
    before: [usize; 2],
    after: [usize; 2],
}

/// An image that is read with padding.
struct Source {
    signal: usize,
    image: [usize; 3],
    before: [usize; 2],
    after: [usize; 2],
    boundary: Boundary,
}

impl<'a> Importer<'a> {
    pub(super) fn conv(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let weight = call.constant(1)?;
        let &[c_out, c_in, kh, kw] = &weight.dims[..] else {
            return call.refused(format!("the weight has sizes {:?}, expected 4", weight.dims));
        };
        let bias = match call.inputs.get(2).cloned().flatten() {
            None => None,
            Some(_) => Some(call.constant(2)?),
        };
        let groups = count(call, "group", 1)?;
        let settings = settings(call, [kh, kw])?;
        if let Value::Floats(input) = call.input(0)? {
            return self.constant_conv(call, &input, &weight, &settings, groups);
        }
        let source = self.source(call, &call.view(0)?)?;
        let pads = settings.before.iter().chain(&settings.after).any(|p| *p > 0);
        if source.boundary == Boundary::Cyclic && pads {
            return call.refused("it pads with zeros what was padded cyclically");
        }
        let sum = |a: [usize; 2], b: [usize; 2]| [a[0] + b[0], a[1] + b[1]];
        let window = Window {
            stride: settings.stride,
            before: sum(source.before, settings.before),
            after: sum(source.after, settings.after),
            dilation: settings.dilation,
            groups,
            boundary: source.boundary,
        };
        let bias =
            bias.map(|bias| bias.values.to_vec()).filter(|bias| bias.iter().any(|b| *b != 0.0));
        let dims = [c_out, c_in, kh, kw];
        self.windowed(
            call,
            source.signal,
            source.image,
            (weight.values.to_vec(), dims, bias),
            window,
        )
    }

    /// A convolution of an image, its output's sizes by the layer itself.
    fn windowed(
        &mut self,
        call: &Call<'a, '_>,
        signal: usize,
        image: [usize; 3],
        (weight, dims, bias): (Vec<f64>, [usize; 4], Option<Vec<f64>>),
        window: Window,
    ) -> Result<Vec<Value>> {
        if bias.as_ref().is_some_and(|bias| bias.len() != dims[0]) {
            return call.refused("the bias has another length than the outputs");
        }
        let tensor = Tensor::from_slice(&weight, &dims, &Device::Cpu)?;
        let layer = lipconv::PlainLayer::PaddedConv(PaddedConv::new(tensor, None, window)?);
        let [c, h, w] = image;
        let shape = lipconv::SignalShape::Image(lipconv::ImageShape::new(c, h, w));
        let output = match layer.output_shape(shape, &call.title())? {
            lipconv::SignalShape::Image(image) => vec![image.channels, image.height, image.width],
            lipconv::SignalShape::Vector(n) => vec![n],
        };
        let piece = Piece::Conv { weight, dims, bias, window };
        let signal = self.draft.push(signal, piece, output.clone());
        Ok(vec![Value::Signal(View { signal, dims: output, map: None })])
    }

    /// A convolution of weights, which some exporters leave to be done.
    fn constant_conv(
        &mut self,
        call: &Call<'a, '_>,
        input: &Constant,
        weight: &Constant,
        settings: &Settings,
        groups: usize,
    ) -> Result<Vec<Value>> {
        const MOST_PRODUCTS: usize = 1 << 30;
        if input.dims.len() != 4 || call.inputs.len() > 2 {
            return call.refused("a convolution of constants has a bias or not four sizes");
        }
        let mut padded = input.dims.clone();
        for axis in [0, 1] {
            padded[2 + axis] += settings.before[axis] + settings.after[axis];
        }
        check_size(&call.title(), &padded)?;
        let work = n_values(&padded).saturating_mul(n_values(&weight.dims));
        if work > MOST_PRODUCTS {
            return call.refused("a convolution of constants is too large");
        }
        let tensor = |c: &Constant| Tensor::from_slice(&c.values[..], &c.dims[..], &Device::Cpu);
        let Settings { stride, dilation, before, after } = *settings;
        let window = Window { stride, before, after, dilation, groups, boundary: Boundary::Zeros };
        let conv = PaddedConv::new(tensor(weight)?, None, window)?;
        let output = ops::padded_conv(&tensor(input)?, &conv)?;
        let values = output.flatten_all()?.to_vec1::<f64>()?;
        Ok(vec![Value::Floats(Constant::new(output.dims().to_vec(), values))])
    }

    /// The image behind a view, and the padding that the view adds.
    fn source(&self, call: &Call<'a, '_>, view: &View) -> Result<Source> {
        let (&[c, h, w], &[channels, height, width]) =
            (self.draft.shape(view.signal), &view.dims[..])
        else {
            return call.refused(format!("its input has sizes {:?}, expected an image", view.dims));
        };
        let image = [c, h, w];
        let mut source = Source {
            signal: view.signal,
            image,
            before: [0; 2],
            after: [0; 2],
            boundary: Boundary::Zeros,
        };
        if view.map.is_none() && view.dims == image {
            return Ok(source);
        }
        let refused = "its input is a rearrangement of values that is no padding of an image";
        if channels != c || height < h || width < w {
            return call.refused(refused);
        }
        let first = (0..height * width).find_map(|place| match view.element(place) {
            Element::At(at) => Some((place, at as usize)),
            _ => None,
        });
        let Some((place, at)) = first else { return call.refused(refused) };
        let zeros = [place / width, place % width];
        let cyclic = [(h - at / w % h) % h, (w - at % w) % w];
        for (boundary, before) in [(Boundary::Zeros, zeros), (Boundary::Cyclic, cyclic)] {
            let fits = before[0] + h <= height && before[1] + w <= width;
            if fits && is_padding(view, image, before, boundary) {
                source.after = [height - h - before[0], width - w - before[1]];
                (source.before, source.boundary) = (before, boundary);
                return Ok(source);
            }
        }
        call.refused(refused)
    }

    pub(super) fn gemm(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
        call.must_be("transA", 0)?;
        let transposed = call.int("transB", 0)? != 0;
        let view = call.view(0)?;
        let weight = call.constant(1)?;
        let bias = match call.inputs.get(2).cloned().flatten() {
            None => None,
            Some(_) => Some(call.constant(2)?),
        };
        self.product(call, &view, &weight, transposed, (alpha, beta, bias))
    }

    pub(super) fn matmul(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let (view, weight) = (call.view(0)?, call.constant(1)?);
        self.product(call, &view, &weight, false, (1.0, 1.0, None))
    }

    fn product(
        &mut self,
        call: &Call<'a, '_>,
        view: &View,
        weight: &Constant,
        transposed: bool,
        (alpha, beta, bias): (f64, f64, Option<Constant>),
    ) -> Result<Vec<Value>> {
        let (&[rows, columns], &[n]) = (&weight.dims[..], &view.dims[..]) else {
            let (a, b) = (&view.dims, &weight.dims);
            return call
                .refused(format!("a product of {a:?} and {b:?}, expected a vector and a matrix"));
        };
        let (n_in, n_out) = if transposed { (columns, rows) } else { (rows, columns) };
        if n_in != n || n_in == 0 || n_out == 0 {
            return call.refused(format!("the matrix takes {n_in} values, the signal has {n}"));
        }
        let entry = |at: usize| {
            let (o, i) = (at / n_in, at % n_in);
            alpha * weight.values[if transposed { o * n_in + i } else { i * n_out + o }]
        };
        let values = (0..n_in * n_out).map(entry).collect();
        let bias = match bias {
            None => None,
            Some(bias) if is_of_outputs(&bias.dims, n_out) => {
                let value = |o: usize| beta * bias.values[o % bias.values.len()];
                Some((0..n_out).map(value).collect::<Vec<f64>>())
            }
            Some(bias) => return call.refused(format!("the bias has sizes {:?}", bias.dims)),
        };
        let bias = bias.filter(|bias| bias.iter().any(|b| *b != 0.0));
        let signal = self.whole(&call.title(), view)?;
        let signal = self.draft.flat(signal);
        let signal =
            self.draft.push(signal, Piece::Dense { weight: values, n_out, bias }, vec![n_out]);
        Ok(vec![Value::Signal(View { signal, dims: vec![n_out], map: None })])
    }

    pub(super) fn batch_norm(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let epsilon = call.float("epsilon", 1e-5)?;
        call.float("momentum", 0.9)?;
        call.must_be("training_mode", 0)?;
        call.must_be("spatial", 1)?;
        // before operator set 14 the running statistics as outputs mean training
        if call.node.outputs.iter().skip(1).any(|output| !output.is_empty()) {
            return call.refused("it normalises by the statistics of a batch, expected inference");
        }
        let view = call.view(0)?;
        let [gain, offset, mean, variance] = [1, 2, 3, 4].map(|idx| call.constant(idx));
        let (gain, offset, mean, variance) = (gain?, offset?, mean?, variance?);
        let n = gain.values.len();
        if [&offset, &mean, &variance].iter().any(|c| c.values.len() != n) {
            return call.refused("its parameters have different lengths");
        }
        if variance.values.iter().any(|v| *v + epsilon <= 0.0) {
            return call.refused("a variance is not positive");
        }
        let scale: Vec<f64> = gain
            .values
            .iter()
            .zip(variance.values.iter())
            .map(|(g, v)| g / (v + epsilon).sqrt())
            .collect();
        let shift = offset.values.iter().zip(mean.values.iter()).zip(&scale);
        let shift = shift.map(|((b, m), s)| b - m * s).collect();
        self.scaled(call, &view, (scale, shift))
    }

    pub(super) fn average_pool(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let Some(kernel) = call.ints("kernel_shape")? else {
            return call.refused("it has no kernel_shape");
        };
        let &[kh, kw] = &kernel[..] else { return call.refused("it has not two axes") };
        let kernel = [size(call, kh)?, size(call, kw)?];
        call.must_be("ceil_mode", 0)?;
        let counts_padding = call.int("count_include_pad", 0)? != 0;
        let settings = settings(call, kernel)?;
        let pads = settings.before.iter().chain(&settings.after).any(|p| *p > 0);
        if pads && !counts_padding {
            return call.refused("it averages over what is inside, expected count_include_pad = 1");
        }
        let source = self.source(call, &call.view(0)?)?;
        self.average(call, &source, kernel, settings)
    }

    pub(super) fn global_average_pool(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let source = self.source(call, &call.view(0)?)?;
        let kernel = [source.image[1], source.image[2]];
        self.average(call, &source, kernel, Settings { stride: kernel, ..Settings::plain() })
    }

    pub(super) fn reduce_mean(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        let keeps = call.int("keepdims", 1)? != 0;
        call.must_be("noop_with_empty_axes", 0)?;
        let axes = call.integers_or(1, "axes")?.unwrap_or_default();
        let mut axes = axes.iter().map(|&axis| call.axis(axis, 4)).collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        if axes != [2, 3] {
            return call
                .refused(format!("it averages over the axes {axes:?}, expected height and width"));
        }
        let mut values = self.global_average_pool(call)?;
        if let (false, Some(Value::Signal(view))) = (keeps, values.first_mut()) {
            view.dims.truncate(1);
        }
        Ok(values)
    }

    /// The mean of windows of one channel.
    fn average(
        &mut self,
        call: &Call<'a, '_>,
        source: &Source,
        kernel: [usize; 2],
        settings: Settings,
    ) -> Result<Vec<Value>> {
        if source.before.iter().chain(&source.after).any(|p| *p > 0) {
            return call.refused("its input is padded by another node");
        }
        let (channels, area) = (source.image[0], kernel[0] * kernel[1]);
        if area == 0 || channels.saturating_mul(area) > 1 << 22 {
            return call.refused(format!("windows of {kernel:?} on {channels} channels"));
        }
        let Settings { stride, dilation, before, after } = settings;
        let boundary = Boundary::Zeros;
        let window = Window { stride, before, after, dilation, groups: channels, boundary };
        let weight = vec![1.0 / area as f64; channels * area];
        let dims = [channels, 1, kernel[0], kernel[1]];
        self.windowed(call, source.signal, source.image, (weight, dims, None), window)
    }
}

/// Whether a bias of these sizes is one number for each output, or one for all, and the same for every image.
fn is_of_outputs(dims: &[usize], n_out: usize) -> bool {
    match *dims {
        [] | [1] | [1, 1] => true,
        [n] | [1, n] => n == n_out,
        _ => false,
    }
}

/// Whether a view is an image with so much before it, and the rest after it.
fn is_padding(view: &View, [c, h, w]: [usize; 3], before: [usize; 2], boundary: Boundary) -> bool {
    let (height, width) = (view.dims[1], view.dims[2]);
    let read = |at: usize, before: usize, size: usize| match boundary {
        Boundary::Cyclic => Some((at + before.div_ceil(size) * size - before) % size),
        Boundary::Zeros => at.checked_sub(before).filter(|at| *at < size),
    };
    (0..c * height * width).all(|place| {
        let (channel, y, x) = (place / (height * width), place / width % height, place % width);
        let expected = match (read(y, before[0], h), read(x, before[1], w)) {
            (Some(row), Some(column)) => Element::At(((channel * h + row) * w + column) as u32),
            _ => Element::Zero,
        };
        view.element(place) == expected
    })
}

impl Settings {
    fn plain() -> Self {
        Self { stride: [1; 2], dilation: [1; 2], before: [0; 2], after: [0; 2] }
    }
}

fn size(call: &Call<'_, '_>, value: i64) -> Result<usize> {
    match usize::try_from(value) {
        Ok(size) if size <= 1 << 20 => Ok(size),
        _ => call.refused(format!("a size is {value}, expected 0 to 2^20")),
    }
}

fn count(call: &mut Call<'_, '_>, name: &str, default: i64) -> Result<usize> {
    let value = call.int(name, default)?;
    size(call, value)
}

fn settings(call: &mut Call<'_, '_>, kernel: [usize; 2]) -> Result<Settings> {
    let mut settings = Settings::plain();
    let auto = call.text("auto_pad")?.unwrap_or("NOTSET");
    if !matches!(auto, "NOTSET" | "VALID") {
        return call.refused(format!("auto_pad is {}, expected NOTSET", auto.escape_debug()));
    }
    if let Some(shape) = call.ints("kernel_shape")?
        && shape != [kernel[0] as i64, kernel[1] as i64]
    {
        return call.refused(format!("kernel_shape is {shape:?}, the weight has {kernel:?}"));
    }
    for name in ["strides", "dilations"] {
        if let Some(values) = call.ints(name)? {
            let &[y, x] = &values[..] else {
                return call.refused(format!("{name} has not two values"));
            };
            let pair = [size(call, y)?, size(call, x)?];
            *(if name == "strides" { &mut settings.stride } else { &mut settings.dilation }) = pair;
        }
    }
    if let Some(values) = call.ints("pads")? {
        let &[top, left, bottom, right] = &values[..] else {
            return call.refused("pads has not four values");
        };
        settings.before = [size(call, top)?, size(call, left)?];
        settings.after = [size(call, bottom)?, size(call, right)?];
        if auto == "VALID" && values.iter().any(|pad| *pad != 0) {
            return call.refused(format!(
                "auto_pad is VALID and pads are {values:?}, expected one of them"
            ));
        }
    }
    Ok(settings)
}
