//! The strokes of the ten digits, several ways to write each.
//!
//! Coordinates lie in the unit square, x to the right and y down. A [`Kind::Curve`] passes through all of its points
//! (Catmull-Rom), a [`Kind::Loop`] also returns to its first.

/// A point of the plane.
pub(super) type Point = [f32; 2];

/// The strokes of one way to write a digit.
pub(super) type Variant = &'static [Stroke];

/// How the points of a stroke are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Line,
    Curve,
    Loop,
}

/// One movement of the pen.
#[derive(Debug)]
pub(super) struct Stroke {
    pub(super) kind: Kind,
    pub(super) points: &'static [Point],
}

const fn line(points: &'static [Point]) -> Stroke {
    Stroke { kind: Kind::Line, points }
}

const fn curve(points: &'static [Point]) -> Stroke {
    Stroke { kind: Kind::Curve, points }
}

const fn ring(points: &'static [Point]) -> Stroke {
    Stroke { kind: Kind::Loop, points }
}

const ZERO: [Variant; 2] = [
    &[ring(&[[0.5, 0.08], [0.75, 0.25], [0.78, 0.6], [0.55, 0.92], [0.28, 0.78], [0.22, 0.4]])],
    &[ring(&[[0.55, 0.1], [0.72, 0.3], [0.66, 0.7], [0.45, 0.9], [0.3, 0.7], [0.36, 0.3]])],
];

const ONE: [Variant; 3] = [
    &[line(&[[0.5, 0.08], [0.5, 0.92]])],
    &[line(&[[0.34, 0.28], [0.53, 0.09], [0.53, 0.92]])],
    &[line(&[[0.36, 0.26], [0.52, 0.09], [0.52, 0.9]]), line(&[[0.3, 0.9], [0.74, 0.9]])],
];

const TWO: [Variant; 2] = [
    &[
        curve(&[[0.24, 0.3], [0.36, 0.12], [0.62, 0.11], [0.73, 0.3], [0.6, 0.54], [0.24, 0.88]]),
        line(&[[0.24, 0.88], [0.8, 0.88]]),
    ],
    &[curve(&[
        [0.26, 0.26],
        [0.5, 0.08],
        [0.7, 0.28],
        [0.55, 0.58],
        [0.28, 0.86],
        [0.2, 0.74],
        [0.4, 0.74],
        [0.62, 0.9],
        [0.82, 0.82],
    ])],
];

const THREE: [Variant; 2] = [
    &[
        curve(&[[0.26, 0.18], [0.5, 0.08], [0.7, 0.24], [0.6, 0.43], [0.42, 0.48]]),
        curve(&[[0.42, 0.48], [0.66, 0.54], [0.74, 0.72], [0.52, 0.91], [0.24, 0.82]]),
    ],
    &[
        line(&[[0.26, 0.12], [0.7, 0.12], [0.46, 0.42]]),
        curve(&[[0.46, 0.42], [0.7, 0.52], [0.72, 0.75], [0.5, 0.91], [0.25, 0.83]]),
    ],
];

const FOUR: [Variant; 3] = [
    &[line(&[[0.3, 0.1], [0.24, 0.55], [0.78, 0.55]]), line(&[[0.66, 0.22], [0.62, 0.92]])],
    &[line(&[[0.62, 0.92], [0.62, 0.1], [0.2, 0.63], [0.82, 0.63]])],
    &[
        curve(&[[0.28, 0.12], [0.24, 0.38], [0.36, 0.52], [0.64, 0.46]]),
        line(&[[0.7, 0.1], [0.64, 0.46], [0.58, 0.92]]),
    ],
];

const FIVE: [Variant; 2] = [
    &[
        line(&[[0.74, 0.12], [0.33, 0.12], [0.3, 0.46]]),
        curve(&[[0.3, 0.46], [0.56, 0.4], [0.75, 0.6], [0.62, 0.85], [0.26, 0.87]]),
    ],
    &[
        curve(&[[0.34, 0.16], [0.3, 0.44], [0.6, 0.46], [0.7, 0.68], [0.52, 0.9], [0.24, 0.82]]),
        line(&[[0.34, 0.16], [0.74, 0.1]]),
    ],
];

const SIX: [Variant; 2] = [
    &[curve(&[
        [0.66, 0.1],
        [0.4, 0.3],
        [0.27, 0.62],
        [0.42, 0.9],
        [0.66, 0.86],
        [0.72, 0.66],
        [0.54, 0.52],
        [0.31, 0.66],
    ])],
    &[curve(&[
        [0.5, 0.08],
        [0.34, 0.36],
        [0.3, 0.7],
        [0.46, 0.91],
        [0.64, 0.78],
        [0.58, 0.6],
        [0.42, 0.62],
        [0.32, 0.76],
    ])],
];

