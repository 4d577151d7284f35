// The first process of its own PID, mount, IPC and UTS namespaces, with a child. Said READY by the parent
// inside; the program outside only waits for it.
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "test.h"

int main(void) {
  test_begin();
  CHECK(unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) == 0);
  const pid_t inner = fork();
  CHECK(inner >= 0);
  if (inner > 0) {
    FILE* file = fopen("inner.tmp", "w");
    CHECK(file != NULL && fprintf(file, "%d\n", inner) > 0 && fclose(file) == 0);
    CHECK(rename("inner.tmp", "inner") == 0);
    int status;
    CHECK(waitpid(inner, &status, 0) == inner);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  CHECK(getpid() == 1 && setsid() == 1);
  CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("proc", "/proc", "proc", 0, NULL) == 0);
  CHECK(sethostname("inside", 6) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    test_wait();
    _exit(getppid() == 1 ? 0 : 1);
  }
  test_checkpoint();
  char name[16] = {0};
  int status;
  CHECK(getpid() == 1 && gethostname(name, sizeof name) == 0 && strcmp(name, "inside") == 0);
  CHECK(kill(child, SIGUSR1) == 0 && waitpid(child, &status, 0) == child && status == 0);
  test_pass();
}
