// A double of libcuda.so.1 and libnvidia-ml.so.1: one library that is both, for a machine without a GPU.
//
// The side of a program: devices with memory of their own, a few kernels known by name, and, from cuInit on, a thread that
// does to this process what the driver is asked to do to it by another. The side of whoever asks: the checkpoint calls, as
// NVIDIA documents them (states per process, errors, the timeout of a lock, the remapping of devices), and as driver 580 was
// seen to behave where that says nothing: a process that is not one of CUDA, or not there; managed memory, which is not
// supported once and an unknown error from then on; memory imported from another process, which cannot be had back before
// that one's own.
//
// Beside the library are the device nodes (nvidiactl, nvidia0 …), `settings` (lines `NAME VALUE`, read at each use) and
// `calls`, a line for each checkpoint call. Settings: version (of CUDA), driver (its name), devices, gib (each), seed (of
// their ids), rate (bytes a second of a copy; 0: any), init (what cuInit answers), nvml (0: there is none), used (bytes that
// NVML says each process has, instead of those it has; -1: it does not say), mps (1: all are clients of it),
// fault (`K MODE CODE TIMES`: from the K-th line of `calls` on so many (1) fail, MODE before, after, lose, abort, abort-after or
// hang).
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  OPERATING_SYSTEM = 304,
  ILLEGAL_STATE = 401,
  NOT_FOUND = 500,
  NOT_READY = 600,
  NOT_SUPPORTED = 801,
  UNKNOWN = 999,
};
enum { RUNNING, LOCKED, CHECKPOINTED, FAILED };
enum { MAX_DEVICES = 8, MAX_ALLOCATIONS = 64, MAX_FDS = 1 + MAX_DEVICES, MAX_NODES = 64 };

typedef struct {
  unsigned char bytes[16];
} Uuid;
typedef struct {
  Uuid from, to;
} Pair;

// --- settings ---

static const char *directory(void) {
  static char path[4096];
  Dl_info info;
  if (path[0] == 0 && dladdr((void *)directory, &info) != 0) {
    snprintf(path, sizeof path, "%s", info.dli_fname);
    char *slash = strrchr(path, '/');
    if (slash != NULL) *slash = 0;
  }
  return path;
}

static FILE *beside(const char *name, const char *mode) {
  char path[4200];
  snprintf(path, sizeof path, "%s/%s", directory(), name);
  return fopen(path, mode);
}

static int setting_text(const char *name, char *value, size_t size) {
  FILE *file = beside("settings", "re");
  if (file == NULL) return 0;
  char line[256];
  const size_t length = strlen(name);
  int found = 0;
  while (!found && fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, name, length) != 0 || line[length] != ' ') continue;
    line[strcspn(line, "\n")] = 0;
    snprintf(value, size, "%s", line + length + 1);
    found = 1;
  }
  fclose(file);
  return found;
}

static long long setting(const char *name, long long otherwise) {
  char value[64];
  return setting_text(name, value, sizeof value) ? atoll(value) : otherwise;
}

static int devices(void) { return (int)setting("devices", 1); }

// The program's own choice: one of them, or all.
static int first_visible(void) {
  const char *chosen = getenv("CUDA_VISIBLE_DEVICES");
  return chosen == NULL ? 0 : atoi(chosen);
}
static int visible(void) { return getenv("CUDA_VISIBLE_DEVICES") == NULL ? devices() : 1; }

static Uuid uuid_of(int device) {
  Uuid uuid;
  memset(uuid.bytes, (int)setting("seed", 16) + device, sizeof uuid.bytes);
  return uuid;
}

static int same(const Uuid *a, const Uuid *b) { return memcmp(a, b, sizeof *a) == 0; }

static int device_of(const Uuid *uuid) {
  for (int device = 0; device < devices(); device++) {
    const Uuid own = uuid_of(device);
    if (same(&own, uuid)) return device;
  }
  return -1;
}

static void rest(double seconds) {
  struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  nanosleep(&time, NULL);
}

