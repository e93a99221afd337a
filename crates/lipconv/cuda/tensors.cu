// Operations on the tensors of other programs: b x c x h x w, channels first.
//
// A column of patches is what one output pixel of one image sees, in the order of an OIHW weight: rows ((c·s² + dy·s + dx)·k + a)·k + b
// for the taps a, b < k and the s x s pixels dy, dx that downsampling stacks.  Columns count images, then pixels, so that a convolution of
// the whole batch is one product.  Neighbouring threads take neighbouring pixels of one row.
#include "portable.h"

// Where the image has the value of a row and a column of the patches.
DEVICE size_t source_of(ConvShape g, unsigned row, unsigned column) {
  unsigned b = row % g.k, a = row / g.k % g.k, channel = row / (g.k * g.k);
  unsigned dx = channel % g.s, dy = channel / g.s % g.s, c = channel / (g.s * g.s);
  unsigned x = column % g.w, y = column / g.w % g.h, image = column / (g.w * g.h);
  unsigned from_y = (y + a + g.h - g.k / 2) % g.h * g.s + dy, from_x = (x + b + g.w - g.k / 2) % g.w * g.s + dx;
  return (((size_t)image * g.c + c) * g.h * g.s + from_y) * g.w * g.s + from_x;
}

KERNEL unfold(const float* x, float* patches, unsigned columns, ConvShape g) {
  unsigned rows = g.c * g.s * g.s * g.k * g.k;
  EACH(i, rows * columns) patches[i] = x[source_of(g, i / columns, i % columns)];
}

// The adjoint: every value of the image collects its places in the patches.
KERNEL fold(const float* patches, float* x, unsigned columns, ConvShape g) {
  unsigned values = columns * g.s * g.s * g.c;
  EACH(i, values) {
    unsigned from_x = i % (g.w * g.s), from_y = i / (g.w * g.s) % (g.h * g.s), c = i / (g.w * g.s * g.h * g.s) % g.c;
    unsigned image = i / (g.w * g.s * g.h * g.s) / g.c;
    unsigned channel = (c * g.s + from_y % g.s) * g.s + from_x % g.s;
    float sum = 0;
    for (unsigned a = 0; a < g.k; ++a) {
      unsigned y = (from_y / g.s + g.k / 2 + g.h - a) % g.h;
      for (unsigned b = 0; b < g.k; ++b) {
        unsigned column = (image * g.h + y) * g.w + (from_x / g.s + g.k / 2 + g.w - b) % g.w;
        sum += patches[(size_t)((channel * g.k + a) * g.k + b) * columns + column];
      }
    }
    x[i] = sum;
  }
}

// m x n x plane to n x m x plane.
KERNEL exchange_axes(const float* x, float* y, unsigned m, unsigned n, unsigned plane) {
  EACH(i, m * n * plane) {
    unsigned within = i % plane, of_m = i / plane % m, of_n = i / plane / m;
    y[i] = x[((size_t)of_m * n + of_n) * plane + within];
  }
}

// Maxima of the first and the second half of each of `m` signals, and then the minima.
KERNEL max_min(const float* x, float* y, unsigned m, unsigned half) {
  EACH(i, m * half) {
    size_t first = (size_t)(i / half) * 2 * half + i % half, second = first + half;
    bool swap = x[first] < x[second];
    y[first] = swap ? x[second] : x[first];
    y[second] = swap ? x[first] : x[second];
  }
}

KERNEL max_min_gradient(const float* x, const float* dy, float* dx, unsigned m, unsigned half) {
  EACH(i, m * half) {
    size_t first = (size_t)(i / half) * 2 * half + i % half, second = first + half;
    bool swap = x[first] < x[second];
    dx[first] = swap ? dy[second] : dy[first];
    dx[second] = swap ? dy[first] : dy[second];
  }
}
