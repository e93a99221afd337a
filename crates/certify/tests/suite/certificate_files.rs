//! Certificate files: honest ones are confirmed, and every lie is named.

use candle_core::{DType, Tensor};
use certify::verify::{Data, Failure, Report, Selection, verify};
use certify::{Arithmetic, CertificateFile, CertificateOrigin, Error, Pixels, data_sha256};
use lipconv::PlainNetwork;

use crate::common::{images, mixed_network, predictions, rng, rows};

/// A network as a file, images, and the certificate of both.
pub(crate) struct Case {
    pub(crate) model: Vec<u8>,
    pub(crate) pixels: Vec<f64>,
    pub(crate) dtype: DType,
    pub(crate) labels: Vec<usize>,
    pub(crate) file: CertificateFile,
}

impl Case {
    pub(crate) fn new(network: &PlainNetwork, images: &Tensor, labels: Vec<usize>) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("network.safetensors");
        network.save(&path).unwrap();
        let model = std::fs::read(&path).unwrap();
        let origin = CertificateOrigin { model: &model, data: "random", code: "0123abc" };
        let file = CertificateFile::new(network, images, &labels, origin, &mut |_| {}).unwrap();
        let pixels = rows(images).concat();
        Self { model, pixels, dtype: network.dtype(), labels, file }
    }

    /// 30 images, every seventh with a wrong label.
    pub(crate) fn random(scales: [f64; 4], dtype: DType, seed: u64) -> Self {
        let network = mixed_network(scales, dtype, seed);
        let images = images(30, network.input(), dtype, &mut rng(seed + 1));
        let mut labels = predictions(&network, &images);
        labels.iter_mut().step_by(7).for_each(|t| *t = (*t + 1) % 5);
        Self::new(&network, &images, labels)
    }

    pub(crate) fn check_text(&self, certificate: &str) -> Result<Report, Failure> {
        self.check_on(certificate, &self.model, &self.pixels, &self.labels, Selection::All)
    }

    pub(crate) fn check_on(
        &self,
        certificate: &str,
        model: &[u8],
        pixels: &[f64],
        labels: &[usize],
        selection: Selection,
    ) -> Result<Report, Failure> {
        let narrow: Vec<f32> = pixels.iter().map(|&v| v as f32).collect();
        let f32s = self.dtype == DType::F32;
        let pixels = if f32s { Pixels::F32(&narrow) } else { Pixels::F64(pixels) };
        verify(certificate.as_bytes(), model, &Data { pixels, labels }, selection, &mut |_, _| {})
    }

    /// What is said of the file after `change`.
    fn after(&self, change: impl FnOnce(&mut CertificateFile)) -> String {
        let mut file = self.file.clone();
        change(&mut file);
        self.check_text(&file.to_json()).unwrap_err().to_string()
    }

    /// The first sample that has a radius.
    fn certified(&self) -> usize {
        self.file.samples.iter().position(|sample| sample.real > 0.0).unwrap()
    }
}

pub(crate) fn case() -> Case {
    Case::random([1.0; 4], DType::F32, 80)
}

#[track_caller]
pub(crate) fn check_begins(text: &str, expected: &str) {
    assert!(text.starts_with(expected), "{text}");
}

#[track_caller]
fn check_counts(report: &Report, n_checked: usize) {
    assert_eq!((report.n_layers, report.n_samples, report.checked.len()), (4, 30, n_checked));
}

/// What the verifier derived is what the file claims, or a little more.
fn check_derived(case: &Case, report: &Report) {
    assert_eq!(report.data_name, "random");
    assert_eq!(report.model_sha256, case.file.model.sha256);
    assert_eq!(report.data_sha256, case.file.data.sha256);
    let close =
        |derived: f64, claimed: f64| derived >= claimed && derived <= claimed * (1.0 + 1e-6);
    for (checked, sample) in report.checked.iter().zip(&case.file.samples) {
        assert!(close(checked.real, sample.real), "{} {}", checked.real, sample.real);
        for (arithmetic, &claimed) in &sample.executed {
            let derived = checked.executed[arithmetic.name()];
            assert!(derived <= claimed && close(derived, claimed), "{derived} {claimed}");
        }
    }
    let eps = case.file.samples[case.certified()].real / 2.0;
    let claimed = case.file.samples.iter().filter(|sample| sample.real > eps).count();
    assert_eq!(report.n_certified(eps), claimed);
    for name in report.arithmetics() {
        assert!(report.n_certified_executed(name, eps) <= claimed);
    }
    assert!(report.arithmetics().any(|name| name == "f64"));
}

