//! Image sets and their tensors.

use candle_core::{DType, Device};
use lipconv_datasets::{Error, ImageSet, ImageSetParts};

fn parts() -> ImageSetParts {
    ImageSetParts {
        name: "little".into(),
        shape: [1, 2, 3],
        n_classes: 3,
        pixels: (0..24).map(|i| i * 10).collect(),
        labels: vec![2, 0, 1, 1],
        synthetic: false,
    }
}

#[test]
fn a_tensor_holds_pixels_over_255_in_the_order_asked_for() {
    let set = ImageSet::new(parts()).unwrap();
    let x = set.tensor([3, 0], DType::F32, &Device::Cpu).unwrap();
    assert_eq!(x.dims(), [2, 1, 2, 3]);
    assert_eq!(set.classes(), [2, 0, 1, 1]);
    let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected: Vec<f32> = (18..24).chain(0..6).map(|i| (i * 10) as f32 / 255.0).collect();
    assert_eq!(values, expected);
    let x = set.tensor(1..2, DType::F64, &Device::Cpu).unwrap();
    assert_eq!(x.flatten_all().unwrap().to_vec1::<f64>().unwrap()[5], 110.0 / 255.0);
}

#[test]
fn an_index_outside_the_set_is_refused() {
    let set = ImageSet::new(parts()).unwrap();
    for text in [
        set.tensor([0, 4], DType::F32, &Device::Cpu).unwrap_err().to_string(),
        set.image(4).unwrap_err().to_string(),
    ] {
        assert_eq!(text, "sample index is 4, expected less than 4, the size of little");
    }
    assert_eq!(set.image(3).unwrap(), [180, 190, 200, 210, 220, 230]);
    let error = set.tensor([0], DType::U8, &Device::Cpu).unwrap_err();
    assert_eq!(error.to_string(), "element type is u8, expected f32 or f64");
}

#[test]
fn parts_that_contradict_each_other_are_refused() {
    let refusal = |change: fn(&mut ImageSetParts)| {
        let mut parts = parts();
        change(&mut parts);
        ImageSet::new(parts).unwrap_err()
    };
    let error = refusal(|p| p.labels[2] = 3);
    assert!(matches!(error, Error::Malformed { .. }));
    assert_eq!(error.to_string(), "little: label 2 is 3, expected 0 to 2");
    type Change = fn(&mut ImageSetParts);
    let cases: [(Change, &str); 3] = [
        (|p| p.pixels.truncate(23), "number of pixels is 23, expected 24"),
        (|p| p.shape[1] = 0, "image shape is 1 x 0 x 3, expected each dimension at least 1"),
        (|p| p.n_classes = 0, "n_classes is 0, expected 1 to 256"),
    ];
    for (change, text) in cases {
        assert_eq!(refusal(change).to_string(), text);
    }
}

#[test]
fn the_head_is_the_first_images_and_the_hash_sees_every_byte() {
    let set = ImageSet::new(parts()).unwrap();
    let head = set.head(2);
    assert_eq!((head.len(), head.labels(), head.pixels()), (2, &[2, 0][..], &set.pixels()[..12]));
    assert_eq!(set.head(100).sha256(), set.sha256());
    assert_ne!(head.sha256(), set.sha256());
    for change in [
        (|p: &mut ImageSetParts| p.pixels[23] += 1) as fn(&mut ImageSetParts),
        |p| p.labels[3] = 0,
        |p| p.shape = [1, 3, 2],
        |p| p.n_classes = 4,
    ] {
        let mut changed = parts();
        change(&mut changed);
        assert_ne!(ImageSet::new(changed).unwrap().sha256(), set.sha256());
    }
}

#[test]
fn a_subset_holds_the_images_asked_for_with_their_labels() {
    let set = ImageSet::new(parts()).unwrap();
    let some = set.subset([3, 0]).unwrap();
    assert_eq!((some.labels(), some.image(1).unwrap()), (&[1, 2][..], set.image(0).unwrap()));
    assert_eq!(set.subset(0..4).unwrap().sha256(), set.sha256());
    assert!(set.subset([4]).is_err() && set.subset([]).unwrap().is_empty());
}