const SEVEN: [Variant; 3] = [
    &[line(&[[0.24, 0.13], [0.76, 0.13], [0.42, 0.92]])],
    &[line(&[[0.24, 0.15], [0.76, 0.12], [0.46, 0.92]]), line(&[[0.38, 0.5], [0.72, 0.48]])],
    &[curve(&[[0.22, 0.24], [0.3, 0.13], [0.56, 0.16], [0.76, 0.12], [0.58, 0.5], [0.48, 0.92]])],
];

const EIGHT: [Variant; 2] = [
    &[ring(&[
        [0.5, 0.48],
        [0.3, 0.3],
        [0.5, 0.09],
        [0.7, 0.28],
        [0.5, 0.48],
        [0.27, 0.72],
        [0.5, 0.92],
        [0.73, 0.72],
    ])],
    &[
        ring(&[[0.5, 0.08], [0.67, 0.26], [0.5, 0.45], [0.33, 0.26]]),
        ring(&[[0.5, 0.45], [0.73, 0.68], [0.5, 0.92], [0.27, 0.68]]),
    ],
];

const NINE: [Variant; 3] = [
    &[
        ring(&[[0.52, 0.09], [0.3, 0.24], [0.4, 0.46], [0.66, 0.4], [0.7, 0.2]]),
        line(&[[0.7, 0.2], [0.66, 0.92]]),
    ],
    &[curve(&[
        [0.68, 0.24],
        [0.48, 0.1],
        [0.3, 0.28],
        [0.44, 0.48],
        [0.66, 0.36],
        [0.68, 0.24],
        [0.66, 0.6],
        [0.5, 0.9],
        [0.3, 0.84],
    ])],
    &[
        ring(&[[0.5, 0.1], [0.32, 0.27], [0.5, 0.46], [0.67, 0.27]]),
        curve(&[[0.67, 0.27], [0.66, 0.6], [0.54, 0.92]]),
    ],
];

/// The ways to write `digit`, which is less than 10.
pub(super) fn variants(digit: u8) -> &'static [Variant] {
    const ALL: [&[Variant]; 10] =
        [&ZERO, &ONE, &TWO, &THREE, &FOUR, &FIVE, &SIX, &SEVEN, &EIGHT, &NINE];
    ALL[usize::from(digit)]
}

/// Pieces into which each span of a curve is cut.
const PIECES: usize = 6;

/// The polyline that a pen draws through `points`.
pub(super) fn flatten(points: &[Point], kind: Kind) -> Vec<Point> {
    let n = points.len();
    let n_spans = match kind {
        Kind::Line => return points.to_vec(),
        Kind::Curve => n - 1,
        Kind::Loop => n,
    };
    let at = |i: isize| match kind {
        Kind::Loop => points[i.rem_euclid(n as isize) as usize],
        _ => points[i.clamp(0, n as isize - 1) as usize],
    };
    let mut polyline = vec![points[0]];
    for span in 0..n_spans as isize {
        let control = [at(span - 1), at(span), at(span + 1), at(span + 2)];
        polyline
            .extend((1..=PIECES).map(|piece| catmull_rom(control, piece as f32 / PIECES as f32)));
    }
    polyline
}

/// The uniform Catmull-Rom spline from control point 1 (t = 0) to control point 2 (t = 1).
fn catmull_rom(p: [Point; 4], t: f32) -> Point {
    let along = |i: usize| {
        let [a, b, c, d] = [p[0][i], p[1][i], p[2][i], p[3][i]];
        let cubic = 3.0 * (b - c) + d - a;
        let quadratic = 2.0 * a - 5.0 * b + 4.0 * c - d;
        b + 0.5 * t * ((c - a) + t * (quadratic + t * cubic))
    };
    [along(0), along(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_passes_through_its_points_and_a_loop_closes() {
        let points = [[0.0, 0.0], [1.0, 0.5], [0.25, 1.0]];
        let open = flatten(&points, Kind::Curve);
        assert_eq!(open.len(), 1 + 2 * PIECES);
        for (i, p) in points.iter().enumerate() {
            assert_eq!(open[i * PIECES], *p);
        }
        let closed = flatten(&points, Kind::Loop);
        assert_eq!(closed.first(), closed.last());
        assert_eq!(flatten(&points, Kind::Line), points);
    }

    #[test]
    fn every_glyph_lies_in_the_unit_square_with_strokes_of_two_points_or_more() {
        for digit in 0..10 {
            for stroke in variants(digit).iter().copied().flatten() {
                assert!(stroke.points.len() >= 2, "digit {digit}");
                assert!(
                    stroke.points.iter().flatten().all(|c| (0.0..=1.0).contains(c)),
                    "digit {digit}"
                );
            }
        }
    }
}
