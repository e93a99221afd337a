//! Operators that move values: which value of the input stands where in the output.
//!
//! Every function takes the sizes of an input and returns those of the output with, for every value of the output, its place in the input; None
//! for a zero of padding. They act on weights and on signals alike.

use crate::error::{Result, unsupported};

/// Sizes, and of every value its place in the input.
pub(crate) type Moved = (Vec<usize>, Vec<Option<usize>>);

/// Most values of a signal or of a weight that is moved.
const MOST: usize = 1 << 23;

pub(crate) fn n_values(dims: &[usize]) -> usize {
    dims.iter().fold(1, |n: usize, &dim| n.saturating_mul(dim))
}

pub(crate) fn check_size(what: &str, dims: &[usize]) -> Result<()> {
    if n_values(dims) <= MOST && dims.len() <= 16 {
        return Ok(());
    }
    unsupported(what, format!("a value of sizes {dims:?} is too large"))
}

/// The output whose value at `index` is that of the input at `from(index)`.
fn by_index(
    what: &str,
    input: &[usize],
    output: Vec<usize>,
    from: impl Fn(usize, usize) -> Option<usize>,
    axis_of: impl Fn(usize) -> usize,
) -> Result<Moved> {
    check_size(what, &output)?;
    let mut strides = vec![1; input.len()];
    for axis in (0..input.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * input[axis + 1];
    }
    let n = n_values(&output);
    let mut places = Vec::with_capacity(n);
    let mut index = vec![0usize; output.len()];
    for _ in 0..n {
        let place = index
            .iter()
            .enumerate()
            .try_fold(0, |place, (axis, &i)| Some(place + from(axis, i)? * strides[axis_of(axis)]));
        places.push(place);
        for axis in (0..output.len()).rev() {
            index[axis] += 1;
            if index[axis] < output[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok((output, places))
}

/// Output axis i is input axis `order[i]`.
pub(crate) fn transpose(what: &str, dims: &[usize], order: &[usize]) -> Result<Moved> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if sorted != (0..dims.len()).collect::<Vec<_>>() {
        return unsupported(what, format!("{order:?} is no order of {} axes", dims.len()));
    }
    let output = order.iter().map(|&axis| dims[axis]).collect();
    by_index(what, dims, output, |_, i| Some(i), |axis| order[axis])
}

/// Positions `start`, `start + step`, … before `end` of an axis, as ONNX's Slice counts them.
pub(crate) fn slice(
    what: &str,
    dims: &[usize],
    axis: usize,
    (start, end, step): (i64, i64, i64),
) -> Result<Moved> {
    let Some(&size) = dims.get(axis) else {
        return unsupported(what, format!("there is no axis {axis}"));
    };
    let n = size as i64;
    if step == 0 {
        return unsupported(what, "the step is 0");
    }
    let from_end = |at: i64| if at < 0 { at.saturating_add(n) } else { at };
    let (start, end) = (from_end(start), from_end(end));
    // backwards a start in front of the axis is the first position, but an end there is beyond it
    let (start, end) = match step > 0 {
        _ if n == 0 => (0, 0),
        true => (start.clamp(0, n), end.clamp(0, n)),
        false => (start.clamp(0, n - 1), end.clamp(-1, n - 1)),
    };
    let mut positions = Vec::new();
    let mut at = start;
    while if step > 0 { at < end } else { at > end } {
        positions.push(at as usize);
        at = at.saturating_add(step);
    }
    let mut output = dims.to_vec();
    output[axis] = positions.len();
    let from = |a: usize, i: usize| Some(if a == axis { positions[i] } else { i });
    by_index(what, dims, output, from, |axis| axis)
}

/// Padding before and after each axis, by zeros or cyclically.
pub(crate) fn pad(
    what: &str,
    dims: &[usize],
    pads: &[(i64, i64)],
    is_cyclic: bool,
) -> Result<Moved> {
    let mut output = Vec::with_capacity(dims.len());
    for (&dim, &(before, after)) in dims.iter().zip(pads) {
        let size = (dim as i64).saturating_add(before).saturating_add(after);
        let fits = before.abs() <= 1 << 20 && after.abs() <= 1 << 20 && size >= 0;
        // a cyclic crop would come before the wrap
        if !fits || (is_cyclic && (dim == 0 || before < 0 || after < 0)) {
            return unsupported(what, format!("padding {before} and {after} of {dim} values"));
        }
        output.push(size as usize);
    }
    let from = |axis: usize, i: usize| {
        let at = i as i64 - pads[axis].0;
        let size = dims[axis] as i64;
        let at = if is_cyclic { at.rem_euclid(size) } else { at };
        (0..size).contains(&at).then_some(at as usize)
    };
    by_index(what, dims, output, from, |axis| axis)
}

/// Reads a target of Reshape: 0 keeps a size, -1 takes what is left.
pub(crate) fn reshaped(
    what: &str,
    dims: &[usize],
    target: &[i64],
    zeros_are_zeros: bool,
) -> Result<Vec<usize>> {
    let mut output = Vec::with_capacity(target.len());
    let mut open = None;
    for (axis, &size) in target.iter().enumerate() {
        output.push(match size {
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            0 if !zeros_are_zeros && axis < dims.len() => dims[axis],
            size if size >= 0 => size as usize,
            _ => return unsupported(what, format!("{target:?} are no sizes")),
        });
    }
    let (n, known) = (n_values(dims), n_values(&output));
    if let Some(axis) = open {
        output[axis] = n.checked_div(known).unwrap_or(0);
    }
    if n_values(&output) != n || output.len() > 16 {
        return unsupported(what, format!("{dims:?} cannot have the sizes {target:?}"));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(moved: Moved) -> Vec<usize> {
        moved.1.into_iter().map(|place| place.unwrap_or(99)).collect()
    }

    #[test]
    fn values_go_where_numpy_puts_them() {
        assert_eq!(places(transpose("t", &[2, 3], &[1, 0]).unwrap()), [0, 3, 1, 4, 2, 5]);
        assert_eq!(places(slice("s", &[2, 3], 1, (-1, i64::MAX, 1)).unwrap()), [2, 5]);
        assert_eq!(places(slice("s", &[3], 0, (-1, -i64::MAX, -1)).unwrap()), [2, 1, 0]);
        // ONNX, unlike numpy, puts a start in front of the axis on its first position
        assert_eq!(places(slice("s", &[3], 0, (-7, -i64::MAX, -1)).unwrap()), [0]);
        assert_eq!(places(slice("s", &[0], 0, (0, -7, -1)).unwrap()), [0usize; 0]);
        assert_eq!(places(pad("p", &[3], &[(1, 2)], true).unwrap()), [2, 0, 1, 2, 0, 1]);
        assert_eq!(places(pad("p", &[2], &[(1, 1)], false).unwrap()), [99, 0, 1, 99]);
        assert_eq!(reshaped("r", &[2, 6], &[0, -1, 2], false).unwrap(), [2, 3, 2]);
        assert!(reshaped("r", &[2, 6], &[5, -1], false).is_err());
        assert!(transpose("t", &[2, 3], &[0, 0]).is_err());
    }
}
