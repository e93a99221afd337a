//! Labels of components: a sign and one degree for each axis.

use std::fmt;

/// The sign of a determinant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sign {
    /// -1
    Minus,
    /// +1
    Plus,
}

/// det A(z) = sign z^degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label1 {
    /// det A(1).
    pub sign: Sign,
    /// The winding number of det A on the unit circle.
    pub degree: usize,
}

/// det A(y, z) = sign y^vertical z^horizontal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label2 {
    /// det A(1, 1).
    pub sign: Sign,
    /// Winding number in y, the first kernel axis.
    pub vertical: usize,
    /// Winding number in z, the second kernel axis.
    pub horizontal: usize,
}

impl Sign {
    /// Both signs.
    pub const BOTH: [Self; 2] = [Self::Minus, Self::Plus];

    /// -1 or 1.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::Minus => -1.0,
            Self::Plus => 1.0,
        }
    }

    pub(super) fn of(x: f64) -> Self {
        if x < 0.0 { Self::Minus } else { Self::Plus }
    }
}

/// All labels of 1-D kernels of size k with n x n blocks: 2(k-1)n + 2 of them; none for k = 0 or n = 0.
pub fn labels_1d(n: usize, k: usize) -> impl Iterator<Item = Label1> {
    let signs = if n == 0 || k == 0 { &[] } else { &Sign::BOTH[..] };
    let degrees = move || 0..=k.saturating_sub(1) * n;
    signs.iter().flat_map(move |&sign| degrees().map(move |degree| Label1 { sign, degree }))
}

/// All labels of k x k kernels with n x n blocks: 2((k-1)n + 1)² of them; none for k = 0 or n = 0.
pub fn labels_2d(n: usize, k: usize) -> impl Iterator<Item = Label2> {
    let degrees = 0..=k.saturating_sub(1) * n;
    labels_1d(n, k).flat_map(move |Label1 { sign, degree: vertical }| {
        degrees.clone().map(move |horizontal| Label2 { sign, vertical, horizontal })
    })
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Minus => "-",
            Self::Plus => "+",
        })
    }
}

impl fmt::Display for Label1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {})", self.sign, self.degree)
    }
}

impl fmt::Display for Label2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}, {})", self.sign, self.vertical, self.horizontal)
    }
}
