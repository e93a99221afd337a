// What a training step does beside the network: its batch, the loss, the update.
#include "portable.h"

// One sample of an epoch: which image, and how it is cut and mirrored.
struct Sample {
  unsigned image;
  short dy, dx;       // the pixel of the image that comes first
  unsigned mirrored;  // left and right exchanged
};

// The batch of this step from images b x c x h x w of bytes: out b x h x w x c in [0, 1]; what lies outside is 0.  The
// epoch's batches have `whole` samples, of which the last one may have only n.
KERNEL gather_batch(const unsigned char* images, const unsigned char* labels, const Sample* samples, const float* values,
                    float* out, unsigned* batch_labels, const Control* control, unsigned n, unsigned whole, unsigned h, unsigned w, unsigned c) {
  const Sample* chosen = samples + (size_t)control->batch * whole;
  EACH(i, n * h * w * c) {
    unsigned channel = i % c, x = i / c % w, y = i / (c * w) % h, image = i / (c * w * h);
    Sample sample = chosen[image];
    int row = (int)y + sample.dy, column = (int)(sample.mirrored ? w - 1 - x : x) + sample.dx;
    bool inside = row >= 0 && row < (int)h && column >= 0 && column < (int)w;
    out[i] = inside ? values[images[(((size_t)sample.image * c + channel) * h + row) * w + column]] : 0.0f;
    if (channel == 0 && x == 0 && y == 0) batch_labels[image] = labels[sample.image];
  }
}

enum { HINGE = 0, CROSS_ENTROPY = 1, WASSERSTEIN = 2 };

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

// T · CE((y - m · onehot) / T).
DEVICE float offset_cross_entropy(const float* y, float* d, unsigned label, unsigned classes, float offset, float temperature) {
  float largest = -3e38f, sum = 0;
  for (unsigned j = 0; j < classes; ++j) {
    d[j] = (y[j] - (j == label ? offset : 0.0f)) / temperature;
    largest = fmaxf(largest, d[j]);
  }
  float own = d[label];
  for (unsigned j = 0; j < classes; ++j) sum += expf(d[j] - largest);
  for (unsigned j = 0; j < classes; ++j) d[j] = expf(d[j] - largest) / sum - (j == label ? 1.0f : 0.0f);
  return temperature * (logf(sum) + largest - own);
}

// Loss, correct samples and gradient of b x classes logits, by one block of 256 threads.
KERNEL loss(const float* logits, const unsigned* labels, float* d, unsigned n, unsigned classes, unsigned kind, float first,
            float second, Control* control) {
  SHARED(double, losses, 256);
  SHARED(unsigned, right, 256);
  double sum = 0;
  unsigned correct = 0;
  bool finite = true;
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
    const float* y = logits + (size_t)i * classes;
    float* gradient = d + (size_t)i * classes;
    unsigned label = labels[i];
    bool largest = true;
    for (unsigned j = 0; j < classes; ++j) {
      finite = finite && isfinite(y[j]);
      largest = largest && (j == label || y[j] < y[label]);
    }
    sum += kind == HINGE ? hinge(y, gradient, label, classes, first)
                         : offset_cross_entropy(y, gradient, label, classes, first, second);
    for (unsigned j = 0; j < classes; ++j) gradient[j] /= (float)n;
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
    control->loss = losses[0] / n;
    control->correct = right[0];
  }
}

KERNEL check_finite(const float* values, unsigned n, Control* control) {
  bool finite = true;
  EACH(i, n) finite = finite && isfinite(values[i]);
  if (!finite) atomicOr(&control->failed, FAILED_GRADIENT);
}

// What the learning rate and the step number make of the update, for each step of an epoch.
struct Rate {
  float step_size, root_correction;
};

// Adam on all parameters at once: see optim.rs.
KERNEL adam(float* p, const float* g, float* m, float* v, unsigned n, const Rate* rates, float beta1, float beta2, float rest1,
            float rest2, float epsilon, const Control* control) {
  if (control->failed) return;
  Rate rate = rates[control->batch];
  EACH(i, n) {
    float gradient = g[i];
    float first = beta1 * m[i] + rest1 * gradient;
    float second = beta2 * v[i] + rest2 * gradient * gradient;
    m[i] = first;
    v[i] = second;
    p[i] -= rate.step_size * first / (sqrtf(second) * rate.root_correction + epsilon);
  }
}

// RMSprop likewise.
KERNEL rms_prop(float* p, const float* g, float* s, unsigned n, const Rate* rates, float alpha, float rest, float epsilon,
                const Control* control) {
  if (control->failed) return;
  float step_size = rates[control->batch].step_size;
  EACH(i, n) {
    float second = alpha * s[i] + rest * g[i] * g[i];
    s[i] = second;
    p[i] -= step_size * g[i] / (sqrtf(second) + epsilon);
  }
}

// A step that did not fail counts.
KERNEL end_step(Control* control, unsigned) {
  if (threadIdx.x > 0 || control->failed) return;
  control->step += 1;
  control->batch += 1;
  control->loss_sum += control->loss;
  control->n_correct += control->correct;
}

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
