//! Tests of the readers, of downloads, and of what images become on their way to a network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod augment;
mod batches;
mod cifar10;
mod decode;
mod download;
mod encode;
mod folders;
mod idx;
mod image_set;
mod locate;
mod manifest;
mod resize;
mod stl10;
mod support;
mod synthetic;
