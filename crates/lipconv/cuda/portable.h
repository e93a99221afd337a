// What the kernels use of CUDA, in words that a plain C++ compiler can be taught: see emulation.h.
//
// A kernel is declared with KERNEL, its shared memory with SHARED or DYNAMIC_SHARED.  The same source is compiled by NVRTC for a
// device and by the system's compiler for tests without one.
#pragma once
#ifdef LIPCONV_EMULATION
#include "emulation.h"
#else
#define KERNEL extern "C" __global__ void
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define SHARED(type, name, n) __shared__ type name[n]
extern __shared__ __align__(16) unsigned char dynamic_shared[];
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

// The place of a run, the sums over its epoch, and whether the present step has failed.  The host reads it rarely.
struct Control {
  unsigned long long step;      // steps done
  unsigned batch;               // steps done in this epoch
  unsigned failed;              // FAILED_ bits; nothing is changed while one is set
  double loss_sum;              // sum of the steps' mean losses in this epoch
  unsigned long long n_correct; // in this epoch
  double loss;                  // of the last step
  unsigned correct;             // of the last step
  unsigned unused;
};

// What differs from step to step of a run: see settings.rs.
struct StepSettings {
  float rate;             // what the gradient, or its mean, is multiplied by
  float mean_rate;        // what NAdam multiplies the mean by
  float root_correction;  // of the root of the squares' mean
  float keep, take;       // the shares of the average's own value and of the parameter's in the average
  float begins;           // not 0 in the first step of a run
  float radius;           // the training radius of the loss
  float unused;
};

// The sizes of a cyclic convolution with invertible downsampling.
struct ConvShape {
  unsigned h, w;  // output image
  unsigned c;     // channels before downsampling
  unsigned s, k;  // downsampling, kernel size after it
  unsigned ld;    // columns between two patches
};

enum { FAILED_LOGITS = 1, FAILED_GRADIENT = 2, FAILED_DEFECT = 4, FAILED_RANK = 8 };

// For every i below n that belongs to this thread; n is at most 2³¹, which the host sees to, because divisions of 64 bits are slow.
#define EACH(i, n)                                                                                  \
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)
