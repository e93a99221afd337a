//! Activations on signals stored features x images: comparisons and moves, no arithmetic.

/// Maxima of the first and second half of the features, then minima: MaxMin on channel i and i + c/2,
/// since a channel's pixels and the images are inner indices.
pub(super) fn max_min(signal: &mut [f64]) {
    let (first, second) = signal.split_at_mut(signal.len() / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let (x, y) = (*a, *b);
        (*a, *b) = if x < y { (y, x) } else { (x, y) };
    }
}

/// Sorts each group of `group` consecutive channels ascending; `stride` values make a channel.
pub(super) fn group_sort(signal: &mut [f64], group: usize, stride: usize) {
    let mut values = vec![0.0; group];
    for channels in signal.chunks_exact_mut(group * stride) {
        for i in 0..stride {
            (0..group).for_each(|g| values[g] = channels[g * stride + i]);
            values.sort_unstable_by(f64::total_cmp);
            (0..group).for_each(|g| channels[g * stride + i] = values[g]);
        }
    }
}

/// `max(x, 0)`; NaN stays.
pub(super) fn relu(signal: &mut [f64]) {
    signal.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_move_values() {
        let mut s = [1.0, -2.0, 0.5, 3.0];
        max_min(&mut s);
        assert_eq!(s, [1.0, 3.0, 0.5, -2.0]);
        // two groups of two channels, two values each
        let mut s = [4.0, 1.0, 3.0, 2.0, 8.0, 5.0, 6.0, 7.0];
        group_sort(&mut s, 2, 2);
        assert_eq!(s, [3.0, 1.0, 4.0, 2.0, 6.0, 5.0, 8.0, 7.0]);
        let mut s = [-1.0, 2.0];
        relu(&mut s);
        assert_eq!(s, [0.0, 2.0]);
    }
}
