// File locks (CRIU option file_locks): flock and record locks stay with their holders.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "test.h"

// 0: got it; 1: somebody else holds it. Asked in a child, which is another holder.
static int Taken(int records) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const int fd = open(records ? "records" : "whole", O_RDWR);
    struct flock part = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
    _exit(records ? fcntl(fd, F_SETLK, &part) != 0 : flock(fd, LOCK_EX | LOCK_NB) != 0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
  return WEXITSTATUS(status);
}

int main(void) {
  test_begin();
  const int whole = open("whole", O_RDWR | O_CREAT, 0600), records = open("records", O_RDWR | O_CREAT, 0600);
  struct flock part = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
  CHECK(whole >= 0 && records >= 0 && flock(whole, LOCK_EX) == 0 && fcntl(records, F_SETLK, &part) == 0);
  CHECK(Taken(0) && Taken(1));
  test_checkpoint();
  CHECK(Taken(0) && Taken(1));
  CHECK(flock(whole, LOCK_UN) == 0);
  part.l_type = F_UNLCK;
  CHECK(fcntl(records, F_SETLK, &part) == 0 && !Taken(0) && !Taken(1));
  test_pass();
}
