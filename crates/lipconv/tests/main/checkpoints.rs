//! Files: a resumed run ends as the uninterrupted one, to the bit; damaged files are refused by name.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use lipconv::train::{Observer, StepReport};
use lipconv::{Network, PlainNetwork, Trainer};

use crate::support::{uniform, values};
use crate::training::{small_spec, stripes, trainer};

/// Saves after so many steps and stops.
pub(crate) struct SaveAndStop {
    pub(crate) after: u64,
    pub(crate) path: PathBuf,
}

impl Observer for SaveAndStop {
    fn after_step(
        &mut self,
        trainer: &Trainer,
        report: &StepReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        if report.step < self.after {
            return Ok(ControlFlow::Continue(()));
        }
        trainer.save(&self.path)?;
        Ok(ControlFlow::Break(()))
    }
}

fn bits(network: &Network) -> Vec<u64> {
    network.variables().iter().flat_map(|(_, v)| values(v.as_tensor())).map(f64::to_bits).collect()
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in [DType::F32, DType::F64] {
        let mut whole = trainer(dtype, 3);
        whole.fit(&mut stripes(dtype), &mut ()).unwrap();
        // in mid-epoch, and after the last batch of an epoch
        for after in [7, 10] {
            let path = folder.path().join("run.safetensors");
            let mut first = trainer(dtype, 3);
            first.fit(&mut stripes(dtype), &mut SaveAndStop { after, path: path.clone() }).unwrap();
            drop(first);
            let mut second = Trainer::resume(&path, &Device::Cpu).unwrap();
            assert_eq!(second.n_steps(), after);
            second.fit(&mut stripes(dtype), &mut ()).unwrap();
            assert_eq!(second.n_steps(), whole.n_steps());
            assert_eq!(bits(second.network()), bits(whole.network()), "{dtype:?} after {after}");
        }
    }
}

#[test]
fn a_run_goes_on_for_more_epochs_at_the_rates_of_the_longer_run() {
    let mut short = trainer(DType::F32, 1);
    short.fit(&mut stripes(DType::F32), &mut ()).unwrap();
    let mut three = trainer(DType::F32, 3);
    let schedule = three.config().schedule;
    let mut longer = short.planned_for(3, schedule).unwrap();
    assert!(!longer.is_finished());
    let mut rates = Vec::new();
    struct Rates<'a>(&'a mut Vec<f64>);
    impl Observer for Rates<'_> {
        fn after_step(
            &mut self,
            _: &Trainer,
            report: &StepReport,
        ) -> lipconv::Result<ControlFlow<()>> {
            self.0.push(report.learning_rate);
            Ok(ControlFlow::Continue(()))
        }
    }
    longer.fit(&mut stripes(DType::F32), &mut Rates(&mut rates)).unwrap();
    let mut whole = Vec::new();
    three.fit(&mut stripes(DType::F32), &mut Rates(&mut whole)).unwrap();
    assert_eq!(rates, whole[whole.len() - rates.len()..]);
    let text = longer.planned_for(2, schedule).unwrap_err().to_string();
    assert_eq!(text, "epochs is 2, expected at least the epochs done");
}

