//! Mini-batch orders.

use std::collections::BTreeSet;

use lipconv_datasets::BatchOrder;

#[test]
fn an_epoch_visits_every_sample_once_in_batches_of_the_size() {
    for (n, batch_size) in [(1, 1), (7, 3), (12, 4), (5, 100), (1000, 128)] {
        let order = BatchOrder::new(n, batch_size, 3).unwrap();
        let epoch = order.epoch(0);
        let sizes: Vec<usize> = epoch.batches().map(<[usize]>::len).collect();
        assert_eq!(sizes.len(), order.n_batches());
        assert!(
            sizes[..sizes.len() - 1].iter().all(|&size| size == batch_size),
            "{n} {batch_size}"
        );
        let seen: BTreeSet<usize> = epoch.batches().flatten().copied().collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
    }
}

#[test]
fn an_order_is_a_function_of_seed_and_epoch_alone() {
    let order = BatchOrder::new(500, 32, 11).unwrap();
    let in_turn: Vec<_> = (0..5).map(|e| order.epoch(e)).collect();
    // recomputed from a saved copy, later epoch first, as after an interruption
    let saved = serde_json::to_string(&order).unwrap();
    let again: BatchOrder = serde_json::from_str(&saved).unwrap();
    for e in (0..5).rev() {
        assert_eq!(again.epoch(e), in_turn[e as usize]);
        assert_eq!(again.epoch(e).batch(3), in_turn[e as usize].batches().nth(3));
    }
    assert_ne!(in_turn[0], in_turn[1]);
    assert_ne!(BatchOrder::new(500, 32, 12).unwrap().epoch(0), in_turn[0]);
    assert_eq!(in_turn[0].batch(16), None);
    assert_eq!(order.in_order().batch(1).unwrap()[..3], [32, 33, 34]);
}

#[test]
fn the_first_samples_of_an_epoch_come_from_everywhere() {
    // a shuffle that favoured a region would shift the mean index of the first batch; its standard deviation is
    // n / sqrt(12 * 40 * 128), about 4
    let (n, epochs) = (1000, 40);
    let order = BatchOrder::new(n, 128, 5).unwrap();
    let sum: usize = (0..epochs).flat_map(|e| order.epoch(e).batch(0).unwrap().to_vec()).sum();
    let mean = sum as f64 / (epochs as f64 * 128.0);
    assert!((mean - 499.5).abs() < 20.0, "mean index {mean}");
}

#[test]
fn empty_sets_and_batches_are_refused() {
    assert_eq!(
        BatchOrder::new(0, 1, 0).unwrap_err().to_string(),
        "number of samples is 0, expected at least 1"
    );
    assert_eq!(
        BatchOrder::new(1, 0, 0).unwrap_err().to_string(),
        "batch size is 0, expected at least 1"
    );
}
