//! Files that the commands write: whole or not at all, in folders with one writer.
//!
//! Not here: what is in them, the formats of data sets (`lipconv-datasets`) and of networks (`lipconv`).

mod claim;
mod json;
mod provenance;
mod run_dir;

pub use claim::{Claim, begin_anew, claim, lock_folder};
pub use json::{
    JsonLines, check_output, open_own, read, read_json, read_lines, write_atomic, write_json,
};
pub use provenance::Provenance;
pub use run_dir::{EpochMetrics, RunDir, RunFiles};
