//! IDX files drawn by the tests, and a folder to put them in. The tests of bench-apps include this file.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Big-endian words followed by bytes.
pub(crate) fn idx(words: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    file.extend_from_slice(bytes);
    file
}

/// An image file of n images h x w whose pixels count upwards.
pub(crate) fn idx_images(n: u32, h: u32, w: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..n * h * w).map(|i| (i % 251) as u8).collect();
    idx(&[0x0803, n, h, w], &pixels)
}

/// A label file.
pub(crate) fn idx_labels(labels: &[u8]) -> Vec<u8> {
    idx(&[0x0801, labels.len() as u32], labels)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A complete little MNIST: six training and four test images of 4 x 3 pixels, gzipped.
pub(crate) fn write_little_mnist(dir: &Path) {
    write(dir, "train-images-idx3-ubyte.gz", &gzip(&idx_images(6, 4, 3)));
    write(dir, "train-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[0, 1, 2, 3, 4, 9])));
    write(dir, "t10k-images-idx3-ubyte.gz", &gzip(&idx_images(4, 4, 3)));
    write(dir, "t10k-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[9, 8, 7, 6])));
}
