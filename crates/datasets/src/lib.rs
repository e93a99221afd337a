#![doc = include_str!("../README.md")]
// a library returns values and calls back: it neither prints nor reads a clock
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_types)]

mod archive;
mod augment;
mod batches;
mod cifar10;
mod dataset;
mod decode;
mod download;
mod encode;
mod error;
mod folders;
pub mod idx;
mod image_set;
mod known;
mod locate;
mod manifest;
mod mnist;
mod resize;
mod stl10;
pub mod synthetic;

pub use augment::{Augmentation, Draw, PixelOperation, RandAugment};
pub use batches::{BatchOrder, BatchProducer, EpochOrder};
pub use cifar10::Cifar10Files;
pub use dataset::{DataSource, Dataset};
pub use decode::{Picture, decode_bytes, decode_image, has_colour, is_image};
pub use download::{DownloadOptions, DownloadProgress, download_all, download_file};
pub use encode::{data_url, png, png_grid};
pub use error::{Error, Result};
pub use folders::{flat_folder, idx_folder, image_folder, image_folder_at, images_below};
pub use image_set::{ImageSet, ImageSetParts, PixelTable, SYNTHETIC};
pub use known::{has_known_hash, published_name, published_test_set};
pub use locate::{Fallback, LocateOptions, locate, locate_cifar10, locate_mnist, locate_stl10};
pub use manifest::{Manifest, ManifestFile, ManifestMember, hex, sha256_file};
pub use mnist::{MnistFiles, MnistImages};
pub use resize::{resized, resized_image};
pub use stl10::{Stl10Files, Stl10Part};