// --- what a process of CUDA has where the driver looks for it ---

// Above any program and its heap (mmap_rnd_bits of 28), and where ThreadSanitizer lets a program have memory.
#define CONTROL ((struct control *)0x566000000000)
#define MAGIC 0x61647563656b6166
#define THREAD "fake-restore"
#define WAKE (SIGRTMIN + 8)

struct control {
  volatile uint64_t magic;
  volatile uint32_t asked, answered;
  int operation;
  uint32_t timeout_ms;
  uint32_t pair_count;
  Pair pairs[MAX_DEVICES];
  volatile int result;
  volatile int state;
  volatile int unsupported;
  volatile pid_t exporter;
  volatile uint64_t bytes[MAX_DEVICES];
  Uuid uuids[MAX_DEVICES];
};

// --- the side of a program ---

struct allocation {
  uint64_t address;
  size_t size;
  int device;
  int fd;
  void *host;
};

static struct {
  pid_t pid;
  int fds[MAX_FDS];
  struct allocation allocations[MAX_ALLOCATIONS];
  uint64_t next;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int busy;
} own = {.next = 0x566800000000, .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
static __thread int current_device;

static int usable(void) { return own.pid == getpid(); }

// Calls that use a device wait while the process is locked (for ever, when it has failed), and a lock waits for them.
static int enter(void) {
  if (!usable()) return NOT_INITIALIZED;
  pthread_mutex_lock(&own.mutex);
  while (CONTROL->state != RUNNING) pthread_cond_wait(&own.changed, &own.mutex);
  own.busy++;
  pthread_mutex_unlock(&own.mutex);
  return SUCCESS;
}

static int leave(int result) {
  pthread_mutex_lock(&own.mutex);
  own.busy--;
  pthread_cond_broadcast(&own.changed);
  pthread_mutex_unlock(&own.mutex);
  return result;
}

static void become(int state) {
  pthread_mutex_lock(&own.mutex);
  CONTROL->state = state;
  pthread_cond_broadcast(&own.changed);
  pthread_mutex_unlock(&own.mutex);
}

// Of all devices that the process can see, each being the one of that id.
static int open_nodes(const Uuid *uuids) {
  for (int i = 0; i <= visible() && i < MAX_FDS; i++) {
    char path[4200];
    if (i == 0) snprintf(path, sizeof path, "%s/nvidiactl", directory());
    else snprintf(path, sizeof path, "%s/nvidia%d", directory(), device_of(&uuids[i - 1]));
    own.fds[i] = open(path, O_RDWR | O_CLOEXEC);
    if (own.fds[i] < 0) return NO_DEVICE;
  }
  return SUCCESS;
}

static void close_nodes(void) {
  for (int i = 0; i < MAX_FDS; i++) {
    if (own.fds[i] >= 0) close(own.fds[i]);
    own.fds[i] = -1;
  }
}

static int map_device(struct allocation *one) {
  one->fd = memfd_create("device-memory", MFD_CLOEXEC);
  if (one->fd < 0 || ftruncate(one->fd, (off_t)one->size) != 0) return OUT_OF_MEMORY;
  const int flags = MAP_SHARED | (one->host != NULL ? MAP_FIXED : MAP_FIXED_NOREPLACE);
  void *at = mmap((void *)one->address, one->size, PROT_READ | PROT_WRITE, flags, one->fd, 0);
  return at == (void *)one->address ? SUCCESS : OUT_OF_MEMORY;
}

static void copy_slowly(void *to, const void *from, size_t size) {
  memcpy(to, from, size);
  const long long rate = setting("rate", 0);
  if (rate > 0) rest((double)size / (double)rate);
}

static int do_lock(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  const uint32_t ms = CONTROL->timeout_ms;
  until.tv_sec += ms / 1000;
  until.tv_nsec += (long)(ms % 1000) * 1000000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000;
  }
  pthread_mutex_lock(&own.mutex);
  CONTROL->state = LOCKED;
  int result = SUCCESS;
  while (own.busy > 0 && result == SUCCESS) {
    if (ms == 0) pthread_cond_wait(&own.changed, &own.mutex);
    else if (pthread_cond_timedwait(&own.changed, &own.mutex, &until) == ETIMEDOUT) result = NOT_READY;
  }
  if (result != SUCCESS) {
    CONTROL->state = RUNNING;
    pthread_cond_broadcast(&own.changed);
  }
  pthread_mutex_unlock(&own.mutex);
  return result;
}

