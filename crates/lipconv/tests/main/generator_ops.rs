//! Transposed convolution and batch normalisation against candle's own, values and gradients.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{BatchNorm, ModuleT};
use lipconv::Error;
use lipconv::ops::{self, portable};

use crate::support::{check_close, sum_tolerance, uniform};

/// Result and gradients in all arguments, for a random cotangent.
fn evaluate(arguments: &[Tensor], f: &dyn Fn(&[Tensor]) -> Tensor) -> Vec<Tensor> {
    let variables: Vec<Var> = arguments.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors);
    let cotangent = uniform(y.dims(), -1.0, 1.0, y.dtype(), 77).to_device(y.device()).unwrap();
    let gradients = (&y * cotangent).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = |t: &Tensor| gradients.get(t).unwrap().clone();
    [y.detach()].into_iter().chain(tensors.iter().map(gradient)).collect()
}

#[track_caller]
fn check_same(what: &str, got: &[Tensor], expected: &[Tensor], n_terms: usize) {
    for (part, (got, expected)) in got.iter().zip(expected).enumerate() {
        let got = got.to_device(&Device::Cpu).unwrap();
        let largest = expected.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap();
        let scale = largest.to_scalar::<f64>().unwrap();
        let allowed = sum_tolerance(expected.dtype(), n_terms, scale);
        check_close(&format!("{what}, part {part}"), &got, expected, allowed);
    }
}

/// Batch, c_in, c_out, height, width.
const SHAPES: [[usize; 5]; 7] = [
    [1, 1, 1, 1, 1],
    [2, 1, 3, 1, 4],
    [3, 4, 2, 3, 2],
    [1, 5, 7, 4, 4],
    [9, 2, 3, 5, 3],
    [17, 32, 16, 8, 8],
    [5, 16, 3, 16, 16],
];

#[test]
fn conv_transpose_equals_that_of_candle() {
    for [batch, c_in, c_out, h, w] in SHAPES {
        for dtype in [DType::F64, DType::F32] {
            let case = format!("{batch} x {c_in} -> {c_out}, {h} x {w}, {dtype:?}");
            let arguments = [
                uniform(&[batch, c_in, h, w], -1.0, 1.0, dtype, 1),
                uniform(&[c_in, c_out, 4, 4], -1.0, 1.0, dtype, 2),
                uniform(&[c_out], -1.0, 1.0, dtype, 3),
            ];
            let candle = |t: &[Tensor]| {
                let y = t[0].conv_transpose2d(&t[1], 1, 0, 2, 1).unwrap();
                y.broadcast_add(&t[2].reshape((1, (), 1, 1)).unwrap()).unwrap()
            };
            let expected = evaluate(&arguments, &candle);
            let n_terms = (16 * c_in).max(batch * h * w).max(16 * c_out);
            let ours = |t: &[Tensor]| ops::conv_transpose(&t[0], &t[1], Some(&t[2])).unwrap();
            check_same(&case, &evaluate(&arguments, &ours), &expected, n_terms);
            for device in &crate::portable::devices() {
                let arguments = arguments.each_ref().map(|t| t.to_device(device).unwrap());
                let portable =
                    |t: &[Tensor]| portable::conv_transpose(&t[0], &t[1], Some(&t[2])).unwrap();
                let case = format!("portable {case} on {device:?}");
                check_same(&case, &evaluate(&arguments, &portable), &expected, n_terms);
            }
        }
    }
}

#[test]
fn dense_layers_equal_candles_product() {
    for [batch, n_in, n_out] in [[1, 1, 1], [3, 5, 2], [64, 40, 70], [5, 300, 1]] {
        for dtype in [DType::F64, DType::F32] {
            // transposed: no usual layout
            let x = uniform(&[n_in, batch], -1.0, 1.0, dtype, 1).t().unwrap();
            let weight = uniform(&[n_in, n_out], -1.0, 1.0, dtype, 2).t().unwrap();
            let arguments = [x, weight, uniform(&[n_out], -1.0, 1.0, dtype, 3)];
            let candle = |t: &[Tensor]| {
                t[0].matmul(&t[1].t().unwrap()).unwrap().broadcast_add(&t[2]).unwrap()
            };
            let ours = |t: &[Tensor]| ops::dense(&t[0], &t[1], Some(&t[2])).unwrap();
            let expected = evaluate(&arguments, &candle);
            let n_terms = batch.max(n_in).max(n_out);
            let case = format!("{batch} x {n_in} -> {n_out}, {dtype:?}");
            check_same(&case, &evaluate(&arguments, &ours), &expected, n_terms);
        }
    }
}

