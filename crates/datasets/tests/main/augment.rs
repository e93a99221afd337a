//! Crops, flips and operations: what the seed says, whatever the order and the thread.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use candle_core::Device;
use lipconv::{Batch, BatchSource};
use lipconv_datasets::{
    Augmentation, BatchOrder, BatchProducer, Draw, ImageSet, ImageSetParts, PixelOperation,
    RandAugment,
};
use serde_json::Value;

/// n images c x h x w whose pixels are all different as far as bytes allow, and never 0.
fn images(n: usize, shape: [usize; 3]) -> ImageSet {
    let len = n * shape.iter().product::<usize>();
    ImageSet::new(ImageSetParts {
        name: "numbers".into(),
        shape,
        n_classes: 10,
        pixels: (0..len).map(|i| 1 + (i * 37 % 255) as u8).collect(),
        labels: (0..n).map(|i| (i % 10) as u8).collect(),
        synthetic: true,
    })
    .unwrap()
}

/// The definition, pixel by pixel.
fn defined(padding: usize, draw: Draw, pixels: &[u8], [c, h, w]: [usize; 3]) -> Vec<u8> {
    let padded = |channel: usize, y: usize, x: usize| {
        let inside = (padding..padding + h).contains(&y) && (padding..padding + w).contains(&x);
        if inside { pixels[(channel * h + y - padding) * w + x - padding] } else { 0 }
    };
    let mut out = Vec::new();
    for channel in 0..c {
        for y in 0..h {
            for x in 0..w {
                let x = if draw.flipped { w - 1 - x } else { x };
                out.push(padded(channel, y + draw.dy, x + draw.dx));
            }
        }
    }
    out
}

#[test]
fn every_crop_and_flip_is_the_defined_one() {
    for (padding, shape) in
        [(0, [1, 3, 4]), (1, [3, 4, 4]), (2, [2, 5, 3]), (4, [3, 6, 5]), (5, [1, 2, 3])]
    {
        let set = images(1, shape);
        let pixels = set.image(0).unwrap();
        let augmentation =
            Augmentation { crop_padding: padding as u32, flip: true, ..Augmentation::default() };
        for dy in 0..=2 * padding {
            for dx in 0..=2 * padding {
                for flipped in [false, true] {
                    let draw = Draw { dy, dx, flipped };
                    let mut out = Vec::new();
                    augmentation.apply(draw, pixels, shape, |p| p, &mut out);
                    assert_eq!(out, defined(padding, draw, pixels, shape), "{padding} {draw:?}");
                }
            }
        }
    }
}

#[test]
fn draws_are_uniform_and_differ_between_samples_epochs_and_seeds() {
    let law = Augmentation::CROP_FLIP;
    let n = 9000;
    let (mut rows, mut columns, mut flips) = ([0; 9], [0; 9], 0);
    for sample in 0..n {
        let draw = law.draw(7, 3, sample);
        rows[draw.dy] += 1;
        columns[draw.dx] += 1;
        flips += usize::from(draw.flipped);
    }
    // 1000 expected for each offset, sd 30; 4500 flips, sd 47: five standard deviations
    for count in rows.into_iter().chain(columns) {
        assert!((850..1150).contains(&count), "{rows:?} {columns:?}");
    }
    assert!((4260..4740).contains(&flips), "{flips}");
    let draws = |seed, epoch| (0..50).map(|i| law.draw(seed, epoch, i)).collect::<Vec<_>>();
    assert_eq!(draws(7, 3), draws(7, 3));
    assert_ne!(draws(7, 3), draws(7, 4));
    assert_ne!(draws(7, 3), draws(8, 3));
    let still = Augmentation { crop_padding: 0, flip: false, ..Augmentation::default() };
    assert_eq!(still.draw(7, 3, 5), Draw { dy: 0, dx: 0, flipped: false });
}

fn source(set: &ImageSet, augmentation: Augmentation) -> BatchProducer {
    BatchProducer::new(set.clone(), 4, augmentation, Device::Cpu).unwrap()
}