static int do_checkpoint(void) {
  if (CONTROL->unsupported) return CONTROL->unsupported++ == 1 ? NOT_SUPPORTED : UNKNOWN;
  for (struct allocation *one = own.allocations; one < own.allocations + MAX_ALLOCATIONS; one++) {
    if (one->size == 0) continue;
    one->host = mmap(NULL, one->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (one->host == MAP_FAILED) return OUT_OF_MEMORY;
    copy_slowly(one->host, (void *)one->address, one->size);
    mmap((void *)one->address, one->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    close(one->fd);
    one->fd = -1;
  }
  close_nodes();
  memset((void *)CONTROL->bytes, 0, sizeof CONTROL->bytes);
  become(CHECKPOINTED);
  return SUCCESS;
}

static int target_of(int device, Uuid *uuid) {
  *uuid = CONTROL->uuids[device];
  if (CONTROL->pair_count == 0) return device_of(uuid);
  for (uint32_t i = 0; i < CONTROL->pair_count; i++) {
    if (!same(&CONTROL->pairs[i].from, uuid)) continue;
    *uuid = CONTROL->pairs[i].to;
    return device_of(uuid);
  }
  return -1;
}

static int look(pid_t pid, struct control *control);

static int do_restore(void) {
  Uuid uuid, targets[MAX_DEVICES];
  struct control exporter;
  if (CONTROL->exporter != 0 && look(CONTROL->exporter, &exporter) && exporter.state == CHECKPOINTED) return INVALID_VALUE;
  for (int device = 0; device < visible(); device++) {
    if (target_of(device, &targets[device]) < 0) return INVALID_VALUE;
  }
  if (open_nodes(targets) != SUCCESS) {
    close_nodes();
    return NO_DEVICE;
  }
  for (struct allocation *one = own.allocations; one < own.allocations + MAX_ALLOCATIONS; one++) {
    if (one->size == 0) continue;
    const int device = target_of(one->device, &uuid);
    if (map_device(one) != SUCCESS) return OUT_OF_MEMORY;
    copy_slowly((void *)one->address, one->host, one->size);
    munmap(one->host, one->size);
    one->host = NULL;
    CONTROL->bytes[device] += one->size;
  }
  memcpy(CONTROL->uuids, targets, (size_t)visible() * sizeof *targets);
  become(LOCKED);
  return SUCCESS;
}

static int do_unlock(void) {
  become(RUNNING);
  return SUCCESS;
}

enum { OP_LOCK, OP_CHECKPOINT, OP_RESTORE, OP_UNLOCK, OP_LOSE };
static const struct {
  const char *name;
  int from;
  int (*act)(void);
} OPERATIONS[] = {
    [OP_LOCK] = {"lock", RUNNING, do_lock},
    [OP_CHECKPOINT] = {"checkpoint", LOCKED, do_checkpoint},
    [OP_RESTORE] = {"restore", CHECKPOINTED, do_restore},
    [OP_UNLOCK] = {"unlock", LOCKED, do_unlock},
};

static void *serve(void *unused) {
  (void)unused;
  prctl(PR_SET_NAME, THREAD);
  CONTROL->magic = MAGIC;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, WAKE);
  for (;;) {
    if (sigwaitinfo(&set, NULL) < 0 || CONTROL->asked == CONTROL->answered) continue;
    const int operation = CONTROL->operation;
    if (operation == OP_LOSE) {
      become(FAILED);
      CONTROL->result = UNKNOWN;
    } else if (CONTROL->state != OPERATIONS[operation].from) {
      CONTROL->result = ILLEGAL_STATE;
    } else {
      CONTROL->result = OPERATIONS[operation].act();
    }
    CONTROL->answered = CONTROL->asked;
  }
  return NULL;
}

int cuInit(unsigned flags) {
  if (flags != 0) return INVALID_VALUE;
  const int refused = (int)setting("init", SUCCESS);
  if (refused != SUCCESS) return refused;
  if (usable()) return SUCCESS;
  if (own.pid != 0) return NOT_INITIALIZED;  // a fork of a process of CUDA
  for (int i = 0; i < MAX_FDS; i++) own.fds[i] = -1;
  Uuid uuids[MAX_DEVICES];
  for (int i = 0; i < visible(); i++) uuids[i] = uuid_of(first_visible() + i);
  if (open_nodes(uuids) != SUCCESS) return NO_DEVICE;
  const int flags_of_map = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  void *at = mmap(CONTROL, sizeof *CONTROL, PROT_READ | PROT_WRITE, flags_of_map, -1, 0);
  if (at != CONTROL) return UNKNOWN;
  memcpy(CONTROL->uuids, uuids, (size_t)visible() * sizeof *uuids);
  own.pid = getpid();
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int failed = pthread_create(&thread, NULL, serve, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  while (!failed && CONTROL->magic != MAGIC) rest(0.0001);
  return failed ? UNKNOWN : SUCCESS;
}

int cuDriverGetVersion(int *version) {
  *version = (int)setting("version", 12080);
  return SUCCESS;
}

int cuDeviceGetCount(int *count) {
  if (!usable()) return NOT_INITIALIZED;
  *count = visible();
  return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
  if (ordinal < 0 || ordinal >= visible()) return INVALID_VALUE;
  *device = ordinal;
  return SUCCESS;
}

int cuDeviceGetName(char *name, int length, int device) {
  char given[64];
  if (setting_text("name", given, sizeof given)) snprintf(name, (size_t)length, "%s", given);
  else snprintf(name, (size_t)length, "Double %d", 100);
  return device < visible() ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGetUuid_v2(Uuid *uuid, int device) {
  *uuid = uuid_of(first_visible() + device);
  return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  (void)device;
  *bytes = (size_t)setting("gib", 16) << 30;
  return SUCCESS;
}

int cuCtxCreate_v2(void **context, unsigned flags, int device) {
  (void)flags;
  const int entered = enter();
  if (entered != SUCCESS) return entered;
  if (device < 0 || device >= visible()) return leave(INVALID_VALUE);
  current_device = device;
  *context = (void *)(uintptr_t)(device + 1);
  return leave(SUCCESS);
}

int cuCtxSetCurrent(void *context) {
  current_device = (int)(uintptr_t)context - 1;
  return SUCCESS;
}

int cuMemAlloc_v2(uint64_t *address, size_t size) {
  const int entered = enter();
  if (entered != SUCCESS) return entered;
  pthread_mutex_lock(&own.mutex);
  struct allocation *one = own.allocations;
  while (one < own.allocations + MAX_ALLOCATIONS && one->size != 0) one++;
  int result = one < own.allocations + MAX_ALLOCATIONS ? SUCCESS : OUT_OF_MEMORY;
  if (result == SUCCESS) {
    const size_t rounded = (size + 0x1fffff) & ~(size_t)0x1fffff;
    *one = (struct allocation){own.next, rounded, current_device, -1, NULL};
    own.next += rounded + 0x200000;
    result = map_device(one);
    if (result == SUCCESS) CONTROL->bytes[device_of(&CONTROL->uuids[current_device])] += rounded;
    else one->size = 0;
    *address = one->address;
  }
  pthread_mutex_unlock(&own.mutex);
  return leave(result);
}

int cuMemAllocManaged(uint64_t *address, size_t size, unsigned flags) {
  (void)flags;
  const int result = cuMemAlloc_v2(address, size);
  if (result == SUCCESS) CONTROL->unsupported = 1;
  return result;
}

int cuIpcGetMemHandle(unsigned char *handle, uint64_t address) {
  const int entered = enter();
  if (entered != SUCCESS) return entered;
  memset(handle, 0, 64);
  memcpy(handle, &address, sizeof address);
  memcpy(handle + sizeof address, &own.pid, sizeof own.pid);
  return leave(SUCCESS);
}

struct ipc_handle {
  uint64_t address;
  pid_t pid;
  unsigned char unused[52];
};

// The memory itself is not shared.
int cuIpcOpenMemHandle_v2(uint64_t *address, struct ipc_handle handle, unsigned flags) {
  (void)flags;
  const int entered = enter();
  if (entered != SUCCESS) return entered;
  CONTROL->exporter = handle.pid;
  *address = handle.address;
  return leave(SUCCESS);
}

int cuMemFree_v2(uint64_t address) {
  const int entered = enter();
  if (entered != SUCCESS) return entered;
  pthread_mutex_lock(&own.mutex);
  int result = INVALID_VALUE;
  for (struct allocation *one = own.allocations; one < own.allocations + MAX_ALLOCATIONS; one++) {
    if (one->size == 0 || one->address != address) continue;
    munmap((void *)address, one->size);
    close(one->fd);
    CONTROL->bytes[device_of(&CONTROL->uuids[one->device])] -= one->size;
    one->size = 0;
    result = SUCCESS;
  }
  pthread_mutex_unlock(&own.mutex);
  return leave(result);
}

int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) {
  const int entered = enter();
  if (entered != SUCCESS) return entered;
  memcpy((void *)to, from, size);
  return leave(SUCCESS);
}

int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) {
  const int entered = enter();
  if (entered != SUCCESS) return entered;
  memcpy(to, (void *)from, size);
  return leave(SUCCESS);
}

// Kernels: what the PTX of the same name does.

#define ARGUMENT(type, index) (*(type *)arguments[index])
static uint64_t mix(uint64_t value) { return value * 0x9e3779b97f4a7c15 + 0x632be59bd9b4e019; }

static void kernel_add(void **arguments) {
  const float *a = ARGUMENT(float *, 0), *b = ARGUMENT(float *, 1);
  float *c = ARGUMENT(float *, 2);
  for (uint32_t i = 0; i < ARGUMENT(uint32_t, 3); i++) c[i] = a[i] + b[i];
}

static void kernel_fill(void **arguments) {
  uint64_t *words = ARGUMENT(uint64_t *, 0);
  for (uint64_t i = 0; i < ARGUMENT(uint64_t, 1); i++) words[i] = mix(i);
}

static void kernel_sum(void **arguments) {
  const uint64_t *words = ARGUMENT(uint64_t *, 0);
  uint64_t total = 0;
  for (uint64_t i = 0; i < ARGUMENT(uint64_t, 1); i++) total += words[i];
  *ARGUMENT(uint64_t *, 2) += total;
}

static void kernel_step(void **arguments) { ++*ARGUMENT(uint64_t *, 0); }
static void kernel_spin(void **arguments) { rest(ARGUMENT(uint32_t, 0) / 1000.0); }

typedef void Kernel(void **);
static const struct {
  const char *name;
  Kernel *run;
  int arguments;
} KERNELS[] = {{"add", kernel_add, 4}, {"fill", kernel_fill, 2}, {"sum", kernel_sum, 3}, {"step", kernel_step, 1}, {"spin", kernel_spin, 1}};
enum { KERNEL_COUNT = sizeof KERNELS / sizeof KERNELS[0] };

int cuModuleLoadData(void **module, const void *image) {
  (void)image;
  *module = (void *)1;
  return usable() ? SUCCESS : NOT_INITIALIZED;
}

int cuModuleGetFunction(const void **function, void *module, const char *name) {
  (void)module;
  for (int i = 0; i < KERNEL_COUNT; i++) {
    if (strcmp(KERNELS[i].name, name) != 0) continue;
    *function = &KERNELS[i];
    return SUCCESS;
  }
  return NOT_FOUND;
}

// A graph: the launches of one capture, with their arguments.
struct node {
  int kernel;
  uint64_t values[4];
};
struct graph {
  int count;
  struct node nodes[MAX_NODES];
};
static struct graph *capture;

static int run(int kernel, void **arguments) {
  const int entered = enter();
  if (entered != SUCCESS) return entered;
  KERNELS[kernel].run(arguments);
  return leave(SUCCESS);
}

int cuLaunchKernel(const void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **arguments, void **extra) {
  (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)stream, (void)extra;
  const int kernel = (int)((const char *)function - (const char *)KERNELS) / (int)sizeof KERNELS[0];
  if (capture == NULL) return run(kernel, arguments);
  if (capture->count == MAX_NODES) return OUT_OF_MEMORY;
  struct node *node = &capture->nodes[capture->count++];
  node->kernel = kernel;
  for (int i = 0; i < KERNELS[kernel].arguments; i++) node->values[i] = *(uint64_t *)arguments[i];
  return SUCCESS;
}

int cuStreamCreate(void **stream, unsigned flags) {
  (void)flags;
  *stream = (void *)1;
  return SUCCESS;
}

int cuStreamBeginCapture_v2(void *stream, int mode) {
  (void)stream, (void)mode;
  capture = calloc(1, sizeof *capture);
  return capture == NULL ? OUT_OF_MEMORY : SUCCESS;
}

int cuStreamEndCapture(void *stream, void **graph) {
  (void)stream;
  *graph = capture;
  capture = NULL;
  return SUCCESS;
}

int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  (void)flags;
  *executable = graph;
  return SUCCESS;
}