#[test]
fn honest_files_are_confirmed() {
    let scales = [[1.0; 4], [30.0, 0.02, 5.0, 0.3], [1e-3, 1e3, 1e-2, 1e2], [1e-9, 1e-9, 1e9, 1e9]];
    for (seed, scales) in scales.into_iter().enumerate() {
        for dtype in [DType::F32, DType::F64] {
            let case = Case::random(scales, dtype, 81 + seed as u64);
            let report = case.check_text(&case.file.to_json()).unwrap();
            check_counts(&report, 30);
            check_derived(&case, &report);
            let n_certified = case.file.samples.iter().filter(|s| s.real > 0.0).count();
            assert!(n_certified > 10, "{n_certified}: the case tests nothing");
        }
    }
}

#[test]
fn a_file_is_what_the_certifier_says_but_for_its_room() {
    let case = case();
    let network = mixed_network([1.0; 4], DType::F32, 80);
    let images = Tensor::from_vec(case.pixels.clone(), (30, 2, 6, 8), network.device()).unwrap();
    let images = images.to_dtype(DType::F32).unwrap();
    let certifier = certify::Certifier::new(&network).unwrap();
    let direct = certifier.certify(&images, &case.labels).unwrap();
    for (i, sample) in case.file.samples.iter().enumerate() {
        assert_eq!((sample.label, sample.prediction), (case.labels[i], direct.predictions[i]));
        assert_eq!(sample.margin, direct.margins[i]);
        let pairs = [(sample.real, direct.real[i])].into_iter();
        let pairs = pairs.chain(sample.executed.iter().map(|(a, &r)| (r, direct.executed[a][i])));
        for (written, direct) in pairs {
            assert!(written <= direct && written >= direct * (1.0 - 1e-7), "{written} {direct}");
        }
    }
}

#[test]
fn files_are_written_whole_and_read_back() {
    let case = case();
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("certificate.json");
    case.file.write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(serde_json::from_str::<CertificateFile>(&text).unwrap(), case.file);
    case.check_text(&text).unwrap();
    let deeper = folder.path().join("missing/certificate.json");
    case.file.write(&deeper).unwrap();
    assert!(deeper.is_file());
    let nowhere = path.join("certificate.json");
    let text = case.file.write(&nowhere).unwrap_err().to_string();
    check_begins(&text, &format!("cannot write {}: ", nowhere.display()));
}

#[test]
fn a_raised_radius_or_margin_is_refused() {
    let case = case();
    let i = case.certified();
    let raised = 1.0 + 1e-6;
    let text = case.after(|file| file.samples[i].real *= raised);
    check_begins(&text, &format!("samples[{i}].real: is "));
    assert!(text.contains("but no more than"), "{text}");
    for arithmetic in Arithmetic::ALL {
        let text = case.after(|file| {
            let radius = file.samples[i].executed.get_mut(&arithmetic).unwrap();
            *radius *= raised;
        });
        check_begins(&text, &format!("samples[{i}].executed.{}: is ", arithmetic.name()));
    }
    let text = case.after(|file| file.samples[i].margin *= raised);
    check_begins(&text, &format!("samples[{i}].margin: is "));
    // a misclassified image has no radius at all
    let text = case.after(|file| file.samples[0].real = 1e-9);
    check_begins(&text, "samples[0].real: is 1e-9, but no more than 0.0 can be derived");
}

