// Projectors on the range of the first k columns of n x n matrices, a batch of them: Q = V R^-1 from a Cholesky factor of
// VᵗV, P = Q Qᵗ.  The Gram matrix and its factor are in double precision, so that Q is orthonormal to single precision up to
// condition numbers of 1e7.  The pullback is (I - P)(C + Cᵗ) Q R^-T.
#include "portable.h"

// G = VᵗV, blocks of 16 x 16 threads, one for each tile; grid (tiles, tiles, matrices).
KERNEL projector_gram(const float* v, double* gram, unsigned n, unsigned k) {
  SHARED(float, left, 256);
  SHARED(float, right, 256);
  unsigned tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  unsigned row = blockIdx.y * 16 + ty, column = blockIdx.x * 16 + tx;
  const float* matrix = v + (size_t)blockIdx.z * n * n;
  double sum = 0;
  for (unsigned m = 0; m < n; m += 16) {
    unsigned at = m + ty, i = blockIdx.y * 16 + tx;
    left[ty * 16 + tx] = at < n && i < k ? matrix[(size_t)at * n + i] : 0.0f;
    right[ty * 16 + tx] = at < n && column < k ? matrix[(size_t)at * n + column] : 0.0f;
    __syncthreads();
    for (unsigned p = 0; p < 16; ++p) sum += (double)left[p * 16 + ty] * right[p * 16 + tx];
    __syncthreads();
  }
  if (row < k && column < k) gram[((size_t)blockIdx.z * k + row) * k + column] = sum;
}

// The inverse of the lower Cholesky factor, in place in the lower triangle: elimination with the identity beside it, which
// needs no second matrix because column c of the factor is done with when column c of the inverse begins.  One block for each
// matrix; in shared memory where it fits.
KERNEL cholesky_inverse(double* gram, unsigned k, unsigned in_shared, float* defect, Control* control) {
  DYNAMIC_SHARED(double, shared);
  double* multipliers = shared;
  double* pivot_row = shared + k;
  double* global = gram + (size_t)blockIdx.x * k * k;
  double* g = in_shared ? shared + 2 * k : global;
  if (in_shared)
    for (unsigned i = threadIdx.x; i < k * k; i += blockDim.x) g[i] = global[i];
  __syncthreads();
  double largest = 0;
  for (unsigned i = 0; i < k; ++i) largest = g[(size_t)i * k + i] > largest ? g[(size_t)i * k + i] : largest;
  __syncthreads();
  for (unsigned c = 0; c < k; ++c) {
    double pivot = g[(size_t)c * k + c];
    bool regular = pivot > 1e-13 * largest;  // false for NaN too
    double s = 1.0 / sqrt(regular ? pivot : 1.0);
    if (!regular && threadIdx.x == 0) {
      atomicMax((int*)defect, __float_as_int(1e30f));
      atomicOr(&control->failed, FAILED_RANK);
    }
    for (unsigned i = threadIdx.x; i < k; i += blockDim.x) {
      multipliers[i] = i > c ? g[(size_t)i * k + c] * s : 0.0;
      pivot_row[i] = i < c ? g[(size_t)c * k + i] * s : i == c ? s : g[(size_t)i * k + c] * s;
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i <= c; i += blockDim.x) g[(size_t)c * k + i] = pivot_row[i];
    for (unsigned i = c + 1 + threadIdx.x / 32; i < k; i += blockDim.x / 32) {
      double m = multipliers[i];
      for (unsigned j = threadIdx.x % 32; j <= i; j += 32) {
        double before = j == c ? 0.0 : g[(size_t)i * k + j];
        g[(size_t)i * k + j] = before - m * pivot_row[j];
      }
    }
    __syncthreads();
  }
  if (in_shared)
    for (unsigned i = threadIdx.x; i < k * k; i += blockDim.x) global[i] = g[i];
}

// Q (n x k) = V R^-1 with R^-1 = L^-T, or, with `pull`, out = D R^-T = D L^-1 into the first k columns of n x n matrices.
KERNEL triangular_product(const float* v, const double* inverse, float* out, unsigned n, unsigned k, unsigned pull) {
  SHARED(float, left, 256);
  SHARED(double, right, 256);
  unsigned tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  unsigned row = blockIdx.y * 16 + ty, column = blockIdx.x * 16 + tx, ld = pull ? k : n;
  const float* matrix = v + (size_t)blockIdx.z * n * ld;
  const double* l = inverse + (size_t)blockIdx.z * k * k;
  double sum = 0;
  for (unsigned m = 0; m < k; m += 16) {
    unsigned i = m + ty, at = m + tx;
    left[ty * 16 + tx] = row < n && at < k ? matrix[(size_t)row * ld + at] : 0.0f;
    double value = 0;
    if (i < k && column < k) {
      if (pull) value = i >= column ? l[(size_t)i * k + column] : 0.0;
      else value = column >= i ? l[(size_t)column * k + i] : 0.0;
    }
    right[ty * 16 + tx] = value;
    __syncthreads();
    for (unsigned p = 0; p < 16; ++p) sum += left[ty * 16 + p] * right[p * 16 + tx];
    __syncthreads();
  }
  unsigned out_ld = pull ? n : k;
  if (row < n && column < k) out[((size_t)blockIdx.z * n + row) * out_ld + column] = (float)sum;
}