int cuGraphLaunch(void *executable, void *stream) {
  (void)stream;
  struct graph *graph = executable;
  for (int i = 0; i < graph->count; i++) {
    void *arguments[4];
    for (int j = 0; j < 4; j++) arguments[j] = &graph->nodes[i].values[j];
    const int result = run(graph->nodes[i].kernel, arguments);
    if (result != SUCCESS) return result;
  }
  return SUCCESS;
}

int cuStreamSynchronize(void *stream) {
  (void)stream;
  return usable() ? SUCCESS : NOT_INITIALIZED;
}

int cuCtxSynchronize(void) { return cuStreamSynchronize(NULL); }

int cuGetErrorName(int error, const char **name) {
  *name = error == SUCCESS ? "CUDA_SUCCESS" : "CUDA_ERROR";
  return SUCCESS;
}

// --- the side of whoever asks ---

static int restore_thread(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *tasks = opendir(path);
  if (tasks == NULL) return 0;
  int found = 0;
  for (struct dirent *entry; !found && (entry = readdir(tasks)) != NULL;) {
    char comm_path[400], comm[32] = "";
    snprintf(comm_path, sizeof comm_path, "/proc/%d/task/%s/comm", pid, entry->d_name);
    FILE *file = fopen(comm_path, "re");
    if (file == NULL) continue;
    if (fgets(comm, sizeof comm, file) != NULL && strcmp(comm, THREAD "\n") == 0) found = atoi(entry->d_name);
    fclose(file);
  }
  closedir(tasks);
  return found;
}

