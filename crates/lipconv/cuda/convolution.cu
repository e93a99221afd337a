// Cyclic convolutions with invertible downsampling as matrix products: patches, their adjoint, and the order of weights.
//
// Signals are b x H x W x c, channels last.  A patch is what one output pixel sees: columns (a, b, dy, dx, c) for the taps
// a, b < k and the s x s pixels dy, dx that downsampling stacks; OIHW weights have the channel c·s² + dy·s + dx.  Cyclic
// padding is k/2 before, inside the index.
#include "portable.h"

DEVICE void clear(float& sum) { sum = 0.0f; }
DEVICE void clear(float4& sum) { sum.x = sum.y = sum.z = sum.w = 0.0f; }
DEVICE void accumulate(float& sum, float x) { sum += x; }
DEVICE void accumulate(float4& sum, float4 x) {
  sum.x += x.x;
  sum.y += x.y;
  sum.z += x.z;
  sum.w += x.w;
}

// All channel counts in units of T.
template <class T> DEVICE void im2col_of(const T* x, T* patches, unsigned pixels, ConvShape g) {
  unsigned columns = g.k * g.k * g.s * g.s * g.c;
  EACH(i, pixels * columns) {
    unsigned pixel = i / columns, column = i % columns;
    unsigned channel = column % g.c, rest = column / g.c;
    unsigned dx = rest % g.s, dy = rest / g.s % g.s, tap = rest / (g.s * g.s);
    unsigned a = tap / g.k, b = tap % g.k;
    unsigned col = pixel % g.w, row = pixel / g.w % g.h, image = pixel / (g.w * g.h);
    unsigned y = (row + a + g.h - g.k / 2) % g.h * g.s + dy, z = (col + b + g.w - g.k / 2) % g.w * g.s + dx;
    patches[(size_t)pixel * g.ld + column] = x[(((size_t)image * g.h * g.s + y) * g.w * g.s + z) * g.c + channel];
  }
}

KERNEL im2col(const float* x, float* patches, unsigned pixels, ConvShape g) { im2col_of(x, patches, pixels, g); }
KERNEL im2col4(const float4* x, float4* patches, unsigned pixels, ConvShape g) { im2col_of(x, patches, pixels, g); }

// The adjoint: every value of the input collects its places in the patches.
template <class T> DEVICE void col2im_of(const T* patches, T* x, unsigned pixels, ConvShape g) {
  unsigned values = g.s * g.s * g.c;
  EACH(i, pixels * values) {
    unsigned channel = i % g.c;
    unsigned place = i / g.c;
    unsigned z = place % (g.w * g.s), y = place / (g.w * g.s) % (g.h * g.s);
    unsigned image = place / (g.w * g.s * g.h * g.s);
    unsigned col = z / g.s, row = y / g.s, within = (y % g.s * g.s + z % g.s) * g.c + channel;
    T sum;
    clear(sum);
    for (unsigned a = 0; a < g.k; ++a) {
      unsigned from = (row + g.k / 2 + g.h - a) % g.h;
      for (unsigned b = 0; b < g.k; ++b) {
        unsigned pixel = (image * g.h + from) * g.w + (col + g.k / 2 + g.w - b) % g.w;
        accumulate(sum, patches[(size_t)pixel * g.ld + (a * g.k + b) * values + within]);
      }
    }
    x[i] = sum;
  }
}

KERNEL col2im(const float* patches, float* x, unsigned pixels, ConvShape g) { col2im_of(patches, x, pixels, g); }
KERNEL col2im4(const float4* patches, float4* x, unsigned pixels, ConvShape g) { col2im_of(patches, x, pixels, g); }

// Where the value of tap (a, b), output o and channel i of a layer weight lies in what the layer's method made.
struct WeightOrder {
  unsigned a, b, o, i;  // strides
  unsigned flip;        // whether taps count backwards
};

DEVICE size_t place_of(WeightOrder order, unsigned k, unsigned a, unsigned b, unsigned o, unsigned i) {
  if (order.flip) {
    a = k - 1 - a;
    b = k - 1 - b;
  }
  return (size_t)a * order.a + (size_t)b * order.b + (size_t)o * order.o + (size_t)i * order.i;
}

// The c_out x ld matrix that multiplies patches.
KERNEL pack_weight(const float* from, float* matrix, unsigned c_out, ConvShape g, WeightOrder order, float factor) {
  unsigned columns = g.k * g.k * g.s * g.s * g.c;
  EACH(n, c_out * columns) {
    unsigned o = n / columns, column = n % columns;
    unsigned channel = column % g.c, rest = column / g.c;
    unsigned within = rest % (g.s * g.s), tap = rest / (g.s * g.s);
    unsigned i = channel * g.s * g.s + within;
    matrix[(size_t)o * g.ld + column] = factor * from[place_of(order, g.k, tap / g.k, tap % g.k, o, i)];
  }
}

// The adjoint, of the sum of `slices` matrices; `n` channels of which those past the layer's own get 0.
KERNEL unpack_weight(const float* matrix, float* to, unsigned slices, unsigned c_out, unsigned n, ConvShape g,
                     WeightOrder order, float factor) {
  unsigned c_in = g.s * g.s * g.c;
  EACH(e, g.k * g.k * c_out * n) {
    unsigned i = e % n, o = e / n % c_out, tap = e / n / c_out;
    unsigned a = tap / g.k, b = tap % g.k;
    float sum = 0;
    if (i < c_in) {
      unsigned column = (tap * g.s * g.s + i % (g.s * g.s)) * g.c + i / (g.s * g.s);
      for (unsigned slice = 0; slice < slices; ++slice)
        sum += matrix[((size_t)slice * c_out + o) * g.ld + column];
    }
    to[place_of(order, g.k, a, b, o, i)] = factor * sum;
  }
}

// b x pixels x c to b x c x pixels, or back.
KERNEL swap_channels(const float* x, float* y, unsigned batch, unsigned pixels, unsigned c, unsigned back) {
  EACH(i, batch * pixels * c) {
    unsigned channel = i % c, pixel = i / c % pixels;
    size_t other = (i / c / pixels * c + channel) * pixels + pixel;
    if (back) y[i] = x[other];
    else y[other] = x[i];
  }
}
