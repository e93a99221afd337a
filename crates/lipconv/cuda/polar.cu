// Orthogonal polar factors by iterations on the Gram matrix, and their pullback by a sign iteration.
//
// Forward: R = X Xᵗ; in every step Z = aI + bR + cR², Q ← Q Z, R ← Z R Z.  Backward: with A = (X Xᵗ)^(1/2) and an antisymmetric
// B, the sign iteration on [[A, B], [0, -A]] with the same Z, of which K = AB - BA, Z_K = bK + c(RK + KR),
// A ← A Z, B ← A Z_K + B Z, of which the antisymmetric part is kept: a symmetric error would double in every step.  Matrices of
// at most 64 rows run all their steps in the shared memory of one block.
#include "portable.h"

struct Steps {
  float a[20], b[20], c[20];
  unsigned n;
};

// Sums of the absolute values of the rows of n x n matrices; one block for each row, grid (rows, matrices).
KERNEL row_abs_sums(const float* r, float* sums, unsigned n) {
  SHARED(float, partial, 256);
  const float* row = r + ((size_t)blockIdx.y * n + blockIdx.x) * n;
  float sum = 0;
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) sum += fabsf(row[i]);
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.y * n + blockIdx.x] = partial[0];
}

// The largest of n values, for a block of 256 threads.
DEVICE float block_max(const float* values, unsigned n, float* partial) {
  float largest = 0;
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) largest = fmaxf(largest, values[i]);
  partial[threadIdx.x] = largest;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] = fmaxf(partial[threadIdx.x], partial[threadIdx.x + half]);
    __syncthreads();
  }
  return partial[0];
}

// R divided by its largest row sum, a bound of its norm; scale = the reciprocal square root of that sum.
KERNEL scale_gram(float* r, const float* sums, float* scale, unsigned n) {
  SHARED(float, partial, 256);
  float norm = block_max(sums, n, partial);
  float factor = norm > 0 ? 1.0f / norm : 1.0f;
  EACH(i, n * n) r[i] *= factor;
  if (blockIdx.x == 0 && threadIdx.x == 0) *scale = sqrtf(factor);
}

// Z = aI + bR + cR², in rows of length ld.
KERNEL polynomial(const float* r, const float* r2, float* z, unsigned n, unsigned ld, float a, float b, float c) {
  EACH(i, n * n) {
    unsigned row = i / n, column = i % n;
    z[(size_t)row * ld + column] = (row == column ? a : 0.0f) + b * r[i] + c * r2[i];
  }
}

// to = from * (scale ? *scale : 1) * factor, n x n in rows of length ld.
KERNEL copy_scaled(const float* from, unsigned from_ld, float* to, unsigned to_ld, unsigned n, const float* scale, float factor) {
  EACH(i, n * n)
  to[(size_t)(i / n) * to_ld + i % n] = from[(size_t)(i / n) * from_ld + i % n] * (scale ? *scale : 1.0f) * factor;
}

// out = alpha U + beta (V + sign Vᵗ); V in rows of length ld; grid (tiles, tiles, matrices), 32 x 8 threads.
KERNEL with_transpose(const float* u, const float* v, float* out, unsigned n, unsigned ld, float alpha, float beta, float sign) {
  SHARED(float, tile, 32 * 33);
  unsigned tx = threadIdx.x % 32, ty = threadIdx.x / 32;
  size_t matrix = (size_t)blockIdx.z * n;
  for (unsigned y = ty; y < 32; y += 8) {
    unsigned row = blockIdx.x * 32 + y, column = blockIdx.y * 32 + tx;
    tile[y * 33 + tx] = row < n && column < n ? v[(matrix + row) * ld + column] : 0.0f;
  }
  __syncthreads();
  for (unsigned y = ty; y < 32; y += 8) {
    unsigned row = blockIdx.y * 32 + y, column = blockIdx.x * 32 + tx;
    if (row < n && column < n) {
      float sum = beta * (v[(matrix + row) * ld + column] + sign * tile[tx * 33 + y]);
      if (u) sum += alpha * u[(matrix + row) * n + column];
      out[(matrix + row) * n + column] = sum;
    }
  }
}

// out (columns x rows) = factor times the transpose of v (rows x columns); grid (column tiles, row tiles), 32 x 8 threads.
KERNEL transpose(const float* v, float* out, unsigned rows, unsigned columns, float factor) {
  SHARED(float, tile, 32 * 33);
  unsigned tx = threadIdx.x % 32, ty = threadIdx.x / 32;
  for (unsigned y = ty; y < 32; y += 8) {
    unsigned row = blockIdx.y * 32 + y, column = blockIdx.x * 32 + tx;
    tile[y * 33 + tx] = row < rows && column < columns ? v[(size_t)row * columns + column] : 0.0f;
  }
  __syncthreads();
  for (unsigned y = ty; y < 32; y += 8) {
    unsigned row = blockIdx.x * 32 + y, column = blockIdx.y * 32 + tx;
    if (row < columns && column < rows) out[(size_t)row * rows + column] = factor * tile[tx * 33 + y];
  }
}

