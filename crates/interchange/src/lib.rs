#![doc = include_str!("../README.md")]
// a library returns values and calls back: it neither prints nor reads a clock
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_types)]

mod describe;
mod draft;
mod error;
mod export;
mod import;
mod movement;
mod proto;
mod pytorch;
mod value;
mod wire;

pub use describe::{Description, LayerEntry, described};
pub use error::{Error, Result};
pub use export::{OPSET, to_onnx};
pub use import::{Imported, from_onnx};
pub use pytorch::{pytorch_module, pytorch_state, pytorch_weights};