#[test]
fn a_lowered_layer_bound_is_refused() {
    let case = case();
    for layer in 0..4 {
        let name = &case.file.layers[layer].name;
        // bounds of convolutions hold for every image size, and exceed what this one needs
        let text = case.after(|file| file.layers[layer].lipschitz *= 0.5);
        check_begins(&text, &format!("layers[{layer}].lipschitz: "));
        let end = format!("is not proven to be an upper bound of the norm of the layer ({name})");
        assert!(text.ends_with(&end), "{text}");
        let text = case.after(|file| file.layers[layer].absolute_norm *= 0.999);
        check_begins(&text, &format!("layers[{layer}].absolute_norm: "));
        let text = case.after(|file| file.layers[layer].bias_norm *= 1.0 - 1e-9);
        check_begins(&text, &format!("layers[{layer}].bias_norm: "));
    }
    // a bound that still holds, but is not the one that the radii were computed with
    let i = case.certified();
    for factor in [1.0 - 1e-6, 1.0 + 1e-6] {
        let text = case.after(|file| file.layers[0].lipschitz *= factor);
        let named = text.starts_with(&format!("samples[{i}].")) || text.starts_with("layers[0].");
        assert!(named, "{text}");
    }
    let text = case.after(|file| file.samples[i].real *= 1.0 - 1e-6);
    check_begins(&text, &format!("samples[{i}].real: is "));
    assert!(text.contains("but the layer bounds and the weights give"), "{text}");
}

/// Flips bit `bit` of the `nth` byte from the end of the weights.
fn flipped(model: &[u8], byte: usize, bit: u8) -> Vec<u8> {
    let mut model = model.to_vec();
    let at = model.len() - 1 - byte;
    model[at] ^= 1 << bit;
    model
}

#[test]
fn a_flipped_weight_bit_is_refused() {
    let case = case();
    let text = case.file.to_json();
    let check = |certificate: &str, model: &[u8]| {
        let refused = case.check_on(certificate, model, &case.pixels, &case.labels, Selection::All);
        refused.unwrap_err().to_string()
    };
    let model = flipped(&case.model, 100, 0);
    check_begins(&check(&text, &model), "model.sha256: is ");
    // even if the hash is forged: every byte but the last bits of a mantissa changes a claim
    let forged = |model: &[u8]| {
        let mut file = case.file.clone();
        let network = CertificateFile::new(
            &mixed_network([1.0; 4], DType::F32, 80),
            &Tensor::zeros((0, 2, 6, 8), DType::F32, &candle_core::Device::Cpu).unwrap(),
            &[],
            CertificateOrigin { model, data: "none", code: "none" },
            &mut |_| {},
        );
        file.model.sha256 = network.unwrap().model.sha256;
        file.to_json()
    };
    // the last tensor is a weight of the last layer: byte 0 from the end is the exponent, 2 holds middle bits
    for (byte, bit) in [(0, 6), (0, 7), (1, 3), (2, 7), (3, 6)] {
        let model = flipped(&case.model, 4 * 5 + byte, bit);
        let text = check(&forged(&model), &model);
        let known = ["layers[3].", "samples[", "model: tensor"].iter().any(|k| text.starts_with(k));
        assert!(known, "byte {byte} bit {bit}: {text}");
    }
}

#[test]
fn other_data_are_refused() {
    let case = case();
    let text = case.file.to_json();
    let check = |pixels: &[f64], labels: &[usize]| {
        case.check_on(&text, &case.model, pixels, labels, Selection::All).unwrap_err().to_string()
    };
    let mut other = case.pixels.clone();
    other[17] = 0.5;
    check_begins(&check(&other, &case.labels), "data.sha256: is ");
    let mut labels = case.labels.clone();
    labels[0] = (labels[0] + 1) % 5;
    let refused = check(&case.pixels, &labels);
    check_begins(&refused, "data.sha256: is ");
    assert!(refused.contains(", but that of this data set is "), "{refused}");
    // with a forged hash, the samples tell
    let sha256 = |pixels: &[f64], labels: &[usize]| {
        let narrow: Vec<f32> = pixels.iter().map(|&v| v as f32).collect();
        data_sha256(Pixels::F32(&narrow), labels)
    };
    let forged = CertificateFile {
        data: certify::DataRecord {
            sha256: sha256(&case.pixels, &labels),
            ..case.file.data.clone()
        },
        ..case.file.clone()
    };
    let refused =
        case.check_on(&forged.to_json(), &case.model, &case.pixels, &labels, Selection::All);
    check_begins(&refused.unwrap_err().to_string(), "samples[0].label: is ");
}

