//! Natively strided orthogonal convolutions against their dense operators.

use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use lipconv::nn::{self, AocConfig, Materialize, Padding};
use lipconv::{ImageShape, Result, SignalShape};
use ndarray::{Array2, Array4};

use crate::support::{check_close, eps, sum_tolerance, uniform, values};

const CPU: Device = Device::Cpu;

/// c_in, c_out, kernel size, stride, groups, dilation, height and width.
type Row = (usize, usize, usize, usize, usize, usize, usize, usize);

/// c_in <, =, > c_out and c_in s² <, =, > c_out, kernels of size 1 to 6 and equal to the stride, strides to 4, groups, dilations with
/// and without a common divisor with the stride; odd, even, prime and non-square images.
const ROWS: [Row; 24] = [
    (1, 1, 1, 1, 1, 1, 1, 1),
    (2, 5, 3, 1, 1, 1, 5, 4),
    (4, 4, 2, 1, 1, 1, 7, 3),
    (5, 3, 4, 1, 1, 1, 5, 7),
    (3, 4, 3, 2, 1, 1, 6, 4),
    (3, 12, 3, 2, 1, 1, 4, 6),
    (2, 9, 3, 2, 1, 1, 4, 6),
    (2, 11, 4, 2, 1, 1, 4, 6),
    (1, 6, 2, 2, 1, 1, 4, 2),
    (3, 2, 2, 2, 1, 1, 6, 10),
    (2, 5, 5, 3, 1, 1, 9, 6),
    (1, 10, 3, 3, 1, 1, 9, 6),
    (2, 3, 6, 4, 1, 1, 8, 12),
    (4, 6, 3, 1, 2, 1, 5, 4),
    (6, 3, 3, 1, 3, 1, 5, 5),
    (4, 8, 3, 2, 2, 1, 6, 4),
    (4, 36, 4, 2, 4, 1, 4, 6),
    (2, 3, 3, 1, 1, 2, 7, 5),
    (3, 3, 2, 1, 1, 3, 4, 5),
    (3, 4, 3, 2, 1, 3, 8, 10),
    (1, 5, 3, 2, 1, 3, 8, 10),
    (2, 4, 3, 3, 2, 2, 9, 6),
    (3, 3, 2, 2, 1, 2, 6, 4),
    (1, 4, 5, 4, 1, 2, 12, 12),
];

const PADDINGS: [Padding; 2] = [Padding::Cyclic, Padding::Zeros];

fn config((.., stride, groups, dilation, _, _): Row, padding: Padding) -> AocConfig {
    AocConfig { stride, groups, dilation, padding, seed: 5, ..Default::default() }
}

fn conv(row: Row, padding: Padding, vb: VarBuilder<'_>) -> nn::AocConv2d {
    nn::aoc_conv2d(row.0, row.1, row.2, config(row, padding), vb).unwrap()
}

/// The matrix of the linear part of a module.
pub(crate) fn operator<M: Module + ?Sized>(
    module: &M,
    (channels, height, width): (usize, usize, usize),
) -> Array2<f64> {
    let n = channels * height * width;
    let basis =
        Tensor::eye(n, DType::F64, &CPU).unwrap().reshape((n, channels, height, width)).unwrap();
    let zero = module.forward(&basis.zeros_like().unwrap().narrow(0, 0, 1).unwrap()).unwrap();
    let images = module.forward(&basis).unwrap().broadcast_sub(&zero).unwrap();
    let columns = values(&images);
    let rows = columns.len() / n;
    Array2::from_shape_fn((rows, n), |(row, column)| columns[column * rows + row])
}

pub(crate) fn largest_singular_value(matrix: &Array2<f64>) -> f64 {
    let (rows, columns) = matrix.dim();
    let values = matrix.iter().copied().collect();
    let kernel = Array4::from_shape_vec((rows, columns, 1, 1), values).unwrap();
    blockconv::spectrum::layer_singular_values(kernel.view(), (1, 1)).unwrap()[0]
}

/// Largest entry of |M Mᵗ - I|, or of |Mᵗ M - I| for a tall M.
pub(crate) fn defect(matrix: &Array2<f64>) -> f64 {
    let wide = matrix.nrows() <= matrix.ncols();
    let gram = if wide { matrix.dot(&matrix.t()) } else { matrix.t().dot(matrix) };
    let entries = gram.indexed_iter().map(|((i, j), x)| (x - f64::from(u8::from(i == j))).abs());
    entries.fold(0.0, f64::max)
}

