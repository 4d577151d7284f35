// The CUDA driver as programs see it, loaded by path: no headers and no compiler of NVIDIA's are needed. The kernels are PTX, which the driver compiles.
#ifndef CEDANA_BENCH_WORKLOADS_CUDA_H_
#define CEDANA_BENCH_WORKLOADS_CUDA_H_

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef uint64_t CudaAddress;
typedef struct {
  char bytes[64];
} CudaIpcHandle;

// Every function of the driver that is used here: type of its arguments.
#define CUDA_FUNCTIONS(X)                                                                                     \
  X(cuInit, (unsigned))                                                                                       \
  X(cuDeviceGet, (int *, int))                                                                                \
  X(cuDeviceGetCount, (int *))                                                                                \
  X(cuDeviceGetName, (char *, int, int))                                                                      \
  X(cuDriverGetVersion, (int *))                                                                              \
  X(cuCtxCreate_v2, (void **, unsigned, int))                                                                 \
  X(cuCtxSetCurrent, (void *))                                                                                \
  X(cuCtxSynchronize, (void))                                                                                 \
  X(cuMemAlloc_v2, (CudaAddress *, size_t))                                                                   \
  X(cuMemAllocManaged, (CudaAddress *, size_t, unsigned))                                                     \
  X(cuIpcGetMemHandle, (CudaIpcHandle *, CudaAddress))                                                        \
  X(cuIpcOpenMemHandle_v2, (CudaAddress *, CudaIpcHandle, unsigned))                                          \
  X(cuMemcpyHtoD_v2, (CudaAddress, const void *, size_t))                                                     \
  X(cuMemcpyDtoH_v2, (void *, CudaAddress, size_t))                                                           \
  X(cuModuleLoadData, (void **, const void *))                                                                \
  X(cuModuleGetFunction, (void **, void *, const char *))                                                     \
  X(cuLaunchKernel,                                                                                           \
    (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **)) \
  X(cuStreamCreate, (void **, unsigned))                                                                      \
  X(cuStreamBeginCapture_v2, (void *, int))                                                                   \
  X(cuStreamEndCapture, (void *, void **))                                                                    \
  X(cuGraphInstantiateWithFlags, (void **, void *, unsigned long long))                                       \
  X(cuGraphLaunch, (void *, void *))                                                                          \
  X(cuStreamSynchronize, (void *))

#define CUDA_MEMBER(name, arguments) int(*name) arguments;
static struct {
  CUDA_FUNCTIONS(CUDA_MEMBER)
} cuda;

