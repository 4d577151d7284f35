/* storm RATE: starts as many processes a second, each of which executes a program and ends. */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

int main(int argc, char **argv) {
  const long rate = argc > 1 ? atol(argv[1]) : 1;
  if (rate < 1) return 2;
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  puts("READY");
  fflush(stdout);
  for (;;) {
    char *const program[] = {"/bin/true", NULL};
    pid_t pid;
    if (posix_spawn(&pid, program[0], NULL, NULL, program, environ) != 0) return 1;
    waitpid(pid, NULL, 0);
    next.tv_nsec += 1000000000 / rate;
    if (next.tv_nsec >= 1000000000) {
      next.tv_nsec -= 1000000000;
      next.tv_sec++;
    }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
  }
}
