//! Laws, reference vectors and error texts of block convolution; one binary, one module per subject.

mod assembly;
mod bcop;
mod bounds;
mod errors;
mod golden;
mod kernels;
mod spectra;
mod support;
