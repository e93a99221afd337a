//! Crops and flips: what the seed says, whatever the order and the thread.

use candle_core::Device;
use lipconv::{Batch, BatchSource};
use lipconv_datasets::{Augmentation, BatchOrder, BatchProducer, Draw, ImageSet, ImageSetParts};

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
        let augmentation = Augmentation { crop_padding: padding as u32, flip: true };
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
    let still = Augmentation { crop_padding: 0, flip: false };
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
    let padded = Augmentation { crop_padding: 2, flip: true };
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
