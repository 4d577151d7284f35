// epoll: the watched set with its data, edge triggering and one-shot, an epoll inside an epoll.
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "test.h"

int main(void) {
  test_begin();
  int pipes[2];
  CHECK(pipe(pipes) == 0);
  const int event = eventfd(0, 0), outer = epoll_create1(EPOLL_CLOEXEC), inner = epoll_create1(0);
  struct epoll_event watch = {.events = EPOLLIN | EPOLLET, .data.u64 = 0x1122334455667788};
  CHECK(epoll_ctl(outer, EPOLL_CTL_ADD, pipes[0], &watch) == 0);
  watch = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.fd = event};
  CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, event, &watch) == 0);
  watch = (struct epoll_event){.events = EPOLLIN, .data.fd = inner};
  CHECK(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &watch) == 0);
  test_checkpoint();

  struct epoll_event got[4];
  CHECK(epoll_wait(outer, got, 4, 0) == 0);
  CHECK(write(pipes[1], "x", 1) == 1 && epoll_wait(outer, got, 4, 2000) == 1);
  CHECK(got[0].data.u64 == 0x1122334455667788 && epoll_wait(outer, got, 4, 0) == 0);
  const uint64_t one = 1;
  CHECK(write(event, &one, 8) == 8 && epoll_wait(outer, got, 4, 2000) == 1 && got[0].data.fd == inner);
  CHECK(epoll_wait(inner, got, 4, 0) == 1 && got[0].data.fd == event);
  CHECK(write(event, &one, 8) == 8 && epoll_wait(inner, got, 4, 0) == 0);  // one shot only
  test_pass();
}