#[test]
fn truncated_files_and_other_versions_are_refused() {
    let case = case();
    let text = case.file.to_json();
    for part in [0, 1, text.len() / 3, text.len() - 3] {
        let refused = case.check_text(&text[..part]).unwrap_err().to_string();
        assert_eq!(refused, "certificate: ends too early, expected a complete JSON object");
    }
    let refused = case.after(|file| file.version = 2);
    assert_eq!(refused, "version: is 2, expected 1: a later program wrote it");
    let refused = case.after(|file| file.version = 0);
    assert_eq!(refused, "version: is 0, expected 1: no such version");
    let refused = case.after(|file| file.format = "other".into());
    assert_eq!(refused, "format: is `other`, expected `lipconv-certificate`");
}

#[test]
fn numbers_that_are_none_are_refused() {
    let case = case();
    let i = case.certified();
    // how a NaN is written as JSON
    let refused = case.after(|file| file.samples[i].real = f64::NAN);
    let expected = format!("samples[{i}].real: is null, expected a finite number of at least 0");
    assert_eq!(refused, expected);
    let refused = case.after(|file| file.layers[1].lipschitz = f64::INFINITY);
    check_begins(&refused, "layers[1].lipschitz: is null, expected a finite number");
    let refused = case.after(|file| file.samples[2].margin = -0.5);
    assert_eq!(refused, "samples[2].margin: is -0.5, expected a finite number of at least 0");
    // and how other programs write it
    let text = case.file.to_json();
    for word in ["NaN", "Infinity", "-Infinity"] {
        let at = text.find("\"bias_norm\":").unwrap() + "\"bias_norm\":".len();
        let end = at + text[at..].find(',').unwrap();
        let text = format!("{}{word}{}", &text[..at], &text[end..]);
        let refused = case.check_text(&text).unwrap_err().to_string();
        let word = word.trim_start_matches('-');
        assert_eq!(
            refused,
            format!("bias_norm: is {word}, expected a finite number of at least 0")
        );
    }
}

#[test]
fn other_members_and_sizes_are_refused() {
    let case = case();
    let replaced = |from: &str, to: &str| {
        let text = case.file.to_json().replacen(from, to, 1);
        case.check_text(&text).unwrap_err().to_string()
    };
    assert_eq!(replaced("\"code\":", "\"source\":"), "code: is missing");
    let refused = replaced("\"code\":", "\"note\":1,\"code\":");
    assert_eq!(refused, "note: is no member of this version");
    let refused = replaced("\"label\":", "\"extra\":1,\"label\":");
    assert_eq!(refused, "samples[0].extra: is no member of this version");
    let refused = replaced("\"n_samples\":30", "\"n_samples\":31");
    assert_eq!(refused, "samples: are 30, expected 31 as in data.n_samples");
    assert_eq!(
        replaced("\"n_classes\":5", "\"n_classes\":\"5\""),
        "model.n_classes: is \"5\", expected a whole number"
    );
    assert_eq!(replaced("\"n_classes\":5", "\"n_classes\":6"), "model.n_classes: is 6, expected 5");
    check_begins(&replaced("\"f32\":", "\"bf16\":"), "samples[0].executed.bf16: is no arithmetic");
    assert_eq!(
        case.after(|file| drop(file.layers.pop())),
        "layers: are 3, expected 4 as in the weights file"
    );
    let refused = case.after(|file| file.layers[2].dot_length = 1);
    assert_eq!(refused, "layers[2].dot_length: is 1, expected 48 (linear1)");
    let refused = case.after(|file| file.layers[0].name = "conv7".into());
    assert_eq!(refused, "layers[0].name: is `conv7`, expected `conv1` (conv1)");
    let i = case.certified();
    let refused = case.after(|file| file.samples[i].prediction = (case.labels[i] + 1) % 5);
    check_begins(&refused, &format!("samples[{i}].prediction: is "));
    let refused = case.check_text("[1]").unwrap_err().to_string();
    assert_eq!(refused, "certificate: is a list, expected an object");
    check_begins(&case.check_text("{a}").unwrap_err().to_string(), "certificate: not JSON: ");
}

