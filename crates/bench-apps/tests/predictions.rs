//! `predict` on images of test sets.

use std::fs;

use image::{Rgb, RgbImage};

use crate::exports::trained;

#[test]
fn a_position_is_one_in_the_whole_test_set() {
    let place = trained();
    // the run was evaluated on 16 images
    let text =
        place.succeed(&["predict", "run", "--index", "3", "--index", "16", "--index", "250"]);
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(rows.len(), 3, "{text}");
    for (row, i) in rows.iter().zip([3, 16, 250]) {
        assert!(row.starts_with(&format!("test image {i}, a ")), "{text}");
    }
    let expected = "expected less than 10000, the number of test images of synthetic digits";
    for i in ["10000", "18446744073709551615"] {
        let text = place.fail(&["predict", "run", "--index", "3", "--index", i]);
        assert_eq!(text, format!("error: --index is {i}, {expected}"));
    }
}

#[test]
fn test_images_of_another_size_are_refused_by_name() {
    let place = trained();
    for part in ["train", "test"] {
        let folder = place.path(&format!("img/{part}/a"));
        fs::create_dir_all(&folder).unwrap();
        RgbImage::from_pixel(32, 32, Rgb([200, 10, 30])).save(folder.join("1.png")).unwrap();
    }
    let text = place.fail(&["predict", "run", "--index", "0", "--dataset", "images:img"]);
    for part in ["images:img", "3 x 32 x 32", "expected 1 x 28 x 28", "run/network.safetensors"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