#[track_caller]
fn check_orthogonality(row: Row, padding: Padding, variables: &VarMap) {
    let (c_in, c_out, .., height, width) = row;
    let vb = VarBuilder::from_varmap(variables, DType::F64, &CPU);
    let module = conv(row, padding, vb.pp("conv"));
    let matrix = operator(&module, (c_in, height, width));
    match padding {
        Padding::Cyclic => {
            let defect = defect(&matrix);
            assert!(defect <= 1e-12, "{row:?}: {defect:e}");
        }
        Padding::Zeros => {
            let norm = largest_singular_value(&matrix);
            assert!(norm <= 1.0 + 1e-12, "{row:?}: {norm}");
        }
    }
    // the transposed convolution of the same parameters; its bias would have another length
    let config = AocConfig { bias: false, ..config(row, padding) };
    let back = nn::aoc_conv_transpose2d(c_out, c_in, row.2, config, vb.pp("conv")).unwrap();
    let small = (c_out, height / row.3, width / row.3);
    let transposed = operator(&back, small);
    let worst = (&transposed.t() - &matrix).iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    assert!(worst <= 1e-13, "{row:?} {padding:?}: adjoint off by {worst:e}");
}

#[test]
fn dense_operators_are_isometries_before_and_after_training() {
    for row in ROWS {
        for padding in PADDINGS {
            let variables = VarMap::new();
            conv(row, padding, VarBuilder::from_varmap(&variables, DType::F64, &CPU).pp("conv"));
            check_orthogonality(row, padding, &variables);
            for var in variables.all_vars() {
                for seed in 0..200 {
                    let step = uniform(var.dims(), -0.02, 0.02, DType::F64, seed);
                    var.set(&(var.as_tensor() + step).unwrap()).unwrap();
                }
            }
            check_orthogonality(row, padding, &variables);
        }
    }
}

#[test]
fn plain_forms_are_the_same_functions_with_bounds_of_one() {
    for dtype in [DType::F64, DType::F32] {
        for row in ROWS {
            let (c_in, .., height, width) = row;
            let variables = VarMap::new();
            let vb = VarBuilder::from_varmap(&variables, dtype, &CPU);
            let module = conv(row, Padding::Cyclic, vb);
            let input = SignalShape::Image(ImageShape::new(c_in, height, width));
            let [plain] = &module.materialize(input, dtype).unwrap()[..] else {
                panic!("one layer")
            };
            let bound = plain.lipschitz_bound_on(input, "layer").unwrap();
            // what the bound adds for its own rounding is below 1e-9
            let most = 1.0 + 1e-9 + 256.0 * eps(dtype) * (c_in * row.2) as f64;
            assert!(bound.rigorous().unwrap() <= most, "{row:?} {dtype:?}: {}", bound.value());
            let x = uniform(&[2, c_in, height, width], -1.0, 1.0, dtype, 3);
            let (a, b) = (module.forward(&x).unwrap(), plain.forward(&x).unwrap());
            check_close(&format!("{row:?}"), &a, &b, sum_tolerance(dtype, 256, 2.0));
        }
    }
}

