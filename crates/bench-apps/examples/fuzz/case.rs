//! Cases: a seed and what is changed in it, from a number alone.
//!
//! Definition: case n of seed s draws from the stream n of the generator with the seed s. 64 cases in a row change the same files,
//! so that few of them are written again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Result;
use std::path::{Path, PathBuf};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::mutate::changed;
use super::targets::Target;

/// Cases in a row with one seed.
const ROW: u64 = 64;

/// Files by their paths below a folder.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What a case does with the files of its seed.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) seed: usize,
    pub(crate) changed: Files,
    oddity: Option<Oddity>,
}

/// Something in the folder besides files.
#[derive(Debug)]
enum Oddity {
    /// A file is gone.
    Missing(PathBuf),
    Folder(PathBuf),
    Link(PathBuf, &'static str),
}

/// The folders of a target's seeds; where only some files count, each with one or more of them.
pub(crate) fn seeds(target: &Target) -> Result<Vec<Files>> {
    let mut seeds = Vec::new();
    for folder in target.seeds {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), target, &mut seeds)?;
    }
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    Ok(seeds)
}

fn collect(dir: &Path, target: &Target, seeds: &mut Vec<Files>) -> Result<()> {
    let mut paths = fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    if target.ends.is_empty() {
        for path in paths.iter().filter(|path| path.is_dir()) {
            let mut files = Files::new();
            read_below(path, path, &mut files)?;
            seeds.push(files);
        }
        return Ok(());
    }
    // a configuration and a model are seeds on their own
    let alone = target.ends.iter().all(|end| end.ends_with(".toml") || end.ends_with(".onnx"));
    let mut here = Files::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_owned();
        if path.is_dir() {
            // the files below have another form
            if !alone {
                collect(&path, target, seeds)?;
            }
        } else if target.ends.iter().any(|end| name.to_string_lossy().ends_with(end)) {
            here.insert(name.into(), fs::read(path)?);
        }
    }
    if alone {
        seeds.extend(here.into_iter().map(|file| Files::from([file])));
    } else if !here.is_empty() {
        seeds.push(here);
    }
    Ok(())
}

fn read_below(root: &Path, dir: &Path, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            read_below(root, &path, files)?;
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
            files.insert(name, fs::read(&path)?);
        }
    }
    Ok(())
}

impl Case {
    pub(crate) fn new(seeds: &[Files], seed: u64, case: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(case);
        let at = (case / ROW % seeds.len() as u64) as usize;
        let names: Vec<&PathBuf> = seeds[at].keys().collect();
        let mut files = Files::new();
        for _ in 0..if rng.random_ratio(1, 8) { 2 } else { 1 } {
            let name = *names.choose(&mut rng).expect("a seed has files");
            files.insert(name.clone(), changed(&seeds[at][name], &mut rng));
        }
        fit_hash(&seeds[at], &mut files);
        let oddity = rng.random_ratio(1, 32).then(|| oddity(&names, &mut rng));
        Self { seed: at, changed: files, oddity }
    }

    /// Makes the changes in a folder that holds the seed.
    pub(crate) fn apply(&self, dir: &Path) -> Result<()> {
        for (name, bytes) in &self.changed {
            fs::write(dir.join(name), bytes)?;
        }
        match &self.oddity {
            Some(Oddity::Missing(name)) => fs::remove_file(dir.join(name)),
            Some(Oddity::Folder(name)) => fs::create_dir_all(dir.join(name)),
            #[cfg(unix)]
            Some(Oddity::Link(name, to)) => std::os::unix::fs::symlink(to, dir.join(name)),
            _ => Ok(()),
        }
    }

    /// Brings the folder back to the seed.
    pub(crate) fn undo(&self, seeds: &[Files], dir: &Path) -> Result<()> {
        if self.oddity.is_some() {
            return write_seed(&seeds[self.seed], dir);
        }
        for name in self.changed.keys() {
            fs::write(dir.join(name), &seeds[self.seed][name])?;
        }
        Ok(())
    }
}

/// Empties a folder and writes the files of a seed.
pub(crate) fn write_seed(files: &Files, dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

/// A certificate names its weights by their hash; a liar makes it fit.
fn fit_hash(seed: &Files, files: &mut Files) {
    let (weights, certificate) = (Path::new("network.safetensors"), Path::new("certificate.json"));
    let (Some(before), Some(after)) = (seed.get(weights), files.get(weights)) else { return };
    let hash = |bytes: &[u8]| lipconv_datasets::hex(&Sha256::digest(bytes));
    let (before, after) = (hash(before), hash(after));
    let Some(text) = files.get(certificate).or_else(|| seed.get(certificate)) else { return };
    let text = String::from_utf8_lossy(text).replace(&before, &after);
    files.insert(certificate.to_owned(), text.into_bytes());
}

fn oddity(names: &[&PathBuf], rng: &mut ChaCha8Rng) -> Oddity {
    let near = *names.choose(rng).expect("a seed has files");
    let odd = ["x", ".hidden", "\u{1b}[2J", "ü b"].choose(rng).expect("a choice");
    match rng.random_range(0..3) {
        0 => Oddity::Missing(near.clone()),
        1 => Oddity::Folder(near.with_file_name(odd)),
        _ => Oddity::Link(
            near.with_file_name(odd),
            [".", "..", "nowhere"].choose(rng).expect("a choice"),
        ),
    }
}
