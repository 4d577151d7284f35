// Process tree: parents, process groups and sessions three levels deep; orders still reach every member.
#include <sys/wait.h>

#include "test.h"

static int report[2];

// Answers one SIGUSR1 with "pid ppid pgid sid", then ends when the children have ended.
static void Member(pid_t below) {
  const pid_t parent = getppid(), group = getpgid(0), session = getsid(0);
  CHECK(write(report[1], "r", 1) == 1);
  test_wait();
  CHECK(getppid() == parent && getpgid(0) == group && getsid(0) == session);
  if (below > 0) {
    int status;
    CHECK(kill(below, SIGUSR1) == 0);
    CHECK(waitpid(below, &status, 0) == below && status == 0);
  }
  _exit(0);
}

int main(void) {
  test_begin();
  CHECK(pipe(report) == 0);
  const pid_t root = getpid();
  pid_t children[4];
  for (int i = 0; i < 4; i++) {
    children[i] = fork();
    CHECK(children[i] >= 0);
    if (children[i] > 0) continue;
    if (i == 1) CHECK(setpgid(0, 0) == 0);
    if (i == 2) CHECK(setsid() == getpid());
    if (i == 3) CHECK(setpgid(0, children[1]) == 0 || setpgid(0, 0) == 0);
    const pid_t below = fork();
    CHECK(below >= 0);
    if (below == 0) {
      if (i == 2) CHECK(setpgid(0, 0) == 0);
      const pid_t last = fork();
      CHECK(last >= 0);
      if (last == 0) Member(0);
      Member(last);
    }
    Member(below);
  }
  char byte;
  for (int i = 0; i < 12; i++) CHECK(read(report[0], &byte, 1) == 1);
  const pid_t session = getsid(0);
  test_checkpoint();
  CHECK(getpid() == root && getsid(0) == session);
  CHECK(getpgid(children[0]) == getpgid(0) && getpgid(children[1]) == children[1]);
  CHECK(getsid(children[2]) == children[2] && getsid(children[1]) == session);
  for (int i = 0; i < 4; i++) {
    int status;
    CHECK(kill(children[i], SIGUSR1) == 0);
    CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
  }
  test_pass();
}
