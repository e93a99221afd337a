// The emulated device: all kernels compiled as C++, and a call that runs one by its name.
#include <ucontext.h>

#include <cstdlib>
#include <tuple>
#include <utility>
#include <vector>

#include "activation.cu"
#include "chain.cu"
#include "convolution.cu"
#include "polar.cu"
#include "projector.cu"
#include "training.cu"

thread_local Index3 threadIdx, blockIdx, blockDim, gridDim;
thread_local unsigned char* emulated_dynamic_shared;

namespace {

const size_t STACK = 64 * 1024;

// A kernel, its arguments as CUDA takes them, and how to call one with the other.
struct Kernel {
  const char* name;
  void (*call)(void (*)(), void**);
  void (*function)();
  bool has_barriers;
};

template <class... A, size_t... I> void apply(void (*f)(A...), void** arguments, std::index_sequence<I...>) {
  f(*static_cast<A*>(arguments[I])...);
}

template <class... A> Kernel kernel(const char* name, void (*f)(A...), bool has_barriers) {
  auto call = [](void (*g)(), void** arguments) {
    apply(reinterpret_cast<void (*)(A...)>(g), arguments, std::index_sequence_for<A...>());
  };
  return {name, call, reinterpret_cast<void (*)()>(f), has_barriers};
}

#define PLAIN(f) kernel(#f, f, false)
#define BARRIERS(f) kernel(#f, f, true)
const Kernel KERNELS[] = {
    PLAIN(bias_activation), PLAIN(activation_backward), BARRIERS(column_sums), PLAIN(add_slices), PLAIN(im2col), PLAIN(im2col4),
    PLAIN(col2im), PLAIN(col2im4), PLAIN(pack_weight), PLAIN(unpack_weight), PLAIN(swap_channels), PLAIN(chain_expand),
    PLAIN(chain_contract), BARRIERS(projector_gram), BARRIERS(cholesky_inverse), BARRIERS(triangular_product),
    BARRIERS(row_abs_sums), BARRIERS(scale_gram), PLAIN(polynomial), PLAIN(copy_scaled), BARRIERS(with_transpose),
    BARRIERS(transpose), BARRIERS(orthonormality), BARRIERS(small_steps1), BARRIERS(small_steps2), BARRIERS(small_steps4),
    BARRIERS(small_sign1), BARRIERS(small_sign2), BARRIERS(small_sign4), PLAIN(gather_batch), BARRIERS(loss),
    PLAIN(check_finite), PLAIN(adam), PLAIN(rms_prop), PLAIN(end_step), BARRIERS(normalize_rows),
    BARRIERS(normalize_rows_backward)};

// The threads of the block that runs on this thread of the host.
struct Block {
  std::vector<ucontext_t> threads;
  std::vector<unsigned char> done;
  std::vector<unsigned char> stacks;
  ucontext_t scheduler;
  unsigned running = 0;
  const Kernel* kernel = nullptr;
  void** arguments = nullptr;
};
thread_local Block block;

void run_thread() {
  block.kernel->call(block.kernel->function, block.arguments);
  block.done[block.running] = 1;
}

// A round runs every thread that has not ended up to its next barrier; without barriers the first round is the last.
void run_block(unsigned n) {
  if (!block.kernel->has_barriers) {
    for (unsigned t = 0; t < n; ++t) {
      threadIdx = {t, 0, 0};
      block.kernel->call(block.kernel->function, block.arguments);
    }
    return;
  }
  block.done.assign(n, 0);
  for (unsigned t = 0; t < n; ++t) {
    getcontext(&block.threads[t]);
    block.threads[t].uc_stack.ss_sp = &block.stacks[t * STACK];
    block.threads[t].uc_stack.ss_size = STACK;
    block.threads[t].uc_link = &block.scheduler;
    makecontext(&block.threads[t], run_thread, 0);
  }
  for (unsigned left = n; left > 0;) {
    for (unsigned t = 0; t < n; ++t) {
      if (block.done[t]) continue;
      block.running = t;
      threadIdx = {t, 0, 0};
      swapcontext(&block.scheduler, &block.threads[t]);
      left -= block.done[t];
    }
  }
}

}  // namespace

void emulated_barrier() {
  if (!block.kernel->has_barriers) std::abort();  // the table above is wrong
  swapcontext(&block.threads[block.running], &block.scheduler);
}

// Runs the kernel of this name; 0, or 1 if there is none.
extern "C" int lipconv_emulated_launch(const char* name, const unsigned grid[3], unsigned threads, unsigned shared, void** arguments) {
  for (const Kernel& kernel : KERNELS) {
    if (std::strcmp(kernel.name, name) != 0) continue;
    // not zero, so that a kernel that relies on it shows
    std::vector<unsigned char> dynamic(shared + 16, 0xff);
    emulated_dynamic_shared = dynamic.data() + (16 - reinterpret_cast<size_t>(dynamic.data()) % 16) % 16;
    block.kernel = &kernel;
    block.arguments = arguments;
    if (block.threads.size() < threads) {
      block.threads.resize(threads);
      block.stacks.resize(threads * STACK);
    }
    blockDim = {threads, 1, 1};
    gridDim = {grid[0], grid[1], grid[2]};
    for (unsigned z = 0; z < grid[2]; ++z)
      for (unsigned y = 0; y < grid[1]; ++y)
        for (unsigned x = 0; x < grid[0]; ++x) {
          blockIdx = {x, y, z};
          run_block(threads);
        }
    return 0;
  }
  return 1;
}
