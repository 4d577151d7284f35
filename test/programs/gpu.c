// Processes that use a GPU: `gpu LIBRARY PROCESSES MIB [managed | export | import | spin MS | fork | no-gpu | only N]`. Each has a thread that launches kernels without
// end, which count in device memory what it counts itself, and MIB of device memory with known contents. SIGUSR2: all run one more kernel, then ALIVE is said.
// managed: with memory of a kind that cannot be checkpointed; export: a handle of the root's memory is made, import: and opened by its children; spin: the root keeps a device busy for so long, again and again; fork: a child that has
// never called CUDA has the descriptors; no-gpu: the root does not use one, only its children do; only: they see no device but that one.
#include <pthread.h>
#include <sys/wait.h>

#include "../../bench/workloads/cuda.h"
#include "test.h"

enum { MAX_PROCESSES = 8 };

static void *step, *sum, *context;
static CudaAddress counter, words, total;
static uint64_t word_count, steps;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint32_t spin_ms;
static CudaIpcHandle handle;

static void Step(void) {
  pthread_mutex_lock(&mutex);
  cuda_launch(step, 1, NULL, (void *[]){&counter});
  CUDA(cuCtxSynchronize());
  steps++;
  pthread_mutex_unlock(&mutex);
}

static void *Work(void *unused) {
  CUDA(cuCtxSetCurrent(context));
  for (;;) {
    Step();
    usleep(5000);
  }
  return unused;
}

static void *Spin(void *kernel) {
  CUDA(cuCtxSetCurrent(context));
  for (;;) {
    cuda_launch(kernel, 1, NULL, (void *[]){&spin_ms});
    CUDA(cuCtxSynchronize());
  }
}

static void Set(const char *library, size_t bytes, const char *mode) {
  cuda_load(library);
  CUDA(cuInit(0));
  CUDA(cuCtxCreate_v2(&context, 0, 0));
  void *module, *fill, *spin;
  CUDA(cuModuleLoadData(&module, CUDA_KERNELS));
  CUDA(cuModuleGetFunction(&step, module, "step"));
  CUDA(cuModuleGetFunction(&fill, module, "fill"));
  CUDA(cuModuleGetFunction(&sum, module, "sum"));
  CUDA(cuModuleGetFunction(&spin, module, "spin"));
  word_count = bytes / sizeof(uint64_t);
  CUDA(cuMemAlloc_v2(&counter, sizeof(uint64_t)));
  CUDA(cuMemAlloc_v2(&total, sizeof(uint64_t)));
  CUDA(cuMemAlloc_v2(&words, bytes));
  CUDA(cuMemcpyHtoD_v2(counter, &(uint64_t){0}, sizeof(uint64_t)));
  cuda_launch(fill, word_count, NULL, (void *[]){&words, &word_count});
  CUDA(cuCtxSynchronize());
  CudaAddress managed;
  if (strcmp(mode, "managed") == 0) CUDA(cuMemAllocManaged(&managed, 4096, 1));
  if (strcmp(mode, "export") == 0 || strcmp(mode, "import") == 0) CUDA(cuIpcGetMemHandle(&handle, words));
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, Work, NULL) == 0);
  if (spin_ms == 0) return;
  CHECK(pthread_create(&thread, NULL, Spin, spin) == 0);
  usleep(100000);
}

static void Verify(void) {
  pthread_mutex_lock(&mutex);
  uint64_t found;
  CUDA(cuMemcpyDtoH_v2(&found, counter, sizeof found));
  if (found != steps) fail("the device counted %llu of %llu", (unsigned long long)found, (unsigned long long)steps);
  CUDA(cuMemcpyHtoD_v2(total, &(uint64_t){0}, sizeof(uint64_t)));
  cuda_launch(sum, CUDA_SUM_THREADS, NULL, (void *[]){&words, &word_count, &total});
  CUDA(cuCtxSynchronize());
  CUDA(cuMemcpyDtoH_v2(&found, total, sizeof found));
  CHECK(found == cuda_expected_sum(word_count));
}

// The next order: SIGUSR1 or SIGUSR2.
static int Order(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  for (;;) {
    const int got = sigwaitinfo(&set, NULL);
    if (got > 0) return got;
    CHECK(errno == EINTR);
  }
}

int main(int argc, char **argv) {
  CHECK(argc >= 4);
  const int processes = atoi(argv[2]);
  const size_t bytes = strtoull(argv[3], NULL, 10) << 20;
  const char *mode = argc > 4 ? argv[4] : "";
  const int uses_gpu = strcmp(mode, "no-gpu") != 0;
  if (strcmp(mode, "only") == 0) CHECK(setenv("CUDA_VISIBLE_DEVICES", argv[5], 1) == 0);
  test_begin();
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
  int report[2], handles[2];
  pid_t children[MAX_PROCESSES];
  char byte;
  CHECK(pipe(report) == 0 && pipe(handles) == 0 && processes >= 1 && processes <= MAX_PROCESSES);
  for (int i = 1; i < processes; i++) {
    children[i] = fork();
    CHECK(children[i] >= 0);
    if (children[i] > 0) continue;
    Set(argv[1], bytes, "");
    CHECK(write(report[1], "r", 1) == 1);
    if (strcmp(mode, "import") == 0) {
      CudaAddress imported;
      CHECK(read(handles[0], &handle, sizeof handle) == sizeof handle);
      CUDA(cuIpcOpenMemHandle_v2(&imported, handle, 1));
      CHECK(write(report[1], "i", 1) == 1);
    }
    while (Order() == SIGUSR2) {
      Step();
      CHECK(write(report[1], "a", 1) == 1);
    }
    Verify();
    _exit(0);
  }
  for (int i = 1; i < processes; i++) CHECK(read(report[0], &byte, 1) == 1);
  if (strcmp(mode, "spin") == 0) spin_ms = (uint32_t)atoi(argv[5]);
  if (uses_gpu) Set(argv[1], bytes, mode);
  for (int i = 1; i < processes && strcmp(mode, "import") == 0; i++) {
    CHECK(write(handles[1], &handle, sizeof handle) == sizeof handle);
    CHECK(read(report[0], &byte, 1) == 1);
  }
  if (strcmp(mode, "fork") == 0 && fork() == 0) {
    for (;;) pause();
  }
  test_ready();
  while (Order() == SIGUSR2) {
    if (uses_gpu) Step();
    for (int i = 1; i < processes; i++) CHECK(kill(children[i], SIGUSR2) == 0);
    for (int i = 1; i < processes; i++) CHECK(read(report[0], &byte, 1) == 1);
    puts("ALIVE");
  }
  if (uses_gpu) Verify();
  for (int i = 1; i < processes; i++) {
    int status;
    CHECK(kill(children[i], SIGUSR1) == 0);
    CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
  }
  test_pass();
}
