// The emulated device: all kernels compiled as C++, and a call that runs one by its name.
#include <setjmp.h>
#include <ucontext.h>

#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "activation.cu"
#include "chain.cu"
#include "convolution.cu"
#include "loss.cu"
#include "polar.cu"
#include "projector.cu"
#include "quotient.cu"
#include "tensors.cu"
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
    BARRIERS(pair_norms), PLAIN(pair_sums), PLAIN(pair_gradient), PLAIN(check_finite), PLAIN(adam), PLAIN(nadam),
    PLAIN(rms_prop), PLAIN(begin_average), PLAIN(follow_average), PLAIN(keep_values), PLAIN(end_step),
    BARRIERS(normalize_rows), BARRIERS(normalize_rows_backward), BARRIERS(dot), PLAIN(to_unit), PLAIN(divide_by_norm),
    PLAIN(norm_gradient), BARRIERS(largest_sum), PLAIN(divide_by_row_sum), PLAIN(row_sum_gradient),
    PLAIN(unfold), PLAIN(fold), PLAIN(exchange_axes), PLAIN(max_min), PLAIN(max_min_gradient)};

// A stack that runs one thread of a block after another, and where it has stopped.
struct Fiber {
  ucontext_t context = {};
  jmp_buf stopped;
  bool begun = false, done = true;
  std::vector<unsigned char> stack;
};

// The threads of the block that runs on this thread of the host.
struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  ucontext_t context;
  jmp_buf stopped;
  unsigned running = 0;
  const Kernel* kernel = nullptr;
  void** arguments = nullptr;
};
thread_local Block block;

// swapcontext asks the system to swap signal masks, a thousand times the price of a jump; but the address sanitizer follows it
// alone.
#ifdef __SANITIZE_ADDRESS__
void to_fiber(Fiber& fiber) {
  fiber.begun = true;
  swapcontext(&block.context, &fiber.context);
}
void to_scheduler(Fiber& fiber) { swapcontext(&fiber.context, &block.context); }
#else
void to_fiber(Fiber& fiber) {
  if (_setjmp(block.stopped)) return;
  if (fiber.begun) _longjmp(fiber.stopped, 1);
  fiber.begun = true;
  setcontext(&fiber.context);
}
void to_scheduler(Fiber& fiber) {
  if (!_setjmp(fiber.stopped)) _longjmp(block.stopped, 1);
}
#endif

void run_threads() {
  for (;;) {
    Fiber& fiber = *block.fibers[block.running];
    block.kernel->call(block.kernel->function, block.arguments);
    fiber.done = true;
    to_scheduler(fiber);
  }
}

void make_fibers(unsigned n) {
  while (block.fibers.size() < n) {
    std::unique_ptr<Fiber> fiber(new Fiber);
    fiber->stack.resize(STACK);
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.data();
    fiber->context.uc_stack.ss_size = STACK;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, run_threads, 0);
    block.fibers.push_back(std::move(fiber));
  }
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
  make_fibers(n);
  for (unsigned t = 0; t < n; ++t) block.fibers[t]->done = false;
  for (unsigned left = n; left > 0;) {
    for (unsigned t = 0; t < n; ++t) {
      if (block.fibers[t]->done) continue;
      block.running = t;
      threadIdx = {t, 0, 0};
      to_fiber(*block.fibers[t]);
      left -= block.fibers[t]->done;
    }
  }
}

}  // namespace

void emulated_barrier() {
  if (!block.kernel->has_barriers) std::abort();  // the table above is wrong
  to_scheduler(*block.fibers[block.running]);
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
