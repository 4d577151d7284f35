// Threads: ids, names, thread-local storage, signal masks and a barrier that goes on working.
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "test.h"

#define THREADS 8

static __thread int local_value;
static pthread_barrier_t start, end;
static volatile int go;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_key_t key;

static void* Body(void* argument) {
  const int index = (int)(long)argument;
  local_value = 1000 + index;
  CHECK(pthread_setspecific(key, argument) == 0);
  char name[16];
  snprintf(name, sizeof name, "worker-%d", index);
  CHECK(prctl(PR_SET_NAME, name) == 0);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  sigaddset(&mask, SIGRTMIN + index);
  CHECK(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0);
  const long id = syscall(SYS_gettid);
  pthread_barrier_wait(&start);

  pthread_mutex_lock(&mutex);
  while (!go) pthread_cond_wait(&condition, &mutex);
  pthread_mutex_unlock(&mutex);

  CHECK(local_value == 1000 + index);
  CHECK(pthread_getspecific(key) == argument);
  CHECK(syscall(SYS_gettid) == id);
  char now[16];
  CHECK(prctl(PR_GET_NAME, now) == 0 && strcmp(now, name) == 0);
  CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
  for (int i = 0; i < THREADS; i++) CHECK(sigismember(&mask, SIGRTMIN + i) == (i == index));
  pthread_barrier_wait(&end);
  return (void*)(long)(index * 3);
}

int main(void) {
  test_begin();
  pthread_t threads[THREADS];
  CHECK(pthread_key_create(&key, NULL) == 0);
  pthread_barrier_init(&start, NULL, THREADS + 1);
  pthread_barrier_init(&end, NULL, THREADS + 1);
  for (long i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, Body, (void*)i) == 0);
  pthread_barrier_wait(&start);
  test_checkpoint();
  pthread_mutex_lock(&mutex);
  go = 1;
  pthread_cond_broadcast(&condition);
  pthread_mutex_unlock(&mutex);
  pthread_barrier_wait(&end);
  for (long i = 0; i < THREADS; i++) {
    void* result;
    CHECK(pthread_join(threads[i], &result) == 0 && (long)result == i * 3);
  }
  // New threads are possible as well.
  go = 1;
  pthread_barrier_init(&start, NULL, 1);
  pthread_barrier_init(&end, NULL, 1);
  CHECK(pthread_create(&threads[0], NULL, Body, (void*)0L) == 0 && pthread_join(threads[0], NULL) == 0);
  test_pass();
}
