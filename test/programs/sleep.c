// System calls that are interrupted by a checkpoint: a sleep with a rest, poll, a blocking read, and pause.
#include <poll.h>
#include <pthread.h>
#include <time.h>

#include "test.h"

static int wake[2], polled[2];

static void* Sleep(void* argument) {
  (void)argument;
  struct timespec rest = {.tv_nsec = 700000000}, begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  while (nanosleep(&rest, &rest) != 0) CHECK(errno == EINTR);
  clock_gettime(CLOCK_MONOTONIC, &end);
  const double slept = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
  if (slept < 0.69) fail("slept %f s", slept);
  return NULL;
}
static void* Read(void* argument) {
  (void)argument;
  char byte;
  ssize_t n;
  while ((n = read(wake[0], &byte, 1)) < 0) CHECK(errno == EINTR);
  CHECK(n == 1 && byte == 'w');
  return NULL;
}
static void* Poll(void* argument) {
  (void)argument;
  struct pollfd fd = {.fd = polled[0], .events = POLLIN};
  int n;
  while ((n = poll(&fd, 1, -1)) < 0) CHECK(errno == EINTR);
  CHECK(n == 1 && (fd.revents & POLLIN));
  return NULL;
}

int main(void) {
  test_begin();
  pthread_t threads[3];
  CHECK(pipe(wake) == 0 && pipe(polled) == 0);
  CHECK(pthread_create(&threads[0], NULL, Sleep, NULL) == 0);
  CHECK(pthread_create(&threads[1], NULL, Read, NULL) == 0);
  CHECK(pthread_create(&threads[2], NULL, Poll, NULL) == 0);
  test_checkpoint();
  CHECK(write(wake[1], "w", 1) == 1 && write(polled[1], "p", 1) == 1);
  for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  test_pass();
}
