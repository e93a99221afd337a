//! The costs of a trained classifier: parameters, memory, time of an image.
//!
//! Definition. The peak of memory is that of the process that trained, read when training has ended; systems without
//! `/proc/self/status` have none. An image takes the median time of some forward passes of the plain network, by the images in one.
//!
//! Guarantee: measured once and kept in a file, so that a job that goes on after its training reports what was measured then. Where
//! that file is damaged, the peak of memory is absent: this process may not have trained.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use candle_core::Device;
use lipconv::PlainNetwork;
use lipconv_datasets::ImageSet;
use serde::{Deserialize, Serialize};

use crate::files::{read_json, write_json};
use crate::stdout::note;

/// Costs of a classifier, those of a training step aside: they are in its history.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    pub n_parameters: usize,
    /// Largest resident memory until the end of training, in MiB.
    pub peak_mib: Option<f64>,
    pub image_ms: f64,
}

/// Images in a forward pass, and passes.
const BATCH: usize = 100;
const PASSES: usize = 5;

/// The costs in a file, measured where it is missing or damaged.
pub(super) fn costs(
    path: &Path,
    n_parameters: usize,
    network: &PlainNetwork,
    images: &ImageSet,
) -> Result<Costs> {
    let peak_mib = match read_json(path) {
        Ok(Some(before)) => return Ok(before),
        Ok(None) => peak_mib(),
        Err(error) => {
            note(&format!("measured again: {error}"));
            None
        }
    };
    let n = images.len().min(BATCH);
    let batch = images.tensor(0..n, network.dtype(), &Device::Cpu)?;
    let pass = |_| {
        let start = Instant::now();
        network.forward(&batch).map(|_| start.elapsed().as_secs_f64())
    };
    let mut seconds = (0..PASSES).map(pass).collect::<lipconv::Result<Vec<f64>>>()?;
    seconds.sort_by(f64::total_cmp);
    let costs = Costs { n_parameters, peak_mib, image_ms: 1e3 * seconds[PASSES / 2] / n as f64 };
    write_json(path, &costs)?;
    Ok(costs)
}

fn peak_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
