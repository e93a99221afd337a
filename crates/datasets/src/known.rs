//! Published test sets, recognised by their content.
//!
//! Definition: a set is a published one if [`ImageSet::sha256`] of all of its images and labels is the hash below, whatever file
//! they came from. The hash was computed from the files whose own hashes are in `manifests/mnist.toml`.
//!
//! Not here: CIFAR-10 and STL-10, of which no copy with the published hash was at hand.

use crate::image_set::ImageSet;

/// Title of each, and hash where it is known.
const TEST_SETS: [(&str, Option<&str>); 3] = [
    ("MNIST", Some("23d86a07e929424612d085d90c655200a7e0b9f8a1624e1ae002c0a6f9c6fe4a")),
    ("CIFAR-10", None),
    ("STL-10", None),
];

/// The title of the published test set that this is.
pub fn published_test_set(set: &ImageSet) -> Option<&'static str> {
    let sha256 = set.sha256();
    TEST_SETS.iter().find(|(_, known)| Some(sha256.as_str()) == *known).map(|(title, _)| *title)
}

/// Whether the published test set of this title would be recognised.
pub fn has_known_hash(title: &str) -> bool {
    TEST_SETS.iter().any(|(known, hash)| *known == title && hash.is_some())
}

/// The title that a name means, however it is spelled: `mnist`, `CIFAR 10`.
pub fn published_name(name: &str) -> Option<&'static str> {
    let plain = |name: &str| -> String {
        name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    TEST_SETS.iter().find(|(title, _)| plain(name) == plain(title)).map(|(title, _)| *title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_however_they_are_spelled() {
        for name in ["MNIST", "mnist", " Mnist ", "M-NIST"] {
            assert_eq!(published_name(name), Some("MNIST"), "{name}");
        }
        assert_eq!(published_name("cifar10"), Some("CIFAR-10"));
        for name in ["", "easy", "MNIST-C", "mnist test"] {
            assert_eq!(published_name(name), None, "{name}");
        }
    }
}
