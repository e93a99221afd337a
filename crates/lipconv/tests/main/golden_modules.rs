//! Modules and new methods against arrays of an independent float64 program, `golden/new_layers.py`.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;
use lipconv::nn::{
    self, AocConfig, SandwichConfig, SllConfig, SocConfig, SpectralConfig, SpectralMethod, StepRule,
};
use lipconv::{ConvMethod, LinearMethod, Method, Sizes, ops};
use ndarray_npy::NpzReader;

use crate::golden::{array_of, golden};
use crate::support::{check_close, golden_tolerance, values};

const FILE: &str = "new_layers.npz";

/// The arrays of the file, and which of them were looked at.
#[derive(Default)]
struct Arrays {
    used: RefCell<BTreeSet<String>>,
}

impl Arrays {
    fn get(&self, name: &str, dtype: DType) -> Tensor {
        self.used.borrow_mut().insert(name.to_owned());
        array_of(FILE, name, dtype)
    }

    /// A builder that holds the arrays of a prefix under the names of parameters.
    fn builder(&self, prefix: &str, names: &[&str], dtype: DType) -> VarBuilder<'static> {
        let tensors = names
            .iter()
            .map(|name| ((*name).to_owned(), self.get(&format!("{prefix}_{name}"), dtype)));
        VarBuilder::from_tensors(tensors.collect::<HashMap<_, _>>(), dtype, &Device::Cpu)
    }

    fn check(&self, module: &dyn Module, input: &str, output: &str, dtype: DType) {
        let (x, expected) = (self.get(input, dtype), self.get(output, dtype));
        let y = module.forward(&x).unwrap();
        let scale = values(&expected).iter().fold(1.0_f64, |m, v| m.max(v.abs()));
        // condition numbers of random square parameters cost up to three digits in f32
        let condition = if dtype == DType::F32 { 64.0 } else { 1.0 };
        let tolerance = golden_tolerance(dtype, 256) * scale * condition;
        check_close(&format!("{output} {dtype:?}"), &y, &expected, tolerance);
    }
}

fn check_weights(arrays: &Arrays, dtype: DType) {
    let check = |name: &str, method: Method, sizes: &Sizes| {
        let parameter = arrays.get(&format!("{name}_parameter"), dtype);
        let expected = arrays.get(&format!("{name}_weight"), dtype);
        let tolerance = golden_tolerance(dtype, 1024);
        let weight = ops::weight(method, sizes, &parameter, None).unwrap().weight;
        check_close(&format!("{name} {dtype:?}"), &weight, &expected, tolerance);
        let weight = ops::portable::weight(method, sizes, &parameter, None).unwrap().weight;
        check_close(&format!("{name} {dtype:?} portable"), &weight, &expected, 16.0 * tolerance);
    };
    for (name, c_out, c_in, kernel) in [("aol_tall", 5, 3, 3), ("aol_wide", 3, 4, 2)] {
        let sizes = Sizes::conv(c_out, c_in, kernel, (kernel, kernel));
        check(name, ConvMethod::Aol.into(), &sizes);
    }
    for (name, n_out, n_in) in [("bro_square", 6, 6), ("bro_tall", 7, 4), ("bro_wide", 3, 8)] {
        check(name, LinearMethod::Bro.into(), &Sizes::dense(n_out, n_in));
    }
}

fn check_aoc(arrays: &Arrays, dtype: DType) {
    for (case, c_in, c_out, kernel, stride, dilation, both) in [
        ("strided", 3, 5, 4, 2, 1, true),
        ("expanding", 2, 9, 3, 2, 1, true),
        ("dilated", 3, 4, 3, 2, 3, true),
        ("coarse", 2, 6, 2, 2, 1, false),
    ] {
        let names: &[&str] = if both { &["kernel", "frame"] } else { &["frame"] };
        let vb = arrays.builder(&format!("aoc_{case}"), names, dtype);
        let config = AocConfig { stride, dilation, bias: false, ..Default::default() };
        let module = nn::aoc_conv2d(c_in, c_out, kernel, config, vb).unwrap();
        let (input, output) = (format!("aoc_{case}_input"), format!("aoc_{case}_output"));
        arrays.check(&module, &input, &output, dtype);
    }
}

fn check_modules(arrays: &Arrays, dtype: DType) {
    for (case, c_in, c_out, kernel) in [("square", 3, 3, 3), ("tall", 2, 5, 2), ("wide", 4, 2, 3)] {
        let input = format!("{case}_input");
        let spectral = |method, vb| {
            let config = SpectralConfig { method, bias: false, ..Default::default() };
            nn::spectral_conv2d(c_in, c_out, kernel, config, vb).unwrap()
        };
        let vb = arrays.builder(&format!("cayley_{case}"), &["weight", "alpha"], dtype);
        let cayley = spectral(SpectralMethod::Cayley, vb.clone());
        arrays.check(&cayley, &input, &format!("cayley_{case}_output"), dtype);
        // the same kernel
        let lot = spectral(SpectralMethod::Lot, vb);
        arrays.check(&lot, &input, &format!("lot_{case}_output"), dtype);
        let vb = arrays.builder(&format!("bro_conv_{case}"), &["weight"], dtype);
        let bro = spectral(SpectralMethod::Bro, vb);
        arrays.check(&bro, &input, &format!("bro_conv_{case}_output"), dtype);
        let vb = arrays.builder(&format!("soc_{case}"), &["weight"], dtype);
        let config = SocConfig { terms: 6, bias: false, ..Default::default() };
        let soc = nn::soc_conv2d(c_in, c_out, 3, config, vb).unwrap();
        arrays.check(&soc, &input, &format!("soc_{case}_output"), dtype);
        let vb = arrays.builder(&format!("sll_{case}"), &["weight", "q", "bias"], dtype);
        for (rule, name) in [(StepRule::Sll, "sll"), (StepRule::Cpl, "cpl")] {
            let config = SllConfig { hidden: 5, rule, seed: 0 };
            let layer = nn::sll(c_in, kernel, config, vb.clone()).unwrap();
            arrays.check(&layer, &input, &format!("{name}_{case}_output"), dtype);
        }
        let names = ["weight", "alpha", "bias"];
        let vb = arrays.builder(&format!("sandwich_{case}"), &names, dtype);
        let layer = nn::sandwich(c_in, c_out, kernel, SandwichConfig::default(), vb).unwrap();
        arrays.check(&layer, &input, &format!("sandwich_{case}_output"), dtype);
    }
}

#[test]
fn layers_match_an_independent_program() {
    let arrays = Arrays::default();
    for dtype in [DType::F64, DType::F32] {
        check_weights(&arrays, dtype);
        check_aoc(&arrays, dtype);
        check_modules(&arrays, dtype);
    }
    let mut file = NpzReader::new(std::fs::File::open(golden(FILE)).unwrap()).unwrap();
    let names = file.names().unwrap();
    let names = names.iter().map(|name| name.trim_end_matches(".npy").to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), *arrays.used.borrow(), "every array is looked at");
}
