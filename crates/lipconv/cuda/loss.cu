// Losses on b x classes logits with their gradients: see loss.rs and loss/cross_entropy.rs.
#include "portable.h"

enum { HINGE = 0, CROSS_ENTROPY = 1, WASSERSTEIN = 2 };

struct LossSettings {
  unsigned kind;
  float margin;  // of the hinge, or the offset of the true logit
  float temperature, annealing;
};

// One sample's loss and gradient, both before the division by the batch's size.
DEVICE float hinge(const float* y, float* d, unsigned label, unsigned classes, float margin) {
  float loss = 0, weight = 1.0f / (float)classes, violations = 0;
  for (unsigned j = 0; j < classes; ++j) {
    float slack = margin - y[label] + y[j];
    bool counts = j != label && slack > 0;
    d[j] = counts ? weight : 0.0f;
    if (counts) {
      loss += slack * weight;
      violations += weight;
    }
  }
  d[label] = -violations;
  return loss;
}

// What competing logit j is raised by for every unit of the distance of its row.
DEVICE float share_of(float lead, float norm, float radius) {
  if (!(norm > 0)) return 0.0f;
  return fminf(fmaxf(lead / norm, 0.01f * radius), radius);
}

// The same for the cross-entropy.  `norms`, where it is there, has the distances of the rows of the last weight, and `d_norms`
// gets the gradient of those in the label's row.
DEVICE float cross_entropy(const float* y, float* d, unsigned label, unsigned classes, LossSettings loss, const float* norms,
                           float* d_norms, float radius) {
  unsigned at = 0;
  for (unsigned j = 0; j < classes; ++j) {
    float z = y[j] - (j == label ? loss.margin : 0.0f);
    if (norms) {
      float norm = norms[(size_t)label * classes + j];
      d_norms[j] = share_of(y[label] - y[j], norm, radius);
      z += d_norms[j] * norm;
    }
    d[j] = z;
    if (z > d[at]) at = j;
  }
  float largest = d[at], own = d[label], beyond_one = 0, others = 0;
  for (unsigned j = 0; j < classes; ++j) {
    d[j] = expf((d[j] - largest) / loss.temperature);
    if (j != at) beyond_one += d[j];
  }
  float value = loss.temperature * log1pf(beyond_one) - (own - largest);
  for (unsigned j = 0; j < classes; ++j) {
    d[j] /= 1.0f + beyond_one;
    if (j != label) others += d[j];
  }
  float factor = 1.0f, slope = 1.0f;
  if (loss.annealing > 0) {
    factor = powf(others, loss.annealing);
    float falling = loss.annealing * powf(others, loss.annealing - 1.0f) * d[label] * (value / loss.temperature);
    slope = factor + (d[label] > 0 ? falling : 0.0f);
  }
  d[label] = -others;
  for (unsigned j = 0; j < classes; ++j) {
    d[j] *= slope;
    if (norms) d_norms[j] *= d[j];
  }
  return factor * value;
}

// Loss, correct samples and gradient of all logits, by one block of 256 threads.
KERNEL loss(const float* logits, const unsigned* labels, float* d, unsigned n, unsigned classes, LossSettings settings,
            const StepSettings* steps, const float* norms, float* d_norms, Control* control) {
  SHARED(double, losses, 256);
  SHARED(unsigned, right, 256);
  unsigned of_a = 0;
  if (settings.kind == WASSERSTEIN) {
    unsigned own = 0;
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x) own += labels[i] == 0;
    right[threadIdx.x] = own;
    __syncthreads();
    for (unsigned half = 128; half > 0; half /= 2) {
      if (threadIdx.x < half) right[threadIdx.x] += right[threadIdx.x + half];
      __syncthreads();
    }
    of_a = right[0];
    __syncthreads();
  }
  double sum = 0;
  unsigned correct = 0;
  bool finite = true;
  float radius = steps[control->batch].radius;
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
    const float* y = logits + (size_t)i * classes;
    float* gradient = d + (size_t)i * classes;
    float* d_norm = norms ? d_norms + (size_t)i * classes : nullptr;
    unsigned label = labels[i];
    bool largest = true;
    for (unsigned j = 0; j < classes; ++j) finite = finite && isfinite(y[j]);
    if (settings.kind == WASSERSTEIN) {
      gradient[0] = label == 0 ? -1.0f / (float)of_a : 1.0f / (float)(n - of_a);
      sum += (double)gradient[0] * y[0];
      continue;
    }
    for (unsigned j = 0; j < classes; ++j) largest = largest && (j == label || y[j] < y[label]);
    sum += settings.kind == HINGE ? hinge(y, gradient, label, classes, settings.margin)
                                  : cross_entropy(y, gradient, label, classes, settings, norms, d_norm, radius);
    for (unsigned j = 0; j < classes; ++j) {
      gradient[j] /= (float)n;
      if (norms) d_norm[j] /= (float)n;
    }
    correct += largest;
  }
  if (!finite) atomicOr(&control->failed, FAILED_LOGITS);
  losses[threadIdx.x] = sum;
  right[threadIdx.x] = correct;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      losses[threadIdx.x] += losses[threadIdx.x + half];
      right[threadIdx.x] += right[threadIdx.x + half];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    control->loss = settings.kind == WASSERSTEIN ? losses[0] : losses[0] / n;
    control->correct = right[0];
  }
}

// A matrix whose element (row, column) lies at row · row_stride + column · column_stride.
struct Strided {
  unsigned row, column;
};

// The distances of the rows of a weight with `n` columns: one block for each pair, grid (classes, classes).
KERNEL pair_norms(const float* w, Strided at, float* norms, unsigned n) {
  SHARED(double, partial, 256);
  const float* first = w + (size_t)blockIdx.y * at.row;
  const float* second = w + (size_t)blockIdx.x * at.row;
  double sum = 0;
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
    double apart = (double)first[(size_t)i * at.column] - second[(size_t)i * at.column];
    sum += apart * apart;
  }
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) norms[(size_t)blockIdx.y * gridDim.x + blockIdx.x] = (float)sqrt(partial[0]);
}

// The gradient of every distance, from those of the samples.
KERNEL pair_sums(const float* d_norms, const unsigned* labels, float* sums, unsigned batch, unsigned classes) {
  EACH(e, classes * classes) {
    unsigned row = e / classes, column = e % classes;
    float sum = 0;
    for (unsigned i = 0; i < batch; ++i)
      if (labels[i] == row) sum += d_norms[(size_t)i * classes + column];
    sums[e] = sum;
  }
}

// Adds to the weight's gradient what comes through the distances.
KERNEL pair_gradient(const float* w, float* d, Strided at, const float* norms, const float* sums, unsigned classes, unsigned n) {
  EACH(e, classes * n) {
    unsigned row = e / n;
    size_t column = (size_t)(e % n) * at.column;
    float own = w[row * (size_t)at.row + column], sum = 0;
    for (unsigned j = 0; j < classes; ++j) {
      float norm = norms[row * classes + j];
      if (norm > 0) sum += (sums[row * classes + j] + sums[j * classes + row]) * ((own - w[j * (size_t)at.row + column]) / norm);
    }
    d[row * (size_t)at.row + column] += sum;
  }
}
