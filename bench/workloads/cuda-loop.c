// A program on a GPU: `cuda-loop LIBRARY add|memory|graph MIB`. Says READY when it works, and on SIGUSR1 verifies what is on the device, says PASS and ends.
//   add     adds vectors without end, MIB in three of them
//   memory  holds MIB with known contents, and sums them up now and then
//   graph   replays a graph of launches without end, which count on the device what it counts itself
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cuda.h"

enum { GRAPH_LAUNCHES = 32 };

static volatile sig_atomic_t is_over;
static void Over(int signal) { is_over = signal; }

static void *Kernel(const char *name) {
  static void *module;
  if (module == NULL) CUDA(cuModuleLoadData(&module, CUDA_KERNELS));
  void *kernel;
  CUDA(cuModuleGetFunction(&kernel, module, name));
  return kernel;
}

static CudaAddress Allocate(size_t bytes) {
  CudaAddress address;
  CUDA(cuMemAlloc_v2(&address, bytes));
  return address;
}

static void Fail(const char *why) {
  printf("FAIL: %s\n", why);
  exit(1);
}

static void Ready(void) {
  printf("READY\n");
  fflush(stdout);
}

// By pieces: memory of the host would be dumped too.
enum { PIECE = 1 << 20 };
static float Expected(size_t i) { return (float)(i % 1000); }

static void Add(size_t bytes) {
  static float piece[PIECE];
  if (bytes / 3 / sizeof piece > UINT32_MAX / PIECE) bytes = (size_t)(UINT32_MAX / PIECE) * 3 * sizeof piece;
  uint32_t count = (uint32_t)(bytes / 3 / sizeof piece) * PIECE;
  if (count == 0) Fail("too little memory");
  const size_t size = count * sizeof(float);
  CudaAddress a = Allocate(size), b = Allocate(size), c = Allocate(size);
  for (size_t at = 0; at < count; at += PIECE) {
    for (size_t i = 0; i < PIECE; i++) piece[i] = Expected(at + i);
    CUDA(cuMemcpyHtoD_v2(a + at * sizeof(float), piece, sizeof piece));
    CUDA(cuMemcpyHtoD_v2(b + at * sizeof(float), piece, sizeof piece));
  }
  void *kernel = Kernel("add");
  for (int round = 0; !is_over; round++) {
    cuda_launch(kernel, count, NULL, (void *[]){&a, &b, &c, &count});
    CUDA(cuCtxSynchronize());
    if (round == 0) Ready();
  }
  for (size_t at = 0; at < count; at += PIECE) {
    CUDA(cuMemcpyDtoH_v2(piece, c + at * sizeof(float), sizeof piece));
    for (size_t i = 0; i < PIECE; i++)
      if (piece[i] != 2 * Expected(at + i)) Fail("a wrong sum");
  }
}

static void Memory(size_t bytes) {
  uint64_t count = bytes / sizeof(uint64_t), found = 0;
  CudaAddress words = Allocate(bytes), total = Allocate(sizeof(uint64_t));
  void *sum = Kernel("sum");
  cuda_launch(Kernel("fill"), count, NULL, (void *[]){&words, &count});
  CUDA(cuCtxSynchronize());
  const uint64_t expected = cuda_expected_sum(count);
  for (int round = 0, last = 0; !last; round++) {
    last = is_over;
    CUDA(cuMemcpyHtoD_v2(total, &(uint64_t){0}, sizeof(uint64_t)));
    cuda_launch(sum, CUDA_SUM_THREADS, NULL, (void *[]){&words, &count, &total});
    CUDA(cuCtxSynchronize());
    CUDA(cuMemcpyDtoH_v2(&found, total, sizeof found));
    if (found != expected) Fail("a wrong checksum");
    if (round == 0) Ready();
    if (!is_over) usleep(50000);
  }
}

static void Graph(size_t bytes) {
  CudaAddress counter = Allocate(sizeof(uint64_t));
  Allocate(bytes);
  void *stream, *graph, *executable, *step = Kernel("step");
  // A kernel that is launched for the first time may have to be loaded, which is not allowed in a capture.
  cuda_launch(step, 1, NULL, (void *[]){&counter});
  CUDA(cuMemcpyHtoD_v2(counter, &(uint64_t){0}, sizeof(uint64_t)));
  CUDA(cuStreamCreate(&stream, 1));
  CUDA(cuStreamBeginCapture_v2(stream, 0));
  for (int i = 0; i < GRAPH_LAUNCHES; i++) cuda_launch(step, 1, stream, (void *[]){&counter});
  CUDA(cuStreamEndCapture(stream, &graph));
  CUDA(cuGraphInstantiateWithFlags(&executable, graph, 0));
  uint64_t replays = 0, found = 0;
  for (; !is_over; replays++) {
    CUDA(cuGraphLaunch(executable, stream));
    CUDA(cuStreamSynchronize(stream));
    if (replays == 0) Ready();
  }
  CUDA(cuMemcpyDtoH_v2(&found, counter, sizeof found));
  if (found != replays * GRAPH_LAUNCHES) Fail("launches were lost");
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const struct sigaction action = {.sa_handler = Over, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  const size_t bytes = strtoull(argv[3], NULL, 10) << 20;
  void *context;
  int device;
  cuda_load(argv[1]);
  CUDA(cuInit(0));
  CUDA(cuDeviceGet(&device, 0));
  CUDA(cuCtxCreate_v2(&context, 0, device));
  if (strcmp(argv[2], "add") == 0) Add(bytes);
  else if (strcmp(argv[2], "memory") == 0) Memory(bytes);
  else if (strcmp(argv[2], "graph") == 0) Graph(bytes);
  else return 2;
  printf("PASS\n");
  return 0;
}
