//! What a liar may do to a certificate, its weights file and its images: nothing false is confirmed.
//!
//! Each of the mutations changes the honest files in one to three ways (keys, values, order; of the certificate, the weights, their
//! header, the images), and then makes the hashes fit again, as a liar would.
//! What is confirmed nevertheless must be true by the certifier, which shares no numeric code with the verifier, and the
//! weights file must be one that other readers take.

use candle_core::{DType, Device, Tensor};
use certify::verify::Selection;
use certify::{Arithmetic, Certifier, Pixels, data_sha256};
use lipconv::PlainNetwork;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::certificate_files::Case;
use crate::common::rng;
use crate::weights_files::{certificate_of, with_header};

/// Of each case.
const N_MUTATIONS: u64 = 200;

/// The three things that a liar hands over.
struct Bundle {
    certificate: Value,
    model: Vec<u8>,
    pixels: Vec<f64>,
    labels: Vec<usize>,
    /// Text put in front of a member of the certificate: a second one of its name.
    twice: Option<(String, String)>,
}

#[test]
fn nothing_false_is_confirmed() {
    check_mutations(&Case::random([1.0; 4], DType::F32, 80), 1000);
    check_mutations(&Case::random([30.0, 0.02, 5.0, 0.3], DType::F64, 90), 2000);
}

fn check_mutations(case: &Case, first: u64) {
    let (mut n_confirmed, mut n_refused) = (0, 0);
    for seed in first..first + N_MUTATIONS {
        let rng = &mut rng(seed);
        let mut bundle = Bundle {
            certificate: serde_json::from_str(&case.file.to_json()).unwrap(),
            model: case.model.clone(),
            pixels: case.pixels.clone(),
            labels: case.labels.clone(),
            twice: None,
        };
        let mut said = Vec::new();
        for _ in 0..rng.random_range(1..=3) {
            said.push(mutate(&mut bundle, rng));
        }
        fit_hashes(&mut bundle, case.dtype, rng);
        let text = text(&bundle);
        let verdict =
            case.check_on(&text, &bundle.model, &bundle.pixels, &bundle.labels, Selection::All);
        match verdict {
            Ok(_) => {
                n_confirmed += 1;
                check_truth(&bundle, &format!("mutation {seed}: {said:?}"));
            }
            Err(_) => n_refused += 1,
        }
    }
    // neither may be empty: some mutations leave every statement true, most do not
    assert!(n_confirmed >= 5 && n_refused >= 100, "{n_confirmed} confirmed, {n_refused} refused");
}

/// Changes one thing; says which.
fn mutate(bundle: &mut Bundle, rng: &mut ChaCha8Rng) -> String {
    match rng.random_range(0..13) {
        0..=2 => claim(&mut bundle.certificate, rng),
        3 => order(&mut bundle.certificate, rng),
        4 => member(&mut bundle.certificate, rng),
        5 => {
            let name =
                *["samples", "layers", "data", "version", "real", "f32"].choose(rng).unwrap();
            let value =
                json!([{"label": 1, "prediction": 1, "margin": 9.0, "real": 9.5, "executed": {}}]);
            let value = if name.len() < 5 { json!(9.5) } else { value };
            bundle.twice = Some((name.to_owned(), format!("\"{name}\":{value},")));
            format!("{name} stands twice")
        }
        6 => weights(&mut bundle.model, rng),
        7 => header(&mut bundle.model, rng),
        10 => tensors(&mut bundle.model, rng),
        11 | 12 => images(bundle, rng),
        8 => {
            let (at, to) = (rng.random_range(0..bundle.pixels.len()), rng.random::<f32>());
            bundle.pixels[at] = f64::from(to);
            format!("pixel {at} becomes {to}")
        }
        _ => {
            let at = rng.random_range(0..bundle.labels.len());
            bundle.labels[at] = rng.random_range(0..5);
            // the liar's certificate goes along, or not
            if rng.random() {
                bundle.certificate["samples"][at]["label"] = json!(bundle.labels[at]);
            }
            format!("label {at} becomes {}", bundle.labels[at])
        }
    }
}