/// Of `Σ d · module(x)` in every parameter and in the input.
#[test]
fn gradients_agree_with_differences() {
    for row in ROWS {
        let (c_in, c_out, .., height, width) = row;
        for (padding, transposed) in [(0, false), (1, false), (0, true), (1, true)] {
            let variables = VarMap::new();
            let vb = VarBuilder::from_varmap(&variables, DType::F64, &CPU);
            let config = config(row, PADDINGS[padding]);
            let module: Box<dyn Module> = match transposed {
                false => Box::new(nn::aoc_conv2d(c_in, c_out, row.2, config, vb).unwrap()),
                true => Box::new(nn::aoc_conv_transpose2d(c_out, c_in, row.2, config, vb).unwrap()),
            };
            let shape = match transposed {
                false => [1, c_in, height, width],
                true => [1, c_out, height / row.3, width / row.3],
            };
            let x = Var::from_tensor(&uniform(&shape, -1.0, 1.0, DType::F64, 7)).unwrap();
            let y = module.forward(x.as_tensor()).unwrap();
            let d = uniform(y.dims(), -1.0, 1.0, DType::F64, 8);
            let gradients = (y * &d).unwrap().sum_all().unwrap().backward().unwrap();
            for var in variables.all_vars().into_iter().chain([x.clone()]) {
                let gradient = gradients.get(&var).unwrap();
                let direction = uniform(var.dims(), -1.0, 1.0, DType::F64, 9);
                let start = var.as_tensor().copy().unwrap();
                let at = |t: f64| {
                    var.set(&(&start + (&direction * t).unwrap()).unwrap()).unwrap();
                    let y = module.forward(x.as_tensor()).unwrap();
                    values(&(y * &d).unwrap().sum_all().unwrap())[0]
                };
                let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
                var.set(&start).unwrap();
                let slopes = values(&direction).into_iter().zip(values(gradient));
                let derivative = slopes.map(|(a, b)| a * b).sum::<f64>();
                let allowed = 1e-6 * derivative.abs().max(1.0);
                assert!(
                    (difference - derivative).abs() <= allowed,
                    "{row:?}: {difference}, {derivative}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_orthogonal_is_refused_with_the_reason() {
    let says = |(c_in, c_out, kernel, stride, groups, dilation), text: &str| {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F64, &CPU);
        let config = AocConfig { stride, groups, dilation, ..Default::default() };
        let result: Result<_> = nn::aoc_conv2d(c_in, c_out, kernel, config, vb);
        assert_eq!(result.unwrap_err().to_string(), text);
    };
    says(
        (3, 3, 2, 3, 1, 1),
        "aoc-conv2d cannot be orthogonal: the kernel size 2 is below the stride 3, so that some pixels would not be seen",
    );
    says(
        (3, 4, 3, 2, 1, 2),
        "aoc-conv2d cannot be orthogonal: stride 2 and dilation 2 see one pixel of 2 along each axis, on which at most 3 \
         of the 4 output channels of a group can be orthogonal",
    );
    says((3, 4, 3, 1, 2, 1), "aoc-conv2d: 3 channels do not divide into groups of 2");
    says((3, 4, 3, 1, 1, 0), "aoc-conv2d: dilation is 0, expected at least 1");
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &CPU);
    let module = nn::aoc_conv2d(2, 2, 3, AocConfig::default(), vb.clone()).unwrap();
    let error =
        module.forward(&Tensor::zeros((1, 3, 4, 4), DType::F64, &CPU).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string().lines().next(),
        Some("input of aoc-conv2d has shape [1, 3, 4, 4], expected [1, 2, 4, 4]")
    );
    let zeros = AocConfig { padding: Padding::Zeros, ..Default::default() };
    let module = nn::aoc_conv2d(2, 2, 3, zeros, vb).unwrap();
    let input = SignalShape::Image(ImageShape::new(2, 4, 4));
    assert_eq!(
        module.materialize(input, DType::F64).unwrap_err().to_string(),
        "aoc-conv2d has no plain form: its padding is zeros, and plain networks pad cyclically"
    );
}

/// A layer of orthogonium: its output's shape, its smallest and its largest singular value; none where it is refused.
type Theirs = Option<([usize; 3], f64, f64)>;

/// What `golden/aoc_orthogonium.py` wrote.
#[derive(Debug, serde::Deserialize)]
struct Orthogonium {
    side: usize,
    rows: Vec<([usize; 6], Theirs)>,
}

/// Equal shapes and refusals, but for strides and dilations with a common divisor, where few channels can be orthogonal.
#[test]
fn orthogonium_agrees_on_shapes_and_refusals() {
    let text = include_str!("../golden/aoc_orthogonium.json");
    let Orthogonium { side, rows } = serde_json::from_str(text).unwrap();
    let (mut both_refuse, mut they_refuse, mut both_build) = (0, 0, 0);
    for ([c_in, c_out, kernel, stride, groups, dilation], theirs) in rows {
        let what = format!("{c_in} {c_out} {kernel} {stride} {groups} {dilation}");
        let config = AocConfig { stride, groups, dilation, bias: false, ..Default::default() };
        let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F64, &CPU);
        let ours = nn::aoc_conv2d(c_in, c_out, kernel, config, vb);
        let (Ok(ours), theirs) = (ours, theirs) else {
            assert!(theirs.is_none(), "{what}");
            both_refuse += 1;
            continue;
        };
        let matrix = operator(&ours, (c_in, side, side));
        assert_eq!(matrix.nrows(), c_out * side * side / stride / stride, "{what}");
        assert!(defect(&matrix) <= 1e-12, "{what}: {:e}", defect(&matrix));
        match theirs {
            Some((shape, smallest, largest)) => {
                assert_eq!(shape, [c_out, side / stride, side / stride], "{what}");
                // its iteration ends before matrices close to deficient rank are orthogonal
                assert!(largest <= 1.0 + 1e-5 && smallest > 0.3, "{what}");
                both_build += 1;
            }
            None => {
                assert!([2, 3].iter().any(|n| stride % n == 0 && dilation % n == 0), "{what}");
                they_refuse += 1;
            }
        }
    }
    assert_eq!((both_refuse, they_refuse, both_build), (78, 8, 199));
}
