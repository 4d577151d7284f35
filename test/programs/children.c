// Children in odd states: a zombie whose status nobody has taken yet, one killed by a signal, a stopped one.
#include <sys/wait.h>

#include "test.h"

// Whoever stopped it again has sent the signal; the process itself has to run once more to heed it.
static int stops(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  for (int tries = 0; tries < 1000; ++tries) {
    FILE* stat = fopen(path, "r");
    if (stat == NULL || fgets(text, sizeof text, stat) == NULL) return 0;
    fclose(stat);
    if (strstr(text, ") T ") != NULL) return 1;
    usleep(5000);
  }
  return 0;
}

int main(void) {
  test_begin();
  const pid_t zombie = fork();
  if (zombie == 0) _exit(23);
  const pid_t killed = fork();
  if (killed == 0) {
    raise(SIGKILL);
  }
  const pid_t stopped = fork();
  if (stopped == 0) {
    raise(SIGSTOP);
    _exit(7);
  }
  siginfo_t info;
  CHECK(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT) == 0);
  CHECK(waitid(P_PID, (id_t)killed, &info, WEXITED | WNOWAIT) == 0);
  CHECK(waitid(P_PID, (id_t)stopped, &info, WSTOPPED | WNOWAIT) == 0);
  test_checkpoint();
  int status;
  CHECK(waitpid(zombie, &status, 0) == zombie && WIFEXITED(status) && WEXITSTATUS(status) == 23);
  CHECK(waitpid(killed, &status, 0) == killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  CHECK(stops(stopped));
  CHECK(kill(stopped, SIGCONT) == 0 && waitpid(stopped, &status, 0) == stopped);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  test_pass();
}
