// eventfd: counter and flags.
#include <fcntl.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include "test.h"

int main(void) {
  test_begin();
  const int counter = eventfd(41, EFD_CLOEXEC), empty = eventfd(0, EFD_NONBLOCK);
  const uint64_t one = 1;
  CHECK(counter >= 0 && empty >= 0 && write(counter, &one, 8) == 8);
  test_checkpoint();
  uint64_t value;
  CHECK(read(counter, &value, 8) == 8 && value == 42);
  CHECK(read(empty, &value, 8) == -1 && errno == EAGAIN);
  CHECK(fcntl(counter, F_GETFD) & FD_CLOEXEC);
  test_pass();
}