// What is answered of a process that is not one of CUDA.
static int nobody(pid_t pid) { return kill(pid, 0) != 0 && errno == ESRCH ? OPERATING_SYSTEM : NOT_INITIALIZED; }

static int look(pid_t pid, struct control *control) {
  struct iovec local = {control, sizeof *control}, remote = {CONTROL, sizeof *control};
  if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != (ssize_t)sizeof *control) return 0;
  return control->magic == MAGIC;
}

static void tell(pid_t pid, size_t offset, const void *bytes, size_t size) {
  struct iovec local = {(void *)bytes, size}, remote = {(char *)CONTROL + offset, size};
  process_vm_writev(pid, &local, 1, &remote, 1, 0);
}
#define TELL(pid, from, field) tell(pid, offsetof(struct control, field), (void *)&(from).field, sizeof(from).field)

static int ask(pid_t pid, int tid, int operation, struct control *control) {
  if (control->asked != control->answered) return NOT_READY;
  control->operation = operation;
  const uint32_t number = ++control->asked;
  TELL(pid, *control, operation);
  TELL(pid, *control, timeout_ms);
  TELL(pid, *control, pair_count);
  TELL(pid, *control, pairs);
  TELL(pid, *control, asked);
  if (syscall(SYS_tgkill, pid, tid, WAKE) != 0) return INVALID_VALUE;
  do {
    rest(0.001);
    if (!look(pid, control)) return INVALID_VALUE;
  } while (control->answered != number);
  return control->result;
}

