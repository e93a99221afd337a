//! Published test sets, recognised by their content.
//!
//! Definition: a set is a published one if [`ImageSet::sha256`] of all of its images and labels is the hash below, whatever file
//! they came from. The hashes were computed from the files whose own hashes are in `datasets/*.toml`.
//!
//! Not here: STL-10, of which no copy was at hand to compute the hash from.

use super::ImageSet;

/// Title and hash of each.
const TEST_SETS: [(&str, &str); 2] = [
    ("MNIST", "23d86a07e929424612d085d90c655200a7e0b9f8a1624e1ae002c0a6f9c6fe4a"),
    ("CIFAR-10", "cd144d1c8ea5ae42695c77beeddcb406ac1f59a58562e3ceaf466a1ca8e30183"),
];

/// The title of the published test set that this is.
#[must_use]
pub fn published_test_set(set: &ImageSet) -> Option<&'static str> {
    let sha256 = set.sha256();
    TEST_SETS.iter().find(|(_, known)| sha256 == *known).map(|(title, _)| *title)
}

/// The title that a name means, however it is spelled: `mnist`, `CIFAR 10`.
#[must_use]
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
