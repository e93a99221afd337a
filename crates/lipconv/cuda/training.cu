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

KERNEL check_finite(const float* values, unsigned n, Control* control) {
  bool finite = true;
  EACH(i, n) finite = finite && isfinite(values[i]);
  if (!finite) atomicOr(&control->failed, FAILED_GRADIENT);
}

// Adam on all parameters at once: see optim.rs.
KERNEL adam(float* p, const float* g, float* m, float* v, unsigned n, const StepSettings* steps, float beta1, float beta2,
            float rest1, float rest2, float epsilon, const Control* control) {
  if (control->failed) return;
  StepSettings step = steps[control->batch];
  EACH(i, n) {
    float gradient = g[i];
    float first = beta1 * m[i] + rest1 * gradient;
    float second = beta2 * v[i] + rest2 * gradient * gradient;
    m[i] = first;
    v[i] = second;
    p[i] -= step.rate * first / (sqrtf(second) * step.root_correction + epsilon);
  }
}

// NAdam likewise: see optim/nadam.rs.
KERNEL nadam(float* p, const float* g, float* m, float* v, unsigned n, const StepSettings* steps, float beta1, float beta2,
             float rest1, float rest2, float epsilon, const Control* control) {
  if (control->failed) return;
  StepSettings step = steps[control->batch];
  EACH(i, n) {
    float gradient = g[i];
    float first = beta1 * m[i] + rest1 * gradient;
    float second = beta2 * v[i] + rest2 * gradient * gradient;
    m[i] = first;
    v[i] = second;
    p[i] -= (step.rate * gradient + step.mean_rate * first) / (sqrtf(second) * step.root_correction + epsilon);
  }
}

// RMSprop likewise.
KERNEL rms_prop(float* p, const float* g, float* s, unsigned n, const StepSettings* steps, float alpha, float rest,
                float epsilon, const Control* control) {
  if (control->failed) return;
  float rate = steps[control->batch].rate;
  EACH(i, n) {
    float second = alpha * s[i] + rest * g[i] * g[i];
    s[i] = second;
    p[i] -= rate * g[i] / (sqrtf(second) + epsilon);
  }
}

// Before the first step of a run the average is the parameters: see optim/averaging.rs.
KERNEL begin_average(const float* p, float* average, unsigned n, const StepSettings* steps, const Control* control) {
  if (control->failed || steps[control->batch].begins == 0.0f) return;
  EACH(i, n) average[i] = p[i];
}

// After a step: the exponential mean, or the slow parameters that call the fast ones back where it is time.
KERNEL follow_average(float* p, float* average, unsigned n, const StepSettings* steps, unsigned calls_back,
                      const Control* control) {
  if (control->failed) return;
  StepSettings step = steps[control->batch];
  if (calls_back && step.take == 0.0f) return;
  EACH(i, n) {
    if (calls_back) {
      float slow = average[i] + step.take * (p[i] - average[i]);
      average[i] = slow;
      p[i] = slow;
    } else {
      average[i] = step.keep * average[i] + step.take * p[i];
    }
  }
}

// What a method carries from step to step.
KERNEL keep_values(const float* from, float* to, unsigned n, const Control* control) {
  if (control->failed) return;
  EACH(i, n) to[i] = from[i];
}

// What a step leaves for the host.
struct StepOutcome {
  double loss;
  unsigned correct, unused;
};

// A step that did not fail counts.
KERNEL end_step(Control* control, StepOutcome* outcomes) {
  if (threadIdx.x > 0 || control->failed) return;
  StepOutcome outcome = {control->loss, control->correct, 0};
  outcomes[control->batch] = outcome;
  control->step += 1;
  control->batch += 1;
  control->loss_sum += control->loss;
  control->n_correct += control->correct;
}
