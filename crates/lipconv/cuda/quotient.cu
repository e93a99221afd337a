// Weights that are their parameter over something: see quotient.rs.
#include "portable.h"

// Rows divided by their norms, one block for each row; the norms are kept.
KERNEL normalize_rows(const float* v, float* w, float* norms, unsigned c) {
  SHARED(float, partial, 256);
  const float* row = v + (size_t)blockIdx.x * c;
  float sum = 0;
  for (unsigned i = threadIdx.x; i < c; i += blockDim.x) sum += row[i] * row[i];
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  float norm = sqrtf(partial[0]);
  for (unsigned i = threadIdx.x; i < c; i += blockDim.x) w[(size_t)blockIdx.x * c + i] = row[i] / norm;
  if (threadIdx.x == 0) norms[blockIdx.x] = norm;
}

// The pullback: (dW - W (dW · W)) / norm for each row.
KERNEL normalize_rows_backward(const float* w, const float* dw, const float* norms, float* dv, unsigned c) {
  SHARED(float, partial, 256);
  size_t at = (size_t)blockIdx.x * c;
  float sum = 0;
  for (unsigned i = threadIdx.x; i < c; i += blockDim.x) sum += w[at + i] * dw[at + i];
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  float along = partial[0], norm = norms[blockIdx.x];
  for (unsigned i = threadIdx.x; i < c; i += blockDim.x) dv[at + i] = (dw[at + i] - w[at + i] * along) / norm;
}

// Partial sums of the products of two lists of n numbers, one for each block; add them in order with `total`.
KERNEL dot(const float* a, const float* b, double* partial, unsigned n) {
  SHARED(double, sums, 256);
  double sum = 0;
  EACH(i, n) sum += (double)a[i] * b[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

DEVICE double total(const double* partial, unsigned blocks) {
  double sum = 0;
  for (unsigned i = 0; i < blocks; ++i) sum += partial[i];
  return sum;
}

// x / |x| from the partial sums of the squares; a zero vector stays.  The norm is kept.
KERNEL to_unit(float* x, const double* partial, unsigned blocks, unsigned n, float* norm) {
  float length = (float)sqrt(total(partial, blocks));
  if (blockIdx.x == 0 && threadIdx.x == 0) *norm = length;
  float divisor = length > 1.17549435e-38f ? length : 1.17549435e-38f;
  EACH(i, n) x[i] /= divisor;
}

// p / max(norm, 1); not a number where the norm is none.
KERNEL divide_by_norm(const float* p, float* w, unsigned n, const float* norm) {
  float divisor = (*norm > 1.0f ? *norm : 1.0f) + (*norm - *norm);
  EACH(i, n) w[i] = p[i] / divisor;
}

// The pullback of that: G / s - <G, p> / s^2 D with the gradient D of the norm s where it exceeds 1.
KERNEL norm_gradient(const float* g, const float* d, float* out, unsigned n, const double* partial, unsigned blocks,
                     const float* norm) {
  float s = *norm;
  bool divided = s > 1.0f;
  float share = divided ? (float)(total(partial, blocks) / ((double)s * s)) : 0.0f;
  EACH(i, n) out[i] = divided ? g[i] / s - share * d[i] : g[i];
}

// The largest of n sums and its first place, by one block of 256 threads.
KERNEL largest_sum(const float* sums, unsigned n, float* largest, unsigned* place) {
  SHARED(float, best, 256);
  SHARED(unsigned, where, 256);
  float own = -1.0f;
  unsigned at = 0;
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
    if (sums[i] > own) {
      own = sums[i];
      at = i;
    }
  best[threadIdx.x] = own;
  where[threadIdx.x] = at;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      float other = best[threadIdx.x + half];
      unsigned place_of_other = where[threadIdx.x + half];
      bool sooner = other == best[threadIdx.x] && place_of_other < where[threadIdx.x];
      if (other > best[threadIdx.x] || sooner) {
        best[threadIdx.x] = other;
        where[threadIdx.x] = place_of_other;
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    *largest = best[0];
    *place = where[0];
  }
}

// F / s with s = k sqrt(min(phi[0], phi[1])); 0 / 0 is not a number.
KERNEL divide_by_row_sum(const float* f, float* w, unsigned n, const float* phi, float k) {
  float s = k * sqrtf(phi[0] <= phi[1] ? phi[0] : phi[1]);
  EACH(i, n) w[i] = f[i] / s;
}

DEVICE float sign_of(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f; }

// The pullback of that for an r x c matrix F with the Gram matrices of its rows and columns and the places of their largest
// sums: see rk_l2ne.rs.
KERNEL row_sum_gradient(const float* f, const float* g, const float* of_rows, const float* of_columns, const float* phi,
                        const unsigned* places, const double* partial, unsigned blocks, float k, float* out, unsigned r,
                        unsigned c) {
  bool by_row = phi[0] <= phi[1];
  float norm = by_row ? phi[0] : phi[1], s = k * sqrtf(norm);
  float share = (float)(-total(partial, blocks) / (2.0 * (double)s * norm));
  unsigned chosen = places[by_row ? 0 : 1];
  EACH(i, r * c) {
    unsigned row = i / c, column = i % c;
    float slope;
    if (by_row) {
      const float* gram = of_rows + (size_t)chosen * r;
      slope = sign_of(gram[row]) * f[(size_t)chosen * c + column];
      if (row == chosen)
        for (unsigned m = 0; m < r; ++m) slope += sign_of(gram[m]) * f[(size_t)m * c + column];
    } else {
      const float* gram = of_columns + (size_t)chosen * c;
      slope = sign_of(gram[column]) * f[(size_t)row * c + chosen];
      if (column == chosen)
        for (unsigned m = 0; m < c; ++m) slope += sign_of(gram[m]) * f[(size_t)row * c + m];
    }
    out[i] = g[i] / s + share * slope;
  }
}
