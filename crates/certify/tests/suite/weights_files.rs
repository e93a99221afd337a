//! Weights files that are no network, lie about their sizes or say more than a reader asks for are refused.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use certify::verify::Selection;
use certify::{CertificateFile, CertificateOrigin};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::certificate_files::{case, check_begins};
use crate::common::mixed_network;

#[test]
fn weights_files_of_other_kinds_are_refused() {
    let case = case();
    let text = case.file.to_json();
    let forged = |model: &[u8]| {
        let hash = certificate_of(model);
        text.replace(&case.file.model.sha256, &hash)
    };
    let check = |model: &[u8]| {
        let refused =
            case.check_on(&forged(model), model, &case.pixels, &case.labels, Selection::All);
        refused.unwrap_err().to_string()
    };
    check_begins(
        &check(&case.model[..case.model.len() / 2]),
        "model: not a complete safetensors file",
    );
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = case.model.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut model = case.model.clone();
        model[at..at + to.len()].copy_from_slice(to.as_bytes());
        model
    };
    let refused = check(&replaced("plain-network", "other-network"));
    check_begins(&refused, "model: holds `other-network` of format 1, expected a plain network");
    let refused = check(&replaced("max-min", "maximal"));
    check_begins(&refused, "model: unreadable header: unknown variant `maximal`");
    // settings and members that no reader asks for, which leave the network as it is
    for (from, to, expected) in [
        (
            r#"{\"type\":\"relu\"}"#,
            r#"{\"type\":\"relu\",\"group\":2}"#,
            "unreadable header: unknown field `group`",
        ),
        (r#""{\"kind\""#, r#""{\"note\":1,\"kind\""#, "unreadable header: unknown field `note`"),
        (r#""{\"kind\""#, r#""{\"format\":2,\"kind\""#, "unreadable header: `format` stands twice"),
        (r#"{"lipconv""#, r#"{"other":"","lipconv""#, "has an unknown metadata entry `other`"),
        (
            r#"{"dtype":"F32""#,
            r#"{"note":1,"dtype":"F32""#,
            "unreadable header: unknown field `note`",
        ),
        (r#""conv1.bias""#, r#""conv2.bias""#, ""),
    ] {
        check_begins(&check(&with_header(&case.model, from, to)), &format!("model: {expected}"));
    }
    check_begins(
        &check(&replaced("conv2.bias", "conv3.bias")),
        "model: tensor `conv2.bias` is missing",
    );
}

/// The weights file after a change of the text in front of the tensors.
pub(crate) fn with_header(model: &[u8], from: &str, to: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
    let (text, tensors) =
        (std::str::from_utf8(&model[8..8 + length]).unwrap(), &model[8 + length..]);
    assert!(text.contains(from), "{from} is not in {text}");
    let text = text.trim_end().replacen(from, to, 1);
    let padded = format!("{text:width$}", width = text.len().next_multiple_of(8));
    [&(padded.len() as u64).to_le_bytes()[..], padded.as_bytes(), tensors].concat()
}

/// The hash that a file about this model would have.
pub(crate) fn certificate_of(model: &[u8]) -> String {
    let network = mixed_network([1.0; 4], DType::F32, 80);
    let none = Tensor::zeros((0, 2, 6, 8), DType::F32, &candle_core::Device::Cpu).unwrap();
    let origin = CertificateOrigin { model, data: "none", code: "none" };
    CertificateFile::new(&network, &none, &[], origin, &mut |_| {}).unwrap().model.sha256
}

/// A weights file of zeros in f32: the input's sizes, the layers as JSON, names and shapes of tensors.
fn crafted(input: [usize; 3], layers: &str, tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let [channels, height, width] = input;
    let header = format!(
        r#"{{"kind":"plain-network","format":{},"dtype":"f32","input":{{"channels":{channels},"height":{height},"width":{width}}},"layers":[{layers}]}}"#,
        if layers.contains("padded-conv") { 2 } else { 1 },
    );
    let data = |shape: &[usize]| vec![0; 4 * shape.iter().product::<usize>()];
    let tensors: Vec<_> =
        tensors.iter().map(|(name, shape)| (*name, shape.to_vec(), data(shape))).collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        (*name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    let metadata = HashMap::from([("lipconv".to_owned(), header)]);
    safetensors::serialize(views, Some(metadata)).unwrap()
}

#[test]
fn layers_without_values_and_enormous_tori_are_refused() {
    let case = case();
    let cyclic = r#"{"type":"cyclic-conv","downsample":1,"bias":false}"#;
    let (flatten, dense) = (r#"{"type":"flatten"}"#, r#"{"type":"dense","bias":false}"#);
    let padded = |stride: usize| {
        format!(
            r#"{{"type":"padded-conv","window":{{"stride":[{stride},{stride}],"before":[0,0],"after":[0,0],"dilation":[1,1],"groups":1,"boundary":"zeros"}},"bias":false}}"#
        )
    };
    let first = [("conv1.weight", &[4, 1, 0, 0][..]), ("linear1.weight", &[2, 64])];
    let no_rows = [("linear1.weight", &[0, 16][..]), ("linear2.weight", &[2, 0])];
    let no_columns = [("linear1.weight", &[2, 0][..])];
    let strided = [("conv1.weight", &[4, 1, 1, 1][..]), ("linear1.weight", &[2, 4])];
    let cases = [
        (format!("{cyclic},{flatten},{dense}"), &first[..], "conv1.weight of shape [4, 1, 0, 0]"),
        (format!("{flatten},{dense},{dense}"), &no_rows, "linear1.weight of shape [0, 16]"),
        (format!("{flatten},{dense}"), &no_columns, "linear1.weight of shape [2, 0]"),
        (format!("{},{flatten},{dense}", padded(1 << 20)), &strided, "conv1 is larger"),
        (format!("{},{flatten},{dense}", padded(1 << 13)), &strided, "conv1 is larger"),
    ];
    for (layers, tensors, expected) in cases {
        let model = crafted([1, 4, 4], &layers, tensors);
        let text = case.file.to_json().replace(&case.file.model.sha256, &certificate_of(&model));
        let refused =
            case.check_on(&text, &model, &case.pixels, &case.labels, Selection::All).unwrap_err();
        check_begins(&refused.to_string(), &format!("model: {expected}"));
    }
}

#[test]
fn large_layers_of_small_files_are_refused() {
    let case = case();
    for (from, to) in [
        (r#"\"height\":6"#, r#"\"height\":600000000"#),
        (r#"\"height\":6"#, r#"\"height\":18446744073709551615"#),
        (r#"\"height\":6,\"width\":8"#, r#"\"height\":4096,\"width\":2048"#),
        (r#"\"downsample\":2"#, r#"\"downsample\":18446744073709551615"#),
    ] {
        let model = with_header(&case.model, from, to);
        let text = case.file.to_json().replace(&case.file.model.sha256, &certificate_of(&model));
        let refused =
            case.check_on(&text, &model, &case.pixels, &case.labels, Selection::All).unwrap_err();
        check_begins(&refused.to_string(), "model: ");
    }
}