struct fault {
  char mode[16];
  int code;
};

// Writes the call down, and says what becomes of it.
static struct fault record(const char *name, pid_t pid, const char *detail) {
  struct fault fault = {"", 0};
  FILE *calls = beside("calls", "a+e");
  if (calls == NULL) return fault;
  flock(fileno(calls), LOCK_EX);
  rewind(calls);
  int number = 1;
  for (int c; (c = fgetc(calls)) != EOF;) number += c == '\n';
  fprintf(calls, "%s %d%s\n", name, pid, detail);
  fclose(calls);
  char plan[64];
  int at = 0, times = 1;
  struct fault planned = {"", 0};
  const int said = setting_text("fault", plan, sizeof plan) ? sscanf(plan, "%d %15s %d %d", &at, planned.mode, &planned.code, &times) : 0;
  if (said >= 2 && number >= at && number < at + times) {
    if (strcmp(planned.mode, "abort") == 0) abort();
    while (strcmp(planned.mode, "hang") == 0) pause();
    fault = planned;
  }
  return fault;
}

static int is(const struct fault *fault, const char *mode) { return strcmp(fault->mode, mode) == 0; }

static int finish(const struct fault *fault, int result) {
  if (is(fault, "abort-after")) abort();
  return is(fault, "after") ? fault->code : result;
}

