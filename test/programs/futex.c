// Futexes: a thread that waits, and a robust mutex in shared memory whose holder dies after the restore.
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "test.h"

struct Shared {
  pthread_mutex_t robust;
  pthread_mutex_t plain;
  int value;
};
static struct Shared* shared;

static void* Wait(void* argument) {
  (void)argument;
  CHECK(pthread_mutex_lock(&shared->plain) == 0);
  shared->value++;
  CHECK(pthread_mutex_unlock(&shared->plain) == 0);
  return NULL;
}

int main(void) {
  test_begin();
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  CHECK(pthread_mutex_init(&shared->plain, &attributes) == 0);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  CHECK(pthread_mutex_init(&shared->robust, &attributes) == 0);

  int held[2];
  CHECK(pipe(held) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(pthread_mutex_lock(&shared->robust) == 0 && write(held[1], "h", 1) == 1);
    test_wait();
    _exit(0);  // holding it
  }
  char byte;
  CHECK(read(held[0], &byte, 1) == 1 && pthread_mutex_lock(&shared->plain) == 0);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, Wait, NULL) == 0);
  test_checkpoint();

  CHECK(shared->value == 0 && pthread_mutex_unlock(&shared->plain) == 0);
  for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  CHECK(shared->value == 3);
  CHECK(pthread_mutex_trylock(&shared->robust) == EBUSY);
  int status;
  CHECK(kill(child, SIGUSR1) == 0 && waitpid(child, &status, 0) == child && status == 0);
  CHECK(pthread_mutex_lock(&shared->robust) == EOWNERDEAD);
  test_pass();
}