// The largest |G - I| of an n x n Gram matrix over what is allowed, kept in `defect` until it is cleared.
KERNEL orthonormality(const float* gram, unsigned n, float allowed, float* defect, Control* control) {
  SHARED(float, partial, 256);
  float worst = 0;
  bool finite = true;
  EACH(i, n * n) {
    float error = fabsf(gram[i] - (i / n == i % n ? 1.0f : 0.0f));
    finite = finite && isfinite(error);
    worst = fmaxf(worst, error);
  }
  partial[threadIdx.x] = finite ? worst : 1e30f;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] = fmaxf(partial[threadIdx.x], partial[threadIdx.x + half]);
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    float over = partial[0] / allowed;
    // numbers that are not negative compare as their bits do
    atomicMax((int*)defect, __float_as_int(over));
    if (!(over <= 1.0f)) atomicOr(&control->failed, FAILED_DEFECT);
  }
}

// Products of T·16 x T·16 matrices in shared memory by 16 x 16 threads: each holds T x T values in registers.
template <int T> struct Tile {
  static const int SIDE = 16 * T, LD = SIDE + 1, LENGTH = SIDE * LD;
  float v[T][T];

#define TILE_EACH(i, j)                                                  \
  for (int i = 0, row = threadIdx.x / 16; i < T; ++i, row += 16)         \
    for (int j = 0, column = threadIdx.x % 16; j < T; ++j, column += 16)

  DEVICE_MEMBER void clear() { TILE_EACH(i, j) { v[i][j] = 0.0f; (void)row; (void)column; } }

  // += alpha A B
  DEVICE_MEMBER void add_product(const float* a, const float* b, float alpha) {
    float sum[T][T];
    for (int i = 0; i < T; ++i)
      for (int j = 0; j < T; ++j) sum[i][j] = 0.0f;
    const float* left = a + threadIdx.x / 16 * LD;
    const float* right = b + threadIdx.x % 16;
    for (int p = 0; p < SIDE; ++p) {
      float x[T], y[T];
      for (int i = 0; i < T; ++i) x[i] = left[i * 16 * LD + p];
      for (int j = 0; j < T; ++j) y[j] = right[p * LD + j * 16];
      for (int i = 0; i < T; ++i)
        for (int j = 0; j < T; ++j) sum[i][j] += x[i] * y[j];
    }
    for (int i = 0; i < T; ++i)
      for (int j = 0; j < T; ++j) v[i][j] += alpha * sum[i][j];
  }

  // += alpha A
  DEVICE_MEMBER void add(const float* a, float alpha) { TILE_EACH(i, j) v[i][j] += alpha * a[row * LD + column]; }

  // += alpha Aᵗ
  DEVICE_MEMBER void add_transpose(const float* a, float alpha) { TILE_EACH(i, j) v[i][j] += alpha * a[column * LD + row]; }

  DEVICE_MEMBER void add_identity(float alpha, int n) {
    TILE_EACH(i, j) if (row == column && row < n) v[i][j] += alpha;
  }

  DEVICE_MEMBER void store(float* a) const { TILE_EACH(i, j) a[row * LD + column] = v[i][j]; }

  DEVICE_MEMBER void load_global(const float* a, int n, int ld) {
    TILE_EACH(i, j) v[i][j] = row < n && column < n ? a[row * ld + column] : 0.0f;
  }

  DEVICE_MEMBER void store_global(float* a, int n, int ld) const {
    TILE_EACH(i, j) if (row < n && column < n) a[row * ld + column] = v[i][j];
  }
};