static int all_zero(const void *bytes, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (((const char *)bytes)[i] != 0) return 0;
  return 1;
}

static int carry_out(pid_t pid, int operation, uint32_t timeout_ms, const Pair *pairs, uint32_t pair_count) {
  char detail[600] = "";
  for (uint32_t i = 0; i < pair_count && i < MAX_DEVICES; i++) {
    snprintf(detail + strlen(detail), sizeof detail - strlen(detail), " %02x=%02x", pairs[i].from.bytes[0], pairs[i].to.bytes[0]);
  }
  const struct fault fault = record(OPERATIONS[operation].name, pid, detail);
  if (is(&fault, "before")) return fault.code;
  if (pair_count > MAX_DEVICES) return INVALID_VALUE;
  struct control control;
  const int tid = restore_thread(pid);
  if (tid == 0 || !look(pid, &control)) return nobody(pid);
  control.timeout_ms = timeout_ms;
  control.pair_count = pair_count;
  if (pair_count > 0) memcpy(control.pairs, pairs, pair_count * sizeof *pairs);
  return finish(&fault, ask(pid, tid, is(&fault, "lose") ? OP_LOSE : operation, &control));
}

int cuCheckpointProcessGetRestoreThreadId(int pid, int *tid) {
  if (!usable()) return NOT_INITIALIZED;
  const struct fault fault = record("thread", pid, "");
  if (is(&fault, "before")) return fault.code;
  *tid = restore_thread(pid);
  return finish(&fault, *tid == 0 ? nobody(pid) : SUCCESS);
}

int cuCheckpointProcessGetState(int pid, int *state) {
  if (!usable()) return NOT_INITIALIZED;
  const struct fault fault = record("state", pid, "");
  if (is(&fault, "before")) return fault.code;
  struct control control;
  if (restore_thread(pid) == 0 || !look(pid, &control)) return nobody(pid);
  *state = control.state;
  return finish(&fault, SUCCESS);
}