/// Another number in place of a claim.
fn claim(certificate: &mut Value, rng: &mut ChaCha8Rng) -> String {
    let n_samples = certificate["samples"].as_array().map_or(0, Vec::len);
    let path = if rng.random_bool(0.3) {
        let member =
            *["lipschitz", "absolute_norm", "bias_norm", "dot_length"].choose(rng).unwrap();
        format!("/layers/{}/{member}", rng.random_range(0..4))
    } else {
        let members = ["real", "margin", "executed/f32", "executed/f64", "prediction", "label"];
        let member = *members.choose(rng).unwrap();
        format!("/samples/{}/{member}", rng.random_range(0..n_samples.max(1)))
    };
    let Some(value) = certificate.pointer_mut(&path) else { return format!("no {path}") };
    let old = value.as_f64().unwrap_or(0.0);
    let factors = [0.0, -1.0, 0.5, 1.0 - 1e-12, 1.0 + 1e-12, 1.0 + 1e-6, 1.1, 2.0, 1e300];
    let factor = *factors.choose(rng).unwrap();
    *value = if old.fract() == 0.0 && old < 1e6 && !path.contains("executed") {
        json!(rng.random_range(0..50))
    } else {
        json!(old * factor)
    };
    format!("{path}: {old} becomes {value}")
}

/// Samples and layers in another order, fewer, or more.
fn order(certificate: &mut Value, rng: &mut ChaCha8Rng) -> String {
    let name = if rng.random_bool(0.8) { "samples" } else { "layers" };
    let Some(list) = certificate.get_mut(name).and_then(Value::as_array_mut) else {
        return format!("no {name}");
    };
    let (a, b) = (rng.random_range(0..list.len()), rng.random_range(0..list.len()));
    let what = match rng.random_range(0..4) {
        0 => {
            list.swap(a, b);
            "swapped"
        }
        1 => {
            list.remove(a);
            "removed"
        }
        2 => {
            let copy = list[a].clone();
            list.insert(b, copy);
            "doubled"
        }
        _ => {
            list[a] = list[b].clone();
            "replaced"
        }
    };
    if rng.random() {
        let n = certificate["samples"].as_array().map_or(0, Vec::len);
        count_samples(certificate, n);
    }
    format!("{name}: {a} and {b} {what}")
}

fn object<'a>(certificate: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    certificate.get_mut(name).and_then(Value::as_object_mut)
}

fn count_samples(certificate: &mut Value, n: usize) {
    if let Some(data) = object(certificate, "data") {
        data.insert("n_samples".into(), json!(n));
    }
}

/// A member that is new, gone, or of another type.
fn member(certificate: &mut Value, rng: &mut ChaCha8Rng) -> String {
    let place = *["", "/data", "/model", "/layers/1", "/samples/3", "/samples/3/executed"]
        .choose(rng)
        .unwrap();
    let Some(object) = certificate.pointer_mut(place).and_then(Value::as_object_mut) else {
        return format!("no {place}");
    };
    let names: Vec<String> = object.keys().cloned().collect();
    let name = names.choose(rng).cloned().unwrap_or_default();
    match rng.random_range(0..4) {
        0 => drop(object.insert("note".into(), json!("confirmed"))),
        1 => drop(object.remove(&name)),
        2 => drop(object.insert(name.clone(), json!(null))),
        _ => drop(object.insert(name.clone(), json!("other"))),
    }
    format!("{place}: {name}")
}

/// Another bit, or two values of the weights swapped.
fn weights(model: &mut [u8], rng: &mut ChaCha8Rng) -> String {
    let start = 8 + u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
    let mut value = || start + rng.random_range(0..(model.len() - start) / 4) * 4;
    let (a, b) = (value(), value());
    if rng.random() {
        let bit = rng.random_range(0..32);
        model[a + bit / 8] ^= 1 << (bit % 8);
        return format!("bit {bit} of the weight at {a}");
    }
    for i in 0..4 {
        model.swap(a + i, b + i);
    }
    format!("weights at {a} and {b} swapped")
}

