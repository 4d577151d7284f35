// The driver's checkpoint calls by themselves: `cuda-calls LIBRARY take|give PID` locks and checkpoints, or restores and unlocks, a process, and prints
// how many milliseconds each took, in JSON. `facts`: driver and devices.
#include <string.h>
#include <time.h>

#include "cuda.h"

typedef int Call(int pid, void *arguments);

static double Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static double Timed(void *library, const char *name, int pid) {
  unsigned char arguments[64] = {0};
  Call *call;
  *(void **)&call = dlsym(library, name);
  if (call == NULL) {
    fprintf(stderr, "the driver has no %s: 570 or newer is needed\n", name);
    exit(77);
  }
  const double began = Now();
  const int result = call(pid, arguments);
  const double took = Now() - began;
  if (result == 0) return took;
  fprintf(stderr, "%s answered %d\n", name, result);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  cuda_load(argv[1]);
  void *library = dlopen(argv[1], RTLD_NOW);
  const double began = Now();
  const int result = cuda.cuInit(0);
  if (result != 0) {
    fprintf(stderr, "cuInit answered %d\n", result);
    return 77;
  }
  const double init = Now() - began;
  if (strcmp(argv[2], "facts") == 0) {
    int version = 0, count = 0;
    char name[256] = "";
    cuda.cuDriverGetVersion(&version);
    cuda.cuDeviceGetCount(&count);
    cuda.cuDeviceGetName(name, sizeof name, 0);
    printf("CUDA %d.%d, %d × %s, cuInit %.0f ms\n", version / 1000, version % 1000 / 10, count, name, init);
    return 0;
  }
  const int pid = atoi(argv[3]);
  if (strcmp(argv[2], "take") == 0) {
    const double lock = Timed(library, "cuCheckpointProcessLock", pid);
    printf("{\"lock\":%.3f,\"copy\":%.3f}\n", lock, Timed(library, "cuCheckpointProcessCheckpoint", pid));
  } else {
    const double copy = Timed(library, "cuCheckpointProcessRestore", pid);
    printf("{\"copy\":%.3f,\"unlock\":%.3f}\n", copy, Timed(library, "cuCheckpointProcessUnlock", pid));
  }
  return 0;
}