/// Views with other strides than the usual ones, in every argument.
#[test]
fn conv_transpose_takes_any_layout() {
    let x = uniform(&[4, 3, 2, 5], -1.0, 1.0, DType::F64, 1).permute((2, 1, 3, 0)).unwrap();
    let weight = uniform(&[4, 4, 3, 2], -1.0, 1.0, DType::F64, 2).permute((2, 3, 1, 0)).unwrap();
    let copy = |t: &Tensor| t.contiguous().unwrap();
    let got = ops::conv_transpose(&x, &weight, None).unwrap();
    let expected = ops::conv_transpose(&copy(&x), &copy(&weight), None).unwrap();
    check_close("strided", &got, &expected, 0.0);
}

fn candle_norm(t: &[Tensor], epsilon: f64) -> (Tensor, Tensor, Tensor) {
    let channels = t[1].elem_count();
    let zeros = Tensor::zeros(channels, t[0].dtype(), t[0].device()).unwrap();
    // with momentum 1 the running statistics are those of the batch
    let (scale, shift) = (t[1].clone(), t[2].clone());
    let norm =
        BatchNorm::new_with_momentum(channels, zeros.clone(), zeros, scale, shift, epsilon, 1.0);
    let norm = norm.unwrap();
    let y = norm.forward_t(&t[0], true).unwrap();
    (y, norm.running_mean().clone(), norm.running_var().clone())
}

#[test]
fn batch_norm_equals_that_of_candle() {
    let shapes: [&[usize]; 6] =
        [&[2, 1], &[7, 5], &[64, 40], &[1, 3, 2, 2], &[3, 4, 5, 2], &[16, 16, 8, 8]];
    for shape in shapes {
        for dtype in [DType::F64, DType::F32] {
            let case = format!("{shape:?} {dtype:?}");
            let channels = shape[1];
            let x = (uniform(shape, -1.0, 1.0, dtype, 1) + 0.7).unwrap();
            let scale = uniform(&[channels], 0.5, 1.5, dtype, 2);
            let arguments = [x, scale, uniform(&[channels], -1.0, 1.0, dtype, 3)];
            let epsilon = 1e-2;
            let expected = evaluate(&arguments, &|t| candle_norm(t, epsilon).0);
            let (_, mean, variance) = candle_norm(&arguments, epsilon);
            let n = arguments[0].elem_count() / channels;
            let ours = |t: &[Tensor]| ops::batch_norm(&t[0], &t[1], &t[2], epsilon).unwrap();
            let got = evaluate(&arguments, &|t| ours(t).output);
            check_same(&case, &got, &expected, 64 * n);
            let stats = ours(&arguments);
            let unbiased = (stats.variance * (n as f64 / (n as f64 - 1.0))).unwrap();
            check_same(&case, &[stats.mean, unbiased], &[mean.clone(), variance.clone()], 4 * n);
            for device in &crate::portable::devices() {
                let arguments = arguments.each_ref().map(|t| t.to_device(device).unwrap());
                let portable =
                    |t: &[Tensor]| portable::batch_norm(&t[0], &t[1], &t[2], epsilon).unwrap();
                let got = evaluate(&arguments, &|t| portable(t).output);
                check_same(&format!("portable {case} on {device:?}"), &got, &expected, 64 * n);
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let says = |error: Error, text: &str| assert_eq!(error.to_string(), text);
    let x = zeros(&[2, 3, 4, 4]);
    let error = ops::conv_transpose(&x, &zeros(&[2, 3, 4, 4]), None).unwrap_err();
    let text = "weight of a transposed convolution has shape [2, 3, 4, 4], expected [3, any, 4, 4]";
    says(error, text);
    let error = ops::conv_transpose(&x, &zeros(&[3, 2, 4, 4]), Some(&zeros(&[3]))).unwrap_err();
    says(error, "bias of a transposed convolution has shape [3], expected [2]");
    let error = ops::batch_norm(&x, &zeros(&[2]), &zeros(&[3]), 1e-5).unwrap_err();
    says(error, "scale of a batch normalisation has shape [2], expected [3]");
    let error = ops::batch_norm(&zeros(&[1, 3]), &zeros(&[3]), &zeros(&[3]), 1e-5).unwrap_err();
    says(error, "values in a channel of a batch is 1, expected at least 2 to normalise them");
}
