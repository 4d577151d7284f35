// TCP on the loopback, for the programs that need it.
#ifndef CEDANA_TEST_PROGRAMS_TCP_H_
#define CEDANA_TEST_PROGRAMS_TCP_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "test.h"

// A listening socket on a free port of the loopback.
static inline int Listen(struct sockaddr_in* address) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
  memset(address, 0, sizeof *address);
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof *address;
  CHECK(bind(fd, (struct sockaddr*)address, length) == 0 && listen(fd, 16) == 0);
  CHECK(getsockname(fd, (struct sockaddr*)address, &length) == 0);
  return fd;
}

static inline int Connect(const struct sockaddr_in* address) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(fd >= 0 && connect(fd, (const struct sockaddr*)address, sizeof *address) == 0);
  return fd;
}

#endif  // CEDANA_TEST_PROGRAMS_TCP_H_