fn values(batch: &Batch) -> Vec<f32> {
    batch.images.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn batches_are_the_epochs_order_with_each_samples_draw() {
    let shape = [3, 6, 5];
    let set = images(11, shape);
    for augmentation in [Augmentation::default(), Augmentation::CROP_FLIP] {
        let mut source = source(&set, augmentation);
        assert_eq!(source.n_batches(), 3);
        for (epoch, seed) in [(0, 5), (1, u64::MAX)] {
            source.start_epoch(epoch, seed);
            let order = BatchOrder::new(11, 4, seed).unwrap().epoch(epoch as u64);
            for (index, samples) in order.batches().enumerate() {
                let batch = source.batch(index).unwrap();
                assert_eq!(batch.images.dims(), [samples.len(), 3, 6, 5]);
                let labels: Vec<u32> = samples.iter().map(|&i| (i % 10) as u32).collect();
                assert_eq!(batch.labels, labels);
                let padding = augmentation.crop_padding as usize;
                let expected: Vec<f32> = samples
                    .iter()
                    .flat_map(|&i| {
                        let draw = augmentation.draw(seed, epoch as u64, i);
                        defined(padding, draw, set.image(i).unwrap(), shape)
                    })
                    .map(|p| f32::from(p) / 255.0)
                    .collect();
                assert_eq!(values(&batch), expected);
            }
        }
    }
}

#[test]
fn any_batch_can_be_asked_for_with_the_same_bits() {
    let set = images(23, [3, 8, 8]);
    let mut whole = source(&set, Augmentation::CROP_FLIP);
    whole.start_epoch(2, 9);
    let all: Vec<_> = (0..6).map(|i| values(&whole.batch(i).unwrap())).collect();
    for first in [0, 3, 5] {
        let mut resumed = source(&set, Augmentation::CROP_FLIP);
        resumed.start_epoch(2, 9);
        for (index, expected) in all.iter().enumerate().skip(first) {
            assert_eq!(values(&resumed.batch(index).unwrap()), *expected);
        }
    }
    // backwards, and again after the end
    for index in [5, 1, 1, 0] {
        assert_eq!(values(&whole.batch(index).unwrap()), all[index]);
    }
    let error = whole.batch(6).unwrap_err().to_string();
    assert!(error.contains("batch index is 6, expected less than 6"), "{error}");
    whole.start_epoch(3, 9);
    assert_ne!(values(&whole.batch(0).unwrap()), all[0]);
}

/// A device that keeps the images makes the batches that the host makes.
#[test]
fn samples_make_the_same_batches() {
    let shape = [3, 6, 5];
    let set = images(10, shape);
    let padded = Augmentation { crop_padding: 2, flip: true, ..Augmentation::default() };
    for augmentation in [Augmentation::default(), padded, Augmentation::CROP_FLIP] {
        let mut source = source(&set, augmentation);
        let resident = source.resident().unwrap();
        assert_eq!((resident.pixels, resident.labels), (set.pixels(), set.labels()));
        assert_eq!(resident.batch_size, 4);
        for epoch in 0..2 {
            source.start_epoch(epoch, 9);
            for index in [0, 2, 1] {
                let samples = source.samples(index).unwrap();
                let Batch { images, labels } = source.batch(index).unwrap();
                let mut expected = Vec::new();
                for (sample, &label) in samples.iter().zip(&labels) {
                    let image = sample.image as usize;
                    assert_eq!(u32::from(set.labels()[image]), label);
                    // the shift is an offset in the image with `padding` zeros around it
                    let padding = 8;
                    let offset = |shift: i16| (i32::from(shift) + padding) as usize;
                    let (dy, dx) = (offset(sample.shift.0), offset(sample.shift.1));
                    let draw = Draw { dy, dx, flipped: sample.mirrored };
                    let pixels = set.image(image).unwrap();
                    expected.extend(defined(padding as usize, draw, pixels, shape));
                }
                let expected: Vec<f32> = expected.iter().map(|&p| f32::from(p) / 255.0).collect();
                assert_eq!(images.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
            }
            let text = source.samples(3).unwrap_err().to_string();
            assert!(text.contains("batch index is 3, expected less than 3"), "{text}");
        }
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// `tests/data/pillow.py` made the results.
#[test]
fn operations_give_the_pixels_of_pillow() {
    let file: Value = serde_json::from_str(include_str!("../data/pillow.json")).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let shape: [usize; 3] = serde_json::from_value(case["shape"].clone()).unwrap();
        let (level, pixels) = (case["level"].as_f64().unwrap(), bytes(&case["pixels"]));
        for operation in PixelOperation::ALL {
            let expected = match operation {
                PixelOperation::Identity => pixels.clone(),
                _ => bytes(&case["results"][format!("{operation:?}")]),
            };
            assert_eq!(operation.apply(level, shape, &pixels), expected, "{operation:?} {case}");
        }
    }
}

/// Laws that hold for any image, at the smallest sizes too.
#[test]
fn operations_keep_what_they_must() {
    for shape in [[1, 1, 1], [3, 1, 2], [2, 7, 1], [3, 5, 11], [4, 6, 6]] {
        let set = images(1, shape);
        let pixels = set.image(0).unwrap();
        for operation in PixelOperation::ALL {
            for level in [-1.0, -0.3, 0.3, 1.0] {
                let out = operation.apply(level, shape, pixels);
                assert_eq!(out.len(), pixels.len(), "{operation:?}");
                let moves = matches!(
                    operation,
                    PixelOperation::ShearX
                        | PixelOperation::ShearY
                        | PixelOperation::TranslateX
                        | PixelOperation::TranslateY
                        | PixelOperation::Rotate
                );
                if moves {
                    // no pixel of these images is 0, so 0 is from outside
                    assert!(out.iter().all(|p| *p == 0 || pixels.contains(p)), "{operation:?}");
                }
            }
            for (outside, edge) in [(3.0, 1.0), (-2.0, -1.0), (f64::INFINITY, 1.0)] {
                let [outside, edge] =
                    [outside, edge].map(|level| operation.apply(level, shape, pixels));
                assert_eq!(outside, edge, "{operation:?}");
            }
            assert_eq!(operation.apply(0.3, [2, 0, 5], &[]), [0u8; 0], "{operation:?}");
            // solarizing at level 0 still inverts 255
            let changes = matches!(
                operation,
                PixelOperation::Solarize | PixelOperation::AutoContrast | PixelOperation::Equalize
            );
            if !changes {
                assert_eq!(operation.apply(0.0, shape, pixels), pixels, "{operation:?}");
            }
        }
        let flat = vec![77; pixels.len()];
        for operation in [PixelOperation::AutoContrast, PixelOperation::Equalize] {
            assert_eq!(operation.apply(0.3, shape, &flat), flat);
        }
    }
}

#[test]
fn operations_are_drawn_uniformly_from_the_epoch_on() {
    let law = RandAugment { operations: 3, probability: 0.5, after: 2, ..RandAugment::default() };
    let (mut counts, mut changed, mut positive) = ([0; 14], 0, 0);
    let n = 9000;
    for sample in 0..n {
        assert!(law.draw(7, 1, sample).is_empty());
        let drawn = law.draw(7, 2, sample);
        changed += usize::from(!drawn.is_empty());
        for (operation, level) in drawn {
            counts[PixelOperation::ALL.iter().position(|o| *o == operation).unwrap()] += 1;
            assert_eq!(level.abs(), 0.3);
            positive += usize::from(level > 0.0);
        }
    }
    // 4500 images expected, sd 47, with three operations each: of about 13,500 operations 964 of each kind, sd 30, and half of
    // them with a positive level, sd 58; five standard deviations, and what the number of images adds
    assert!((4260..4740).contains(&changed), "{changed}");
    assert!(counts.iter().all(|count| (760..1170).contains(count)), "{counts:?}");
    let total: usize = counts.iter().sum();
    assert!(positive.abs_diff(total / 2) < 300, "{positive} of {total}");
    let draws = |seed, epoch| (0..50).map(|i| law.draw(seed, epoch, i)).collect::<Vec<_>>();
    assert_eq!(draws(7, 3), draws(7, 3));
    assert_ne!(draws(7, 3), draws(7, 4));
    assert_ne!(draws(7, 3), draws(8, 3));
    let always = RandAugment { probability: 1.0, ..law };
    assert!((0..n).all(|i| always.draw(7, 2, i).len() == 3));
    let never = RandAugment { probability: 0.0, ..law };
    assert!((0..n).all(|i| never.draw(7, 2, i).is_empty()));
}

#[test]
fn batches_have_the_operations_after_crop_and_flip() {
    let shape = [3, 8, 6];
    let set = images(11, shape);
    let random = RandAugment { probability: 0.7, after: 1, ..RandAugment::default() };
    let augmentation = Augmentation { random: Some(random), ..Augmentation::CROP_FLIP };
    let mut source = source(&set, augmentation);
    assert!(source.resident().is_none(), "a device would leave the operations out");
    for epoch in [0, 1, 2] {
        source.start_epoch(epoch, 9);
        let order = BatchOrder::new(11, 4, 9).unwrap().epoch(epoch as u64);
        // the last first, as a resumed run asks
        for (index, samples) in order.batches().enumerate().collect::<Vec<_>>().into_iter().rev() {
            let expected = samples.iter().flat_map(|&i| {
                let draw = augmentation.draw(9, epoch as u64, i);
                let image = defined(4, draw, set.image(i).unwrap(), shape);
                let drawn = random.draw(9, epoch as u64, i);
                drawn
                    .into_iter()
                    .fold(image, |image, (operation, level)| operation.apply(level, shape, &image))
            });
            let expected: Vec<f32> = expected.map(|p| f32::from(p) / 255.0).collect();
            assert_eq!(values(&source.batch(index).unwrap()), expected);
        }
    }
}

#[test]
fn settings_outside_their_domain_are_refused() {
    let good = RandAugment::default();
    for (random, message) in [
        (RandAugment { operations: 0, ..good }, "operations is 0, expected 1 to 8"),
        (RandAugment { operations: 9, ..good }, "operations is 9, expected 1 to 8"),
        (RandAugment { magnitude: 31, ..good }, "magnitude is 31, expected 0 to 30"),
        (
            RandAugment { probability: 1.5, ..good },
            "probability is 1.5, expected a number in [0, 1]",
        ),
        (
            RandAugment { probability: f64::NAN, ..good },
            "probability is NaN, expected a number in [0, 1]",
        ),
    ] {
        let augmentation = Augmentation { random: Some(random), ..Augmentation::default() };
        let set = images(3, [1, 2, 2]);
        let error = BatchProducer::new(set, 2, augmentation, Device::Cpu).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
