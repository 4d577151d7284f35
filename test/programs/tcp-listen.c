// Listening TCP sockets, IPv4 and IPv6: the ports and options are kept and connections come in.
#include "tcp.h"

int main(void) {
  test_begin();
  struct sockaddr_in address;
  const int listener = Listen(&address);
  const int other = socket(AF_INET6, SOCK_STREAM, 0);
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  socklen_t length = sizeof six;
  const int has_six = other >= 0 && bind(other, (struct sockaddr*)&six, sizeof six) == 0;
  if (has_six) CHECK(listen(other, 4) == 0 && getsockname(other, (struct sockaddr*)&six, &length) == 0);
  test_checkpoint();

  const int client = Connect(&address);
  const int served = accept(listener, NULL, NULL);
  char text[8] = {0};
  CHECK(served >= 0 && write(client, "hello", 5) == 5 && read(served, text, 5) == 5 && strcmp(text, "hello") == 0);
  int on = 0;
  length = sizeof on;
  CHECK(getsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, &length) == 0 && on == 1);
  if (has_six) {
    const int second = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(connect(second, (struct sockaddr*)&six, sizeof six) == 0 && accept(other, NULL, NULL) >= 0);
  }
  test_pass();
}
