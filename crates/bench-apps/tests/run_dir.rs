//! Run directories: what they hold, and who may write.

use std::fs;

use bench_apps::Error;
use bench_apps::config::RunConfig;
use bench_apps::files::Provenance;
use bench_apps::files::write_atomic;
use bench_apps::files::{RunDir, RunFiles};

#[cfg(unix)]
use crate::{command::Place, hostile::train};

#[test]
fn a_new_run_holds_its_configuration_and_versions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/on/the/way");
    let mut config = RunConfig::default();
    config.training.epochs = 7;
    let provenance = Provenance::collect("CPU");
    let run = RunDir::create(&path, &config, &provenance).unwrap();
    let files = RunFiles::open(&path).unwrap();
    assert_eq!(run.files(), &files);
    assert_eq!(files.config().unwrap(), config);
    assert_eq!(files.provenance().unwrap(), provenance);
    assert!(provenance.rustc.starts_with("rustc "), "{}", provenance.rustc);
    assert!(provenance.dependencies.contains_key("candle-core"));
    assert!(files.metrics().unwrap().is_empty());
}

#[test]
fn one_process_writes_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (config, provenance) = (RunConfig::default(), Provenance::collect("CPU"));
    let run = RunDir::create(dir.path(), &config, &provenance).unwrap();
    let locked = format!("{} is in use by another process", dir.path().display());
    let error = RunDir::resume(dir.path()).unwrap_err();
    assert!(matches!(error, Error::RunLocked { .. }));
    assert_eq!(error.to_string(), locked);
    assert_eq!(RunDir::create(dir.path(), &config, &provenance).unwrap_err().to_string(), locked);
    drop(run);
    let run = RunDir::resume(dir.path()).unwrap();
    drop(run);
    let error = RunDir::create(dir.path(), &config, &provenance).unwrap_err();
    assert!(matches!(error, Error::RunExists { .. }));
    let expected = "already holds a run; resume it (--resume) or choose another folder";
    assert_eq!(error.to_string(), format!("{} {expected}", dir.path().display()));
}

#[test]
fn a_folder_without_a_run_cannot_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let error = RunDir::resume(dir.path()).unwrap_err();
    assert!(matches!(error, Error::NotARun { .. }));
    let expected =
        format!("{} is not a run directory: config.toml is missing", dir.path().display());
    assert_eq!(error.to_string(), expected);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_folder_that_cannot_be_made_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error =
        RunDir::create(&file.join("run"), &RunConfig::default(), &Provenance::collect("CPU"))
            .unwrap_err();
    assert!(matches!(error, Error::Write { .. }));
    assert!(
        error.to_string().starts_with(&format!("cannot write {}/run: ", file.display())),
        "{error}"
    );
}

#[test]
fn an_atomic_write_replaces_the_file_or_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("results.json");
    write_atomic(&path, b"old").unwrap();
    write_atomic(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    // a folder in the way: the write fails and the folder is untouched
    let folder = dir.path().join("folder");
    fs::create_dir_all(folder.join("inside")).unwrap();
    assert!(write_atomic(&folder, b"x").is_err());
    assert!(folder.join("inside").is_dir());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[cfg(unix)]
#[test]
fn a_run_may_begin_with_the_network_of_another() {
    let place = Place::new();
    place.succeed(&train(&["--out", "first"]));
    // steps of this length change no float: the second run ends where it began
    place.succeed(&train(&[
        "--out",
        "second",
        "--init-from",
        "first",
        "--seed",
        "1",
        "--learning-rate",
        "1e-30",
    ]));
    let network = |run: &str| fs::read(place.path(run).join("network.safetensors")).unwrap();
    assert!(network("first") == network("second"));
    let text = place.fail(&train(&["--out", "third", "--init-from", "first", "--network", "fc-3"]));
    let expected = "first holds another network than this run's, expected the same layers";
    assert!(text.contains(expected), "{text}");
    let text = place.fail(&train(&["--out", "third", "--init-from", "nowhere"]));
    assert!(text.contains("nowhere is not a run directory"), "{text}");
    fs::remove_file(place.path("first/checkpoint.safetensors")).unwrap();
    let text = place.fail(&train(&["--out", "third", "--init-from", "first"]));
    assert!(text.contains("cannot begin with the network of"), "{text}");
    assert!(!place.path("third").exists());
    // a run that has begun needs the other no more
    place.succeed(&["train", "--resume", "second", "--epochs", "2", "--quiet"]);
}
