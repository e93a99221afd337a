//! Rigorous upper bounds of the operator norm of cyclic convolutions.
//!
//! Definition. For an OIHW layer weight as stored, N(h, w) is the largest singular value of its cyclic convolution on h
//! x w images in exact arithmetic. [`cyclic_norm_bound`] returns K >= N(h, w) for all h >= kh, w >= kw at once, and
//! [`cyclic_norm_bound_on`] returns K >= N(h, w) for one size. Both count every rounding error of their own.
//!
//! Notation. u = 2⁻⁵³; γ_m = m u / (1 - m u). A sum of m products evaluated in any order, with or without fused
//! multiply-adds, is off by at most γ_m times the sum of absolute values (Higham, "Accuracy and Stability of Numerical
//! Algorithms", section 3.1), so that a product of matrices with inner length m has
//! |fl(AB) - AB| <= γ_m |A| |B| entrywise and at most γ_m ‖A‖_F ‖B‖_F in Frobenius norm. Nothing else is assumed of
//! BLAS than that it computes inner products in some order; in particular no fast (Strassen-like) multiplication.
//!
//! # For every image size
//!
//! With the block autocorrelation `G_s = Σ_a X[a]ᵗ X[a+s]`, MᵗM is the convolution with taps G_s, each tap a matrix times
//! a permutation of the pixels. Hence N² = ‖MᵗM‖₂ <= Σ_s ‖G_s‖₂ = ‖G_0‖₂ + 2 Σ_{s>0} ‖G_s‖₂, on any image on which the
//! kernel fits. MMᵗ has the same norm: the smaller Gram side is taken.
//!
//! 1. *Scaling.* X is multiplied by a power of two so that its largest entry lies in [1/2, 1). This is exact up to
//!    underflow; every underflow here and below changes a number by at most 2⁻¹⁰²², and fewer than 2⁶⁰ of them happen,
//!    so all of them together are below the 1e-280 that is added. Since N >= 1/2 this is of no other effect.
//! 2. *Centre.* For any c: ‖G_0‖₂ <= c + ‖G_0 - cI‖₂; c = tr G_0 / n, which is 1 to rounding for orthonormal kernels. The
//!    subtraction rounds each diagonal entry by a factor 1 + δ, |δ| <= u: at most u ‖D‖_F for the computed difference D.
//! 3. *Rounding of G.* With m_s products per entry of G_s, the computed Ĝ_s is off by at most
//!    `γ_{m_s} Σ_a ‖X[a]‖_F ‖X[a+s]‖_F <= γ_{m_s} ‖X‖_F²` (Cauchy-Schwarz) in Frobenius norm.
//! 4. *Norm of one tap.* ‖D‖₂ <= ‖D‖_F, and ‖D‖₂² = ‖DᵗD‖₂ <= ‖fl(DᵗD)‖₂ + γ_n ‖D‖_F², applied up to twice where
//!    ‖D‖_F matters: for a full-rank D this lowers the excess of the Frobenius norm from n^(1/2) to n^(1/8).
//! 5. *Frobenius norms.* A computed sum q of N squares is at least (1 - γ_{N+1}) times the exact one, so
//!    ‖D‖_F <= √(q / (1 - γ_{N+1})), rounded up.
//! 6. All further sums, products and roots are rounded upwards.
//!
//! Tightness. For orthonormal kernels rounded to f32 the excess is below 1e-6, mostly far below. For other kernels the
//! sum over shifts overestimates by up to a factor of the kernel's size: use [`cyclic_norm_bound_on`] there.
//!
//! # On one image size
//!
//! N(h, w) is the largest ‖X̂(ω)‖₂ over the frequencies, one of each conjugate pair.
//!
//! 7. *Symbol.* Twiddle factors: cos and sin are each within 64 u of the truth (proof in the module that computes them),
//!    so a factor is within 91 u as a complex number, and the product of two within 2 · 91 u + 91² u² + 3 u (1 + 91 u)²
//!    < 256 u = τ. Accumulating K taps, with one product and one sum each, the computed Â is off by at most
//!    `ε_A = √2 (γ_{K+1} (1 + τ) + τ) Σ_a ‖X[a]‖_F`, hence ‖X̂(ω)‖₂ <= ‖Â‖₂ + ε_A.
//! 8. *Gram.* C = Â* Â is computed as S + iK by real products of inner length 2m (m rows). Each part is off by at most
//!    γ_{2m} times a matrix of Frobenius norm at most ‖Â‖_F² (for K: 2 ‖Re‖_F ‖Im‖_F <= ‖Â‖_F²), together
//!    √2 γ_{2m} ‖Â‖_F² = ε_C. The Hermitian matrix Ĉ that is read off the lower triangle obeys the same bound, because
//!    the entrywise bounds are symmetric. ‖Â‖₂² <= λ_max(Ĉ) + ε_C.
//! 9. *Certificate.* For μ >= 0 and any matrix L whatever, μI - Ĉ = L L* + E gives λ_max(Ĉ) <= μ + ‖E‖_F. L is the
//!    computed Cholesky factor of μI - Ĉ, but nothing is assumed of it: E is evaluated from L L*, computed as in step 8
//!    with inner length 2n, off by at most √2 γ_{2n} ‖L‖_F²; the two subtractions per entry are covered by doubling u:
//!    each adds at most u times the magnitude of its result, 2u (‖μI - Ĉ‖_F + ‖E‖_F) in total.
//! 10. N² <= μ + ‖E‖_F + ε_C for the worst frequency, then step 7 and scaling back, all rounded upwards.
//!
//! μ is an estimate of the largest eigenvalue over all frequencies (power iteration ranks them, a decomposition of the
//! first few gives the value), raised by 4e-5; where the Cholesky factorisation fails the frequency has a larger
//! eigenvalue, which is then computed and replaces the estimate. An estimate that is too low costs time, one that is too high costs tightness, neither can make the bound wrong.
//!
//! Tightness: about 2e-5 relative for any kernel. Cost: O(n²) per frequency for the estimate and about 20 n³ flops for
//! the certificate, frequencies in parallel.
//!
//! Errors. [`Error::Empty`](crate::Error::Empty), [`Error::NonFinite`](crate::Error::NonFinite),
//! [`Error::KernelExceedsImage`](crate::Error::KernelExceedsImage), [`Error::Overflow`](crate::Error::Overflow) when the
//! norm itself exceeds f64, [`Error::Lapack`](crate::Error::Lapack).

mod every_size;
mod on_image;
mod upper;

pub use every_size::cyclic_norm_bound;
pub use on_image::cyclic_norm_bound_on;
