// Pipes between the members of a tree, with data in flight, a changed size, O_NONBLOCK, and a named pipe.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "test.h"

static char block[40000];

static void ReadAll(int fd, char* into, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = read(fd, into + done, size - done);
    CHECK(n > 0);
    done += (size_t)n;
  }
}

int main(void) {
  test_begin();
  for (size_t i = 0; i < sizeof block; i++) block[i] = (char)(i * 7 + i / 251);

  int to_child[2], from_child[2], full[2];
  CHECK(pipe(to_child) == 0 && pipe(from_child) == 0 && pipe2(full, O_NONBLOCK | O_CLOEXEC) == 0);
  CHECK(fcntl(full[1], F_SETPIPE_SZ, 131072) == 131072);

  // 40,000 bytes wait in `full`; three bytes wait for the child, which reads them only when told so.
  CHECK(write(full[1], block, sizeof block) == (ssize_t)sizeof block);
  CHECK(write(to_child[1], "abc", 3) == 3);
  CHECK(mkfifo("fifo", 0600) == 0);
  const int fifo = open("fifo", O_RDWR);
  CHECK(fifo >= 0 && write(fifo, "in the fifo", 11) == 11);

  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(to_child[1]);
    close(from_child[0]);
    test_wait();
    char got[3];
    ReadAll(to_child[0], got, 3);
    CHECK(memcmp(got, "abc", 3) == 0);
    CHECK(read(to_child[0], got, 3) == 2 && memcmp(got, "de", 2) == 0);
    CHECK(read(to_child[0], got, 1) == 0);  // the other end was closed
    CHECK(write(from_child[1], "done", 4) == 4);
    _exit(0);
  }
  close(to_child[0]);
  close(from_child[1]);
  test_checkpoint();

  char* got = malloc(sizeof block);
  ReadAll(full[0], got, sizeof block);
  CHECK(memcmp(got, block, sizeof block) == 0);
  CHECK(read(full[0], got, 1) == -1 && errno == EAGAIN);
  CHECK(fcntl(full[0], F_GETPIPE_SZ) == 131072);
  CHECK((fcntl(full[0], F_GETFL) & O_NONBLOCK) && (fcntl(full[0], F_GETFD) & FD_CLOEXEC));
  CHECK(!(fcntl(from_child[0], F_GETFL) & O_NONBLOCK));
  ReadAll(fifo, got, 11);
  CHECK(memcmp(got, "in the fifo", 11) == 0);

  CHECK(write(to_child[1], "de", 2) == 2);
  CHECK(kill(child, SIGUSR1) == 0);
  close(to_child[1]);
  ReadAll(from_child[0], got, 4);
  CHECK(memcmp(got, "done", 4) == 0);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  unlink("fifo");
  test_pass();
}
