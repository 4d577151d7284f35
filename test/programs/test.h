// The frame of a test program: it sets some state up, says READY, waits for SIGUSR1, verifies that the
// state is still there, says PASS or `FAIL: why` and exits with 0 or 1. A checkpoint may happen at any
// moment between READY and SIGUSR1.
#ifndef CEDANA_TEST_PROGRAMS_TEST_H_
#define CEDANA_TEST_PROGRAMS_TEST_H_

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char* format, ...) {
  const int saved = errno;
  va_list args;
  va_start(args, format);
  fputs("FAIL: ", stdout);
  vfprintf(stdout, format, args);
  va_end(args);
  if (saved != 0) printf(" (errno: %s)", strerror(saved));
  putchar('\n');
  fflush(stdout);
  _exit(1);
}

// True or the program fails, naming the condition.
#define CHECK(condition)                                         \
  do {                                                           \
    if (!(condition)) fail("line %d: %s", __LINE__, #condition); \
  } while (0)

// Blocks SIGUSR1 in every thread and child made later, so that an early signal waits for test_wait.
static inline void test_begin(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
  setvbuf(stdout, NULL, _IOLBF, 0);
}

static inline void test_ready(void) { puts("READY"); }

static inline void test_wait(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  while (sigwaitinfo(&set, NULL) < 0) CHECK(errno == EINTR);
}

static inline void test_checkpoint(void) {
  test_ready();
  test_wait();
}

__attribute__((noreturn)) static inline void test_pass(void) {
  puts("PASS");
  fflush(stdout);
  _exit(0);
}

#endif  // CEDANA_TEST_PROGRAMS_TEST_H_
