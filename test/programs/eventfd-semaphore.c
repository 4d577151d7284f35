// An eventfd in semaphore mode: CRIU 4.2 forgets the mode without a word.
#include <stdint.h>
#include <sys/eventfd.h>

#include "test.h"

int main(void) {
  test_begin();
  const int semaphore = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
  CHECK(semaphore >= 0);
  test_checkpoint();
  uint64_t value;
  for (int i = 0; i < 3; i++) CHECK(read(semaphore, &value, 8) == 8 && value == 1);
  CHECK(read(semaphore, &value, 8) == -1 && errno == EAGAIN);
  test_pass();
}
