//! Files that the commands write: whole or not at all, in folders with one writer.
//!
//! Not here: what is in them, the formats of data sets ([`crate::data`]) and of networks (`lipconv`).

mod atomic;
mod claim;
mod json;
mod lines;
mod provenance;
mod run_dir;

pub use atomic::{check_output, open_own, write_atomic};
pub use claim::{Claim, claim, lock_folder, move_aside};
pub use json::{read_json, write_json};
pub use lines::{JsonLines, read_lines};
pub use provenance::{Provenance, utc};
pub use run_dir::{EpochMetrics, RunDir, RunFiles};