__attribute__((unused)) static void cuda_load(const char *library) {
  void *loaded = dlopen(library, RTLD_NOW);
  if (loaded == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    exit(77);
  }
#define CUDA_FIND(name, arguments)                     \
  *(void **)&cuda.name = dlsym(loaded, #name);         \
  if (cuda.name == NULL) {                             \
    fprintf(stderr, "%s: no %s\n", library, #name);    \
    exit(77);                                          \
  }
  CUDA_FUNCTIONS(CUDA_FIND)
#undef CUDA_FIND
}

// True or the program ends, naming the call and what it answered.
#define CUDA(call)                                                            \
  do {                                                                        \
    const int cuda_result = cuda.call;                                        \
    if (cuda_result != 0) {                                                   \
      printf("FAIL: line %d: %s answered %d\n", __LINE__, #call, cuda_result); \
      fflush(stdout);                                                         \
      _exit(1);                                                               \
    }                                                                         \
  } while (0)

enum { CUDA_BLOCK = 256, CUDA_SUM_THREADS = 1 << 18 };

// One thread for each of `count` elements.
__attribute__((unused)) static void cuda_launch(void *kernel, uint64_t count, void *stream, void **arguments) {
  const unsigned blocks = (unsigned)((count + CUDA_BLOCK - 1) / CUDA_BLOCK);
  CUDA(cuLaunchKernel(kernel, blocks, 1, 1, CUDA_BLOCK, 1, 1, 0, stream, arguments, NULL));
}

static const char CUDA_KERNELS[] __attribute__((unused)) =
    ".version 6.0\n"
    ".target sm_50\n"
    ".address_size 64\n"
    // c[i] = a[i] + b[i]
    ".visible .entry add(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u32 pn) {\n"
    "  .reg .pred %p; .reg .b32 %r<6>; .reg .b64 %a<5>; .reg .f32 %f<4>;\n"
    "  ld.param.u64 %a1, [pa]; ld.param.u64 %a2, [pb]; ld.param.u64 %a3, [pc]; ld.param.u32 %r1, [pn];\n"
    "  mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.u32 %r5, %r2, %r3, %r4;\n"
    "  setp.ge.u32 %p, %r5, %r1; @%p ret;\n"
    "  mul.wide.u32 %a4, %r5, 4; add.u64 %a1, %a1, %a4; add.u64 %a2, %a2, %a4; add.u64 %a3, %a3, %a4;\n"
    "  ld.global.f32 %f1, [%a1]; ld.global.f32 %f2, [%a2]; add.f32 %f3, %f1, %f2; st.global.f32 [%a3], %f3;\n"
    "  ret;\n"
    "}\n"
    // words[i] = mix(i)
    ".visible .entry fill(.param .u64 pw, .param .u64 pn) {\n"
    "  .reg .pred %p; .reg .b32 %r<4>; .reg .b64 %a<8>;\n"
    "  ld.param.u64 %a1, [pw]; ld.param.u64 %a2, [pn];\n"
    "  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;\n"
    "  mul.wide.u32 %a3, %r1, %r2; cvt.u64.u32 %a4, %r3; add.u64 %a3, %a3, %a4;\n"
    "  setp.ge.u64 %p, %a3, %a2; @%p ret;\n"
    "  mov.u64 %a5, 0x9e3779b97f4a7c15; mul.lo.u64 %a5, %a3, %a5; add.u64 %a5, %a5, 0x632be59bd9b4e019;\n"
    "  shl.b64 %a6, %a3, 3; add.u64 %a1, %a1, %a6; st.global.u64 [%a1], %a5;\n"
    "  ret;\n"
    "}\n"
    // total += words[i], each thread of CUDA_SUM_THREADS those that are so many apart
    ".visible .entry sum(.param .u64 pw, .param .u64 pn, .param .u64 pt) {\n"
    "  .reg .pred %p; .reg .b32 %r<5>; .reg .b64 %a<10>;\n"
    "  ld.param.u64 %a1, [pw]; ld.param.u64 %a2, [pn]; ld.param.u64 %a7, [pt];\n"
    "  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x; mov.u32 %r4, %nctaid.x;\n"
    "  mul.wide.u32 %a3, %r1, %r2; cvt.u64.u32 %a4, %r3; add.u64 %a3, %a3, %a4;\n"
    "  mul.wide.u32 %a8, %r4, %r2; mov.u64 %a9, 0;\n"
    "next:\n"
    "  setp.ge.u64 %p, %a3, %a2; @%p bra done;\n"
    "  shl.b64 %a6, %a3, 3; add.u64 %a6, %a1, %a6; ld.global.u64 %a5, [%a6]; add.u64 %a9, %a9, %a5;\n"
    "  add.u64 %a3, %a3, %a8; bra next;\n"
    "done:\n"
    "  red.global.add.u64 [%a7], %a9;\n"
    "  ret;\n"
    "}\n"
    // ++*counter, by the first thread
    ".visible .entry step(.param .u64 pc) {\n"
    "  .reg .pred %p; .reg .b32 %r<4>; .reg .b64 %a<3>;\n"
    "  ld.param.u64 %a1, [pc];\n"
    "  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %tid.x; or.b32 %r3, %r1, %r2; setp.ne.u32 %p, %r3, 0; @%p ret;\n"
    "  ld.global.u64 %a2, [%a1]; add.u64 %a2, %a2, 1; st.global.u64 [%a1], %a2;\n"
    "  ret;\n"
    "}\n"
    // keeps a device busy for `milliseconds`
    ".visible .entry spin(.param .u32 pm) {\n"
    "  .reg .pred %p; .reg .b32 %r<2>; .reg .b64 %a<4>;\n"
    "  ld.param.u32 %r1, [pm]; mul.wide.u32 %a1, %r1, 1000000; mov.u64 %a2, %globaltimer; add.u64 %a1, %a1, %a2;\n"
    "again:\n"
    "  mov.u64 %a3, %globaltimer; setp.lt.u64 %p, %a3, %a1; @%p bra again;\n"
    "  ret;\n"
    "}\n";

// What `sum` finds after `fill`: mix as in the kernel.
__attribute__((unused)) static uint64_t cuda_expected_sum(uint64_t words) {
  uint64_t total = 0;
  for (uint64_t i = 0; i < words; i++) total += i * 0x9e3779b97f4a7c15 + 0x632be59bd9b4e019;
  return total;
}

#endif  // CEDANA_BENCH_WORKLOADS_CUDA_H_