// The steps from R (n x n, overwritten by nothing): Q, and for every step R and Z, the latter at twice the row length.  With
// `first`, R is divided by its norm before, and Q multiplied by the root of that.
template <int T>
DEVICE void small_steps_of(const float* gram, float* q_out, float* r_steps, float* z_steps, float* scale, int n, Steps steps,
                           unsigned first) {
  DYNAMIC_SHARED(float, shared);
  SHARED(float, partial, 256);
  SHARED(float, sums, 64);
  float* r = shared;
  float* z = r + Tile<T>::LENGTH;
  float* q = z + Tile<T>::LENGTH;
  Tile<T> t;
  t.load_global(gram, n, n);
  t.store(r);
  __syncthreads();
  float root = 1.0f;
  if (first) {
    for (int row = threadIdx.x; row < n; row += blockDim.x) {
      float sum = 0;
      for (int i = 0; i < n; ++i) sum += fabsf(r[row * Tile<T>::LD + i]);
      sums[row] = sum;
    }
    __syncthreads();
    float norm = block_max(sums, n, partial);
    float factor = norm > 0 ? 1.0f / norm : 1.0f;
    root = sqrtf(factor);
    if (threadIdx.x == 0) *scale = root;
    for (int i = 0; i < T; ++i)
      for (int j = 0; j < T; ++j) t.v[i][j] *= factor;
    t.store(r);
    __syncthreads();
  }
  for (unsigned step = 0; step < steps.n; ++step) {
    t.clear();
    t.add(r, 1.0f);
    t.store_global(r_steps + (size_t)step * n * n, n, n);
    t.clear();
    t.add_product(r, r, steps.c[step]);
    t.add(r, steps.b[step]);
    t.add_identity(steps.a[step], n);
    t.store(z);
    t.store_global(z_steps + (size_t)step * 2 * n * n, n, 2 * n);
    if (step == 0) t.store(q);
    __syncthreads();
    if (step > 0) {
      t.clear();
      t.add_product(q, z, 1.0f);
      __syncthreads();
      t.store(q);
      __syncthreads();
    }
    if (step + 1 < steps.n) {
      t.clear();
      t.add_product(z, r, 1.0f);
      __syncthreads();
      t.store(r);
      __syncthreads();
      t.clear();
      t.add_product(r, z, 1.0f);
      __syncthreads();
      t.store(r);
      __syncthreads();
    }
  }
  t.clear();
  t.add(q, root);
  t.store_global(q_out, n, n);
}

// B ← A Z_K + B Z and A ← A Z for all steps; out = factor B at the end.
template <int T>
DEVICE void small_sign_of(const float* a_in, const float* b_in, const float* r_steps, const float* z_steps, float* out, int n,
                          Steps steps, const float* scale, float factor) {
  DYNAMIC_SHARED(float, shared);
  float* a = shared;
  float* b = a + Tile<T>::LENGTH;
  float* r = b + Tile<T>::LENGTH;
  float* z = r + Tile<T>::LENGTH;
  float* k = z + Tile<T>::LENGTH;
  float* l = k + Tile<T>::LENGTH;
  Tile<T> t;
  t.load_global(a_in, n, n);
  t.store(a);
  t.load_global(b_in, n, n);
  t.store(b);
  for (unsigned step = 0; step < steps.n; ++step) {
    t.load_global(r_steps + (size_t)step * n * n, n, n);
    t.store(r);
    t.load_global(z_steps + (size_t)step * 2 * n * n, n, 2 * n);
    t.store(z);
    __syncthreads();
    t.clear();
    t.add_product(a, b, 1.0f);
    t.store(l);
    __syncthreads();
    t.add_transpose(l, 1.0f);  // AB - BA = AB + (AB)ᵗ for a symmetric A and an antisymmetric B
    t.store(k);
    __syncthreads();
    t.clear();
    t.add_product(r, k, 1.0f);
    t.store(l);
    __syncthreads();
    t.add_transpose(l, 1.0f);
    for (int i = 0; i < T; ++i)
      for (int j = 0; j < T; ++j) t.v[i][j] *= steps.c[step];
    t.add(k, steps.b[step]);
    __syncthreads();
    t.store(l);  // Z_K
    __syncthreads();
    t.clear();
    t.add_product(b, z, 1.0f);
    t.add_product(a, l, 1.0f);
    Tile<T> next;
    next.clear();
    next.add_product(a, z, 1.0f);
    __syncthreads();
    t.store(b);
    next.store(a);
    __syncthreads();
    t.clear();
    t.add(b, 0.5f);
    t.add_transpose(b, -0.5f);
    __syncthreads();
    t.store(b);
  }
  __syncthreads();
  t.clear();
  t.add(b, factor * *scale);
  t.store_global(out, n, n);
}

KERNEL small_steps1(const float* gram, float* q, float* r, float* z, float* scale, int n, Steps steps, unsigned first) {
  small_steps_of<1>(gram, q, r, z, scale, n, steps, first);
}
KERNEL small_steps2(const float* gram, float* q, float* r, float* z, float* scale, int n, Steps steps, unsigned first) {
  small_steps_of<2>(gram, q, r, z, scale, n, steps, first);
}
KERNEL small_steps4(const float* gram, float* q, float* r, float* z, float* scale, int n, Steps steps, unsigned first) {
  small_steps_of<4>(gram, q, r, z, scale, n, steps, first);
}
KERNEL small_sign1(const float* a, const float* b, const float* r, const float* z, float* out, int n, Steps steps,
                   const float* scale, float factor) {
  small_sign_of<1>(a, b, r, z, out, n, steps, scale, factor);
}
KERNEL small_sign2(const float* a, const float* b, const float* r, const float* z, float* out, int n, Steps steps,
                   const float* scale, float factor) {
  small_sign_of<2>(a, b, r, z, out, n, steps, scale, factor);
}
KERNEL small_sign4(const float* a, const float* b, const float* r, const float* z, float* out, int n, Steps steps,
                   const float* scale, float factor) {
  small_sign_of<4>(a, b, r, z, out, n, steps, scale, factor);
}
