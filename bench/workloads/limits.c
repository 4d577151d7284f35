// What this machine can do at best with N MiB of memory on their way from one process to another: a line `NAME<tab>MS` for each way.
// usage: limits MIB
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kMiB = 1 << 20, kHuge = 2 << 20, kPage = 4096, kBlock = 4 << 20, kPipes = 8, kSocketBytes = 8 << 20, kThreads = 2 };

static size_t size;
static char *from, *to;
static pid_t peer;
static int pair[2];

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void require(int is_good, const char *what) {
  if (is_good) return;
  perror(what);
  exit(1);
}

static char *map(int advice) {
  char *raw = mmap(NULL, size + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(raw != MAP_FAILED, "mmap");
  char *start = (char *)(((uintptr_t)raw + kHuge - 1) / kHuge * kHuge);
  madvise(start, size, advice);
  return start;
}

static void *touch(void *start) {
  for (size_t at = 0; at < size; at += kPage) ((char *)start)[at] = 1;
  return NULL;
}

static void *populate(void *start) {
  for (size_t at = 0; at < size; at += kBlock) madvise((char *)start + at, kBlock, MADV_POPULATE_WRITE);
  return NULL;
}

// Every other MiB from the given one on: two threads together move all.
static void *copy(void *first) {
  for (size_t at = (size_t)first * kMiB; at < size; at += kThreads * kMiB) memcpy(to + at, from + at, kMiB);
  return NULL;
}

static void *read_peer(void *first) {
  for (size_t at = (size_t)first * kMiB; at < size; at += kThreads * kMiB) {
    const struct iovec local = {to + at, kMiB}, remote = {from + at, kMiB};
    require(process_vm_readv(peer, &local, 1, &remote, 1, 0) == kMiB, "process_vm_readv");
  }
  return NULL;
}

static void *receive(void *unused) {
  for (size_t at = 0; at < size;) {
    const ssize_t n = recv(pair[1], to + at, size - at < kBlock ? size - at : kBlock, MSG_WAITALL);
    require(n > 0, "recv");
    at += (size_t)n;
  }
  return unused;
}

// As CRIU's parasite and CRIU do it: pages go into pipes by reference, and from there to the descriptor.
static void gift(int descriptor) {
  int pipes[kPipes][2];
  for (int i = 0; i < kPipes; i++) require(pipe(pipes[i]) == 0 && fcntl(pipes[i][0], F_SETPIPE_SZ, kMiB) >= kMiB, "pipe");
  for (size_t at = 0; at < size;) {
    size_t held[kPipes] = {0};
    for (int i = 0; i < kPipes; i++) {
      while (held[i] < kMiB && at < size) {
        const struct iovec part = {from + at, kMiB - held[i]};
        const ssize_t n = vmsplice(pipes[i][1], &part, 1, SPLICE_F_GIFT | SPLICE_F_NONBLOCK);
        if (n <= 0) break;
        held[i] += (size_t)n;
        at += (size_t)n;
      }
    }
    for (int i = 0; i < kPipes; i++) {
      while (held[i] > 0) {
        const ssize_t n = splice(pipes[i][0], NULL, descriptor, NULL, held[i], SPLICE_F_MOVE);
        require(n > 0, "splice");
        held[i] -= (size_t)n;
      }
    }
  }
  for (int i = 0; i < kPipes; i++) close(pipes[i][0]), close(pipes[i][1]);
}

static void say(const char *name, double since) { printf("%s\t%.2f\n", name, now() - since); }

static void time_alone(const char *name, void *(*work)(void *), void *argument) {
  const double start = now();
  work(argument);
  say(name, start);
}

static void time_together(const char *name, void *(*work)(void *)) {
  pthread_t threads[kThreads];
  const double start = now();
  for (size_t i = 0; i < kThreads; i++) require(pthread_create(&threads[i], NULL, work, (void *)i) == 0, "pthread_create");
  for (size_t i = 0; i < kThreads; i++) pthread_join(threads[i], NULL);
  say(name, start);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  size = strtoull(argv[1], NULL, 10) * kMiB / kBlock * kBlock;
  from = map(MADV_NOHUGEPAGE);
  touch(from);
  peer = fork();
  if (peer == 0) {
    touch(from);  // pages of its own
    raise(SIGSTOP);
    _exit(0);
  }
  waitpid(peer, NULL, WUNTRACED);

  to = map(MADV_NOHUGEPAGE);
  time_alone("first touch, small pages", touch, to);
  munmap(to, size);
  to = map(MADV_HUGEPAGE);
  time_alone("first touch, huge pages", populate, to);
  time_together("copy, two threads", copy);
  time_together("process_vm_readv, two threads", read_peer);
  const int null = open("/dev/null", O_WRONLY);
  double start = now();
  gift(null);
  say("by reference, to /dev/null", start);
  require(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
  for (int i = 0; i < 2; i++) {
    setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &(int){kSocketBytes}, sizeof(int));
    setsockopt(pair[i], SOL_SOCKET, SO_RCVBUFFORCE, &(int){kSocketBytes}, sizeof(int));
  }
  pthread_t receiver;
  start = now();
  pthread_create(&receiver, NULL, receive, NULL);
  gift(pair[0]);
  pthread_join(receiver, NULL);
  say("by reference, through a socket, into memory", start);
  kill(peer, SIGKILL);
  return 0;
}