#[test]
fn f32_claims_about_f64_weights_are_refused() {
    let case = Case::random([1.0; 4], DType::F64, 90);
    let i = case.certified();
    for arithmetic in Arithmetic::ALL.into_iter().filter(|a| *a != Arithmetic::F64) {
        let refused = case.after(|file| {
            file.samples[i].executed.insert(arithmetic, 1e-6);
        });
        let expected = "this arithmetic does not hold the weights or the image";
        assert_eq!(refused, format!("samples[{i}].executed.{}: {expected}", arithmetic.name()));
    }
}

#[test]
fn a_subset_sees_its_samples_only() {
    let case = case();
    let i = case.certified();
    let mut file = case.file.clone();
    file.samples[i].real *= 1.1;
    let text = file.to_json();
    let check = |seed: u64| {
        let selection = Selection::Random { n: 6, seed };
        case.check_on(&text, &case.model, &case.pixels, &case.labels, selection)
    };
    let verdicts: Vec<_> = (0..20).map(check).collect();
    assert!(verdicts.iter().any(Result::is_ok) && verdicts.iter().any(Result::is_err));
    let confirmed = verdicts.into_iter().find_map(Result::ok).unwrap();
    check_counts(&confirmed, 6);
    // the same seed draws the same samples; more than there are means all
    assert_eq!(check(3).is_ok(), check(3).is_ok());
    let selection = Selection::Random { n: 100, seed: 0 };
    assert!(case.check_on(&text, &case.model, &case.pixels, &case.labels, selection).is_err());
}

#[test]
fn members_that_stand_twice_are_refused() {
    let case = case();
    let text = case.file.to_json();
    let sample = r#"{"label":7,"prediction":7,"margin":9,"real":9.5,"executed":{"f32":9.5}}"#;
    let first = r#""executed":{"tf32":"#;
    for (from, to, member) in [
        (r#""samples":["#, format!(r#""samples":[{sample}],"samples":["#), "samples"),
        (r#""version":1"#, r#""version":1,"version":1"#.to_owned(), "version"),
        (r#""data":{"#, r#""data":{"name":"MNIST","#.to_owned(), "name"),
        (first, format!("{first}9.5,\"tf32\":"), "tf32"),
        (r#""label":"#, r#""label":1,"\u006cabel":"#.to_owned(), "label"),
    ] {
        let refused = case.check_text(&text.replacen(from, &to, 1)).unwrap_err().to_string();
        check_begins(&refused, &format!("certificate: `{member}` stands twice in one object"));
    }
}

#[test]
fn at_least_one_sample_is_checked() {
    let case = case();
    let text = case.file.to_json();
    let selection = Selection::Random { n: 0, seed: 1 };
    let refused = case.check_on(&text, &case.model, &case.pixels, &case.labels, selection);
    let expected = "samples: none are left to check, expected at least 1";
    assert_eq!(refused.unwrap_err().to_string(), expected);
}

#[test]
fn text_of_a_file_cannot_steer_a_terminal() {
    let case = case();
    let refused = case.after(|file| file.format = "\u{1b}[2K\u{202e}x\r".into());
    assert_eq!(refused, "format: is `\\u{1b}[2K\\u{202e}x\\r`, expected `lipconv-certificate`");
    let refused = case.after(|file| file.model.sha256 = "\u{9b}1A".into());
    assert!(refused.chars().all(|c| !c.is_control()), "{refused:?}");
}

#[test]
fn rooms_have_a_domain() {
    let certifier = || certify::Certifier::new(&mixed_network([1.0; 4], DType::F32, 80)).unwrap();
    for room in [-0.1, 1.5, f64::NAN] {
        let refused: Error = certifier().with_raised_bounds(room).unwrap_err();
        assert_eq!(refused.to_string(), format!("room is {room}, expected a number from 0 to 1"));
    }
    let raised = certifier().with_raised_bounds(0.5).unwrap();
    let ratio = raised.bounds().lipschitz() / certifier().bounds().lipschitz();
    assert!((ratio - 1.5f64.powi(4)).abs() < 1e-12);
}
