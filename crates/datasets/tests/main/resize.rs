//! Images at another size.

use lipconv_datasets::{ImageSet, ImageSetParts, resized, resized_image};

fn set(shape: [usize; 3], pixels: Vec<u8>) -> ImageSet {
    let labels = vec![0; pixels.len() / shape.iter().product::<usize>()];
    let (name, n_classes, synthetic) = ("squares".into(), 1, false);
    ImageSet::new(ImageSetParts { name, shape, n_classes, pixels, labels, synthetic }).unwrap()
}

#[test]
fn a_whole_factor_repeats_every_pixel() {
    let images = set([2, 1, 2], vec![1, 2, 3, 4, 5, 6, 7, 8]);
    let twice = resized(&images, 2, 4).unwrap();
    assert_eq!(twice.shape(), [2, 2, 4]);
    assert_eq!(twice.image(0).unwrap(), [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
    assert_eq!(twice.image(1).unwrap()[..8], [5, 5, 6, 6, 5, 5, 6, 6]);
}

#[test]
fn the_own_size_changes_nothing() {
    let images = set([1, 2, 2], vec![9, 8, 7, 6]);
    assert_eq!(resized(&images, 2, 2).unwrap().pixels(), images.pixels());
}

#[test]
fn smaller_images_average_and_keep_what_is_constant() {
    let images = set([1, 4, 4], [vec![200; 16], [0, 0, 100, 100].repeat(4)].concat());
    let half = resized(&images, 2, 2).unwrap();
    assert_eq!(half.image(0).unwrap(), [200; 4]);
    let [left, right] = [half.image(1).unwrap()[0], half.image(1).unwrap()[1]];
    assert!(left < 30 && right > 70 && left + right == 100, "{left} {right}");
    // neither side is a multiple of the other
    assert_eq!(resized(&images, 3, 5).unwrap().image(0).unwrap(), [200; 15]);
}

#[test]
fn the_pixels_are_those_of_the_image_crate() {
    for (h, w, height, width) in [(7, 9, 4, 4), (28, 20, 30, 45), (1, 50, 3, 2), (33, 31, 32, 62)] {
        let pixels: Vec<u8> = (0..h * w).map(|i| (i * i * 31 + 7 * i) as u8).collect();
        let image = image::GrayImage::from_raw(w as u32, h as u32, pixels.clone()).unwrap();
        let filter = image::imageops::FilterType::Triangle;
        let expected = image::imageops::resize(&image, width as u32, height as u32, filter);
        let found = resized_image(&pixels, [1, h, w], height, width).unwrap();
        assert_eq!(found.as_ref(), expected.as_raw(), "{h} x {w} to {height} x {width}");
    }
}

#[test]
fn sizes_outside_the_domain_are_refused() {
    let text = resized_image(&[1], [1, 1, 1], 0, 1).unwrap_err().to_string();
    assert_eq!(text, "image size is 0, expected 1 to 4096");
    let text = resized_image(&[1], [1, 1, 1], 1, 5000).unwrap_err().to_string();
    assert_eq!(text, "image size is 5000, expected 1 to 4096");
    let text = resized_image(&[1, 2], [1, 1, 1], 1, 1).unwrap_err().to_string();
    assert_eq!(text, "number of pixels is 2, expected 1");
}
