// Enough of CUDA for the kernels to run as plain C++: one block after another, the threads of a block one at a time between
// barriers, each on a stack of its own.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>

struct Index3 { unsigned x, y, z; };
extern thread_local Index3 threadIdx, blockIdx, blockDim, gridDim;
extern thread_local unsigned char* emulated_dynamic_shared;

void emulated_barrier();
inline void __syncthreads() { emulated_barrier(); }

struct alignas(16) float4 { float x, y, z, w; };

inline unsigned atomicOr(unsigned* where, unsigned bits) {
  unsigned old = *where;
  *where = old | bits;
  return old;
}
inline int atomicMax(int* where, int value) {
  int old = *where;
  if (value > old) *where = value;
  return old;
}
inline int __float_as_int(float x) { int i; std::memcpy(&i, &x, 4); return i; }

using std::exp;
using std::fabs;
using std::isfinite;
using std::log;
using std::sqrt;
inline float fmaxf(float a, float b) { return std::fmax(a, b); }
inline float fminf(float a, float b) { return std::fmin(a, b); }

#define KERNEL extern "C" void
#define DEVICE static inline
#define DEVICE_MEMBER inline
#define SHARED(type, name, n) static thread_local type name[n]
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulated_dynamic_shared)
