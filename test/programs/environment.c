// What a process is told at its start and what it is: arguments, environment, auxiliary vector, name,
// /proc/self/cmdline, limits, priority, out-of-memory score, the id of the process.
#include <elf.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "test.h"

extern char** environ;

static size_t Slurp(const char* path, char* into, size_t size) {
  const int fd = open(path, O_RDONLY);
  CHECK(fd >= 0);
  size_t done = 0;
  for (ssize_t n; (n = read(fd, into + done, size - done)) > 0;) done += (size_t)n;
  close(fd);
  return done;
}

int main(int argc, char** argv) {
  test_begin();
  static char before[4][65536], after[4][65536];
  const char* paths[] = {"/proc/self/cmdline", "/proc/self/environ", "/proc/self/auxv", "/proc/self/oom_score_adj"};
  CHECK(prctl(PR_SET_NAME, "a new name") == 0);
  CHECK(setpriority(PRIO_PROCESS, 0, 5) == 0);
  const struct rlimit files = {.rlim_cur = 333, .rlim_max = 444};
  CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
  const int score = open("/proc/self/oom_score_adj", O_WRONLY);
  CHECK(score >= 0 && write(score, "321", 3) == 3 && close(score) == 0);
  setenv("ADDED", "later", 1);
  size_t sizes[4];
  for (int i = 0; i < 4; i++) sizes[i] = Slurp(paths[i], before[i], sizeof before[i]);
  const unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
  const pid_t pid = getpid();
  const int first_argument = argc > 1 ? argv[1][0] : 0;
  test_checkpoint();

  for (int i = 0; i < 4; i++) {
    CHECK(Slurp(paths[i], after[i], sizeof after[i]) == sizes[i]);
    if (memcmp(before[i], after[i], sizes[i]) != 0) fail("%s changed", paths[i]);
  }
  char name[16];
  struct rlimit now;
  CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "a new name") == 0);
  CHECK(getpid() == pid && getpriority(PRIO_PROCESS, 0) == 5 && getauxval(AT_SYSINFO_EHDR) == vdso);
  CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == 333 && now.rlim_max == 444);
  CHECK(strcmp(getenv("ADDED"), "later") == 0);
  CHECK(argc < 2 || argv[1][0] == first_argument);
  test_pass();
}