#[test]
fn a_plain_network_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.safetensors");
    let plain = trainer(DType::F32, 1).network().materialize().unwrap();
    plain.save(&path).unwrap();
    let loaded = PlainNetwork::load(&path, &Device::Cpu).unwrap();
    let x = uniform(&[3, 1, 8, 8], 0.0, 1.0, DType::F32, 1);
    let (a, b) = (plain.forward(&x).unwrap(), loaded.forward(&x).unwrap());
    assert_eq!(values(&a), values(&b));
    assert_eq!(plain.lipschitz_bound().unwrap(), loaded.lipschitz_bound().unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

/// Rewrites a checkpoint's tensors with another tool: the safetensors library itself.
fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<u8>)>)) {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut entries: Vec<_> = tensors
        .iter()
        .map(|(n, v)| (n.to_owned(), v.shape().to_vec(), v.data().to_vec()))
        .collect();
    change(&mut entries);
    let views = entries.iter().map(|(name, shape, data)| {
        let dtype = safetensors::Dtype::F32;
        (name.as_str(), safetensors::tensor::TensorView::new(dtype, shape.clone(), data).unwrap())
    });
    let bytes = safetensors::serialize(views, metadata.metadata().clone()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Rewrites the header of a checkpoint.
fn rewrite_header(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut metadata = metadata.metadata().clone().unwrap();
    let text = metadata.get_mut("lipconv").unwrap();
    let mut header = serde_json::from_str(text).unwrap();
    change(&mut header);
    *text = header.to_string();
    std::fs::write(path, safetensors::serialize(tensors.tensors(), Some(metadata)).unwrap())
        .unwrap();
}

#[test]
fn a_place_that_no_run_reaches_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let resumed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut begun = trainer(DType::F32, 3);
        begun
            .fit(&mut stripes(DType::F32), &mut SaveAndStop { after: 7, path: path.clone() })
            .unwrap();
        rewrite_header(&path, |header| change(&mut header["progress"]));
        Trainer::resume(&path, &Device::Cpu)
    };
    let cases: [(&str, u64, &str); 5] = [
        ("/step", u64::MAX, "progress.step is 18446744073709551615, expected at most"),
        ("/epoch", 4, "progress.epoch is 4, expected at most 3, the epochs of the run"),
        ("/batch", 8, "progress.batch is 8, expected at most 7, the steps done"),
        ("/totals/n_samples", u64::MAX, "progress.totals.n_samples is"),
        ("/totals/n_correct", 10_000, "progress.totals.n_correct is 10000, expected at most"),
    ];
    for (member, value, expected) in cases {
        let set = |progress: &mut serde_json::Value| {
            *progress.pointer_mut(member).unwrap() = value.into()
        };
        let text = resumed(&set).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    // no run of other images goes on for ever
    let mut late = resumed(&|progress| progress["batch"] = 7.into()).unwrap();
    let text = late.fit(&mut stripes(DType::F32), &mut ()).unwrap_err().to_string();
    assert!(text.starts_with("number of batches done in the epoch is 7 of "), "{text}");
}

/// A fresh checkpoint, damaged, and what loading says.
fn refusal(change: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<u8>)>)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    trainer(DType::F32, 1).save(&path).unwrap();
    rewrite(&path, change);
    let text = Trainer::resume(&path, &Device::Cpu).unwrap_err().to_string();
    assert!(text.contains("run.safetensors"), "{text}");
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn damaged_checkpoints_are_refused_by_name() {
    let missing = refusal(|tensors| tensors.retain(|(name, ..)| name != "conv2.weight"));
    assert!(missing.contains("tensor `conv2.weight` is missing"), "{missing}");
    let extra = refusal(|tensors| tensors.push(("conv9.weight".into(), vec![1], vec![0; 4])));
    assert!(extra.contains("unexpected tensor `conv9.weight`"), "{extra}");
    let misshapen = refusal(|tensors| {
        let (_, shape, _) = tensors.iter_mut().find(|(name, ..)| name == "linear1.weight").unwrap();
        shape.reverse();
    });
    assert!(misshapen.contains("tensor `linear1.weight` has shape"), "{misshapen}");
    let nan = refusal(|tensors| {
        let (_, _, data) = tensors.iter_mut().find(|(name, ..)| name == "linear2.bias").unwrap();
        data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(nan.contains("tensor `linear2.bias` holds NaN at flat index 1"), "{nan}");
}

#[test]
fn truncated_foreign_and_future_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    trainer(DType::F32, 1).save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 7, 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let text = Trainer::resume(&path, &Device::Cpu).unwrap_err().to_string();
        assert!(text.contains("not a complete safetensors file"), "{length}: {text}");
    }
    let future = String::from_utf8_lossy(&whole).find("\\\"format\\\":2").unwrap();
    let mut bytes = whole.clone();
    bytes[future + "\\\"format\\\":".len()] = b'7';
    std::fs::write(&path, bytes).unwrap();
    let text = Trainer::resume(&path, &Device::Cpu).unwrap_err().to_string();
    assert!(text.contains("format version 7, expected 2"), "{text}");
    std::fs::write(&path, &whole).unwrap();
    let text = PlainNetwork::load(&path, &Device::Cpu).unwrap_err().to_string();
    assert!(text.contains("holds `training`, expected `plain-network`"), "{text}");
}

#[test]
fn an_unwritable_place_keeps_what_was_there() {
    let trainer = trainer(DType::F32, 1);
    let error =
        trainer.save(Path::new("/proc/no/such/folder/run.safetensors")).unwrap_err().to_string();
    assert!(error.starts_with("cannot write /proc/no/such/folder/run.safetensors"), "{error}");
}

#[test]
fn the_same_seed_gives_the_same_network() {
    let network = |dtype, seed| Network::new(&small_spec(), dtype, &Device::Cpu, seed).unwrap();
    assert_eq!(bits(&network(DType::F64, 1)), bits(&network(DType::F64, 1)));
    assert_ne!(bits(&network(DType::F64, 1)), bits(&network(DType::F64, 2)));
}