/// Another text in front of the weights.
fn header(model: &mut Vec<u8>, rng: &mut ChaCha8Rng) -> String {
    let changes = [
        (r#"{\"type\":\"relu\"}"#, r#"{\"type\":\"relu\",\"group\":2}"#),
        (r#"{\"type\":\"relu\"}"#, r#"{\"type\":\"max-min\"}"#),
        (r#"{\"type\":\"relu\"},"#, ""),
        (r#"\"group\":2"#, r#"\"group\":4"#),
        (r#"\"height\":6,\"width\":8"#, r#"\"height\":8,\"width\":6"#),
        (r#""{\"kind\""#, r#""{\"layers\":[],\"kind\""#),
        (r#"{"lipconv""#, r#"{"lipconv":"{}","lipconv""#),
        ("conv1.bias", "conv2.bias"),
    ];
    let (from, to) = *changes.choose(rng).unwrap();
    let length = u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
    if String::from_utf8_lossy(&model[8..8 + length]).contains(from) {
        *model = with_header(model, from, to);
    }
    format!("{from} becomes {to}")
}

/// Tensors with other places, shapes or types, new ones, and fewer.
fn tensors(model: &mut Vec<u8>, rng: &mut ChaCha8Rng) -> String {
    let start = 8 + u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
    let Ok(mut header) = serde_json::from_slice::<Value>(&model[8..start]) else {
        return "no header".into();
    };
    let members = header.as_object_mut().unwrap();
    let names: Vec<String> = members.keys().filter(|k| *k != "__metadata__").cloned().collect();
    let (a, b) = (names.choose(rng).unwrap(), names.choose(rng).unwrap());
    let (of_a, of_b) = (members[a].clone(), members[b].clone());
    let what = rng.random_range(0..7);
    match what {
        0 => {
            members[a]["data_offsets"] = of_b["data_offsets"].clone();
            members[b]["data_offsets"] = of_a["data_offsets"].clone();
        }
        1 => {
            members.insert(a.clone(), of_b);
            members.insert(b.clone(), of_a);
        }
        2 => members[a]["shape"].as_array_mut().unwrap().reverse(),
        3 => members[a]["dtype"] = json!(*["F32", "F64", "I32", "BF16"].choose(rng).unwrap()),
        4 => drop(members.remove(a)),
        5 => drop(members.insert(format!("{a}.copy"), of_a)),
        _ => members[a]["data_offsets"] = of_b["data_offsets"].clone(),
    }
    let text = header.to_string();
    *model = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &model[start..]].concat();
    format!("tensors {a} and {b}: change {what}")
}

/// Images in another order, fewer, more, or of values that no image has; the liar's claims go along, or not.
fn images(bundle: &mut Bundle, rng: &mut ChaCha8Rng) -> String {
    let Bundle { certificate, pixels, labels, .. } = bundle;
    let n = labels.len();
    let (size, a, b) = (pixels.len() / n, rng.random_range(0..n), rng.random_range(0..n));
    let mut none = Vec::new();
    let claims = certificate.get_mut("samples").and_then(Value::as_array_mut);
    let claims = claims.filter(|list| list.len() == n);
    let claims = claims.filter(|_| rng.random()).unwrap_or(&mut none);
    let goes_along = !claims.is_empty();
    let what = match rng.random_range(0..4) {
        0 => {
            (0..size).for_each(|i| pixels.swap(a * size + i, b * size + i));
            labels.swap(a, b);
            if goes_along {
                claims.swap(a, b);
            }
            "change places"
        }
        1 => {
            pixels.drain(a * size..(a + 1) * size);
            labels.remove(a);
            if goes_along {
                claims.remove(a);
            }
            "are one less"
        }
        2 => {
            pixels.extend_from_within(a * size..(a + 1) * size);
            labels.push(labels[a]);
            if goes_along {
                claims.push(claims[a].clone());
            }
            "are one more"
        }
        _ => {
            let values = [-0.5, 1.5, 1e30, f64::NAN, f64::INFINITY];
            pixels[a * size + b] = *values.choose(rng).unwrap();
            "have another value"
        }
    };
    if goes_along {
        count_samples(certificate, labels.len());
    }
    format!("images {a} and {b} {what}")
}

/// The hashes of what is at hand, most of the time.
fn fit_hashes(bundle: &mut Bundle, dtype: DType, rng: &mut ChaCha8Rng) {
    let narrow: Vec<f32> = bundle.pixels.iter().map(|&v| v as f32).collect();
    let pixels = match dtype {
        DType::F32 => Pixels::F32(&narrow),
        _ => Pixels::F64(&bundle.pixels),
    };
    let fits = rng.random_bool(0.9);
    if let Some(model) = object(&mut bundle.certificate, "model").filter(|_| fits) {
        model.insert("sha256".into(), json!(certificate_of(&bundle.model)));
    }
    if let Some(data) = object(&mut bundle.certificate, "data").filter(|_| fits) {
        data.insert("sha256".into(), json!(data_sha256(pixels, &bundle.labels)));
    }
}

fn text(bundle: &Bundle) -> String {
    let text = bundle.certificate.to_string();
    let Some((name, twice)) = &bundle.twice else { return text };
    let member = format!("\"{name}\":");
    text.replacen(&member, &format!("{twice}{member}"), 1)
}

/// Every claim of a bundle that was confirmed, by the certifier.
#[track_caller]
fn check_truth(bundle: &Bundle, said: &str) {
    let once = bundle.certificate.to_string();
    assert_eq!(text(bundle), once, "{said}: a member that stands twice");
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("network.safetensors");
    std::fs::write(&path, &bundle.model).unwrap();
    let network = PlainNetwork::load(&path, &Device::Cpu);
    let network =
        network.unwrap_or_else(|e| panic!("{said}: other readers refuse the weights: {e}"));
    let input = network.input();
    let shape = (bundle.labels.len(), input.channels, input.height, input.width);
    let images = Tensor::from_vec(bundle.pixels.clone(), shape, &Device::Cpu).unwrap();
    let certifier = Certifier::new(&network).unwrap();
    let found =
        certifier.certify(&images.to_dtype(network.dtype()).unwrap(), &bundle.labels).unwrap();
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{said}: {value}"));
    // the certifier is within 1e-4 of the norm, and its radii are those of the tightest bounds
    for (claim, bound) in
        bundle.certificate["layers"].as_array().unwrap().iter().zip(certifier.bounds().layers())
    {
        assert!(number(&claim["lipschitz"]) >= bound.lipschitz * (1.0 - 1e-4), "{said}");
    }
    let samples = bundle.certificate["samples"].as_array().unwrap();
    assert_eq!(samples.len(), bundle.labels.len(), "{said}");
    let at_most = |claimed: f64, found: f64| claimed <= found * (1.0 + 1e-6);
    for (i, claim) in samples.iter().enumerate() {
        assert_eq!(number(&claim["label"]) as usize, bundle.labels[i], "{said}");
        assert_eq!(number(&claim["prediction"]) as usize, found.predictions[i], "{said}");
        assert!(at_most(number(&claim["margin"]), found.margins[i]), "{said}, sample {i}");
        assert!(at_most(number(&claim["real"]), found.real[i]), "{said}, sample {i}");
        for arithmetic in Arithmetic::ALL {
            let Some(claim) = claim["executed"].get(arithmetic.name()) else { continue };
            assert!(at_most(number(claim), found.executed[&arithmetic][i]), "{said}, sample {i}");
        }
    }
}
