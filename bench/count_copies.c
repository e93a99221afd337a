// Counts the calls of the CUDA driver that copy between host and device, launch kernels and graphs, and wait: to be preloaded.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef unsigned long long address;

static long to_device, from_device, on_device, graphs, kernels, waits;
static double bytes_to, bytes_from;

static void* next(const char* name) {
  void* found = dlsym(RTLD_NEXT, name);
  if (!found) found = dlsym(dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL), name);
  return found;
}
#define NEXT(type) \
  static __typeof__(type) own; \
  if (!own) own = (__typeof__(type))next(__func__)

int cuMemcpyHtoD_v2(address to, const void* from, size_t n) {
  NEXT(int (*)(address, const void*, size_t));
  ++to_device;
  bytes_to += (double)n;
  return own(to, from, n);
}
int cuMemcpyDtoH_v2(void* to, address from, size_t n) {
  NEXT(int (*)(void*, address, size_t));
  ++from_device;
  bytes_from += (double)n;
  return own(to, from, n);
}
int cuMemcpyDtoDAsync_v2(address to, address from, size_t n, void* stream) {
  NEXT(int (*)(address, address, size_t, void*));
  ++on_device;
  return own(to, from, n, stream);
}
int cuGraphLaunch(void* graph, void* stream) {
  NEXT(int (*)(void*, void*));
  ++graphs;
  return own(graph, stream);
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void* stream, void** parameters, void** extra) {
  NEXT(int (*)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**));
  ++kernels;
  return own(f, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra);
}
int cuStreamSynchronize(void* stream) {
  NEXT(int (*)(void*));
  ++waits;
  return own(stream);
}

__attribute__((destructor)) static void report(void) {
  fprintf(stderr, "%ld copies to the device (%.3g MB), %ld from it (%.3g MB), %ld on it, %ld graphs, %ld kernels outside of graphs, %ld waits\n",
          to_device, bytes_to / 1e6, from_device, bytes_from / 1e6, on_device, graphs, kernels, waits);
}