int cuCheckpointProcessLock(int pid, const unsigned char *arguments) {
  if (!usable()) return NOT_INITIALIZED;
  uint32_t timeout_ms = 0;
  if (arguments != NULL) {
    if (!all_zero(arguments + 4, 60)) return INVALID_VALUE;
    memcpy(&timeout_ms, arguments, sizeof timeout_ms);
  }
  return carry_out(pid, OP_LOCK, timeout_ms, NULL, 0);
}

int cuCheckpointProcessCheckpoint(int pid, const unsigned char *arguments) {
  if (!usable()) return NOT_INITIALIZED;
  if (arguments != NULL && !all_zero(arguments, 64)) return INVALID_VALUE;
  return carry_out(pid, OP_CHECKPOINT, 0, NULL, 0);
}

int cuCheckpointProcessRestore(int pid, const unsigned char *arguments) {
  if (!usable()) return NOT_INITIALIZED;
  const Pair *pairs = NULL;
  uint32_t count = 0;
  if (arguments != NULL) {
    // Before 13.0 these bytes are reserved.
    if (!all_zero(arguments + (setting("version", 12080) >= 13000 ? 12 : 0), 52)) return INVALID_VALUE;
    memcpy(&pairs, arguments, sizeof pairs);
    memcpy(&count, arguments + 8, sizeof count);
  }
  return carry_out(pid, OP_RESTORE, 0, pairs, count);
}

int cuCheckpointProcessUnlock(int pid, const unsigned char *arguments) {
  if (!usable()) return NOT_INITIALIZED;
  if (arguments != NULL && !all_zero(arguments, 64)) return INVALID_VALUE;
  return carry_out(pid, OP_UNLOCK, 0, NULL, 0);
}

// --- NVML ---

int nvmlInit_v2(void) { return setting("nvml", 1) ? 0 : 9; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  char given[64] = "570.86.15";
  setting_text("driver", given, sizeof given);
  snprintf(version, length, "%s", given);
  return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = (unsigned)devices();
  return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  *device = (void *)(uintptr_t)(index + 1);
  return 0;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
  const Uuid uuid = uuid_of((int)((uintptr_t)device - 1));
  char digits[33];
  for (int i = 0; i < 16; i++) snprintf(digits + 2 * i, 3, "%02x", uuid.bytes[i]);
  snprintf(text, length, "GPU-%.8s-%.4s-%.4s-%.4s-%s", digits, digits + 8, digits + 12, digits + 16, digits + 20);
  return 0;
}

int nvmlDeviceGetMinorNumber(void *device, unsigned *minor) {
  *minor = (unsigned)((uintptr_t)device - 1);
  return 0;
}

struct process_memory {
  unsigned pid;
  unsigned long long bytes;
  unsigned gpu_instance, compute_instance;
};

static int list_processes(void *device, unsigned *count, struct process_memory *processes) {
  const uintptr_t index = (uintptr_t)device - 1;
  unsigned found = 0;
  DIR *proc = opendir("/proc");
  if (proc == NULL) return 999;
  for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
    struct control control;
    const pid_t pid = atoi(entry->d_name);
    if (pid <= 0 || !look(pid, &control) || restore_thread(pid) == 0 || control.bytes[index] == 0) continue;
    const unsigned long long bytes = (unsigned long long)setting("used", (long long)control.bytes[index]);
    if (found < *count) processes[found] = (struct process_memory){(unsigned)pid, bytes, 0, 0};
    found++;
  }
  closedir(proc);
  const int short_of = found > *count;
  *count = found;
  return short_of ? 7 : 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process_memory *processes) {
  return list_processes(device, count, processes);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *device, unsigned *count, struct process_memory *processes) {
  if (setting("mps", 0)) return list_processes(device, count, processes);
  *count = 0;
  return 0;
}
