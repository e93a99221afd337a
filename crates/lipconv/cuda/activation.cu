// Bias and activation in one pass over a row-major rows x c matrix, and the way back with the bias gradient.
//
// MaxMin orders channel u and u + c/2; ReLU keeps what is positive; GroupSort sorts consecutive channels.  One byte for each
// decision is recorded.  On ties MaxMin does not exchange, ReLU does not pass 0, GroupSort keeps the order.
#include "portable.h"

enum { NO_ACTIVATION = 0, MAX_MIN = 1, RELU = 2, GROUP_SORT = 3 };

// The unit of work: the channels that one decision moves.
DEVICE unsigned units_of(unsigned act, unsigned c, unsigned group) {
  return act == MAX_MIN ? c / 2 : act == GROUP_SORT ? c / group : c;
}

DEVICE void sort_group(float* y, const float* bias, unsigned char* record, unsigned group) {
  for (unsigned i = 0; i < group; ++i) {
    float value = y[i] + bias[i];
    unsigned place = i;
    while (place > 0 && y[place - 1] > value) {
      y[place] = y[place - 1];
      record[place] = record[place - 1];
      --place;
    }
    y[place] = value;
    record[place] = (unsigned char)i;
  }
}

KERNEL bias_activation(float* y, const float* bias, unsigned char* record, unsigned rows, unsigned c, unsigned act,
                       unsigned group) {
  unsigned units = units_of(act, c, group);
  EACH(i, rows * units) {
    unsigned row = i / units, u = i % units;
    float* p = y + (size_t)row * c;
    if (act == MAX_MIN) {
      float a = p[u] + bias[u], b = p[u + units] + bias[u + units];
      bool swap = a < b;
      p[u] = swap ? b : a;
      p[u + units] = swap ? a : b;
      record[i] = swap;
    } else if (act == GROUP_SORT) {
      sort_group(p + u * group, bias + u * group, record + i * group, group);
    } else {
      float x = p[u] + bias[u];
      if (act == RELU) {
        record[i] = x > 0;
        x = x <= 0 ? 0 : x;  // NaN stays NaN
      }
      p[u] = x;
    }
  }
}

// Gradient of the output to gradient of the input, in place.
KERNEL activation_backward(float* d, const unsigned char* record, unsigned rows, unsigned c, unsigned act, unsigned group) {
  unsigned units = units_of(act, c, group);
  EACH(i, rows * units) {
    unsigned row = i / units, u = i % units;
    float* p = d + (size_t)row * c;
    if (act == MAX_MIN) {
      if (record[i]) {
        float a = p[u];
        p[u] = p[u + units];
        p[u + units] = a;
      }
    } else if (act == GROUP_SORT) {
      float original[256];
      for (unsigned n = 0; n < group; ++n) original[record[i * group + n]] = p[u * group + n];
      for (unsigned n = 0; n < group; ++n) p[u * group + n] = original[n];
    } else if (act == RELU && !record[i]) {
      p[u] = 0;
    }
  }
}

// Sums of the columns of a rows x c matrix: block (x, y) adds `height` rows of up to 256 columns into partial[x].
KERNEL column_sums(const float* d, float* partial, unsigned rows, unsigned c, unsigned height) {
  SHARED(float, sums, 256);
  unsigned left = c - blockIdx.y * 256, width = left < 256 ? left : 256;
  unsigned lanes = 256 / width, lane = threadIdx.x / width, column = blockIdx.y * 256 + threadIdx.x % width;
  unsigned first = blockIdx.x * height, end = first + height < rows ? first + height : rows;
  float sum = 0;
  if (lane < lanes)
    for (unsigned row = first + lane; row < end; row += lanes) sum += d[(size_t)row * c + column];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x < width) {
    for (unsigned n = 1; n < lanes; ++n) sum += sums[n * width + threadIdx.x];
    partial[(size_t)blockIdx.x * c + column] = sum;
  }
}

// out[i] = alpha * sum over n of partial[n * length + i].
KERNEL add_slices(const float* partial, float* out, unsigned slices, unsigned length, float alpha) {
  EACH(i, length) {
    float sum = 0;
    for (unsigned n = 0; n < slices; ++n) sum += partial[(size_t)n * length + i];
    out[i] = alpha * sum;
  }
}
