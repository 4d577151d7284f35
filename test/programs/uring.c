// An io_uring instance: CRIU cannot dump it, so the product must refuse and leave the program running.
#include <linux/io_uring.h>
#include <sys/syscall.h>

#include "test.h"

int main(void) {
  test_begin();
  struct io_uring_params params = {0};
  CHECK(syscall(SYS_io_uring_setup, 8, &params) >= 0);
  test_checkpoint();
  test_pass();
}
