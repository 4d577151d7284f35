// UDP sockets: bound, connected, IPv4 and IPv6, options.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "test.h"

int main(void) {
  test_begin();
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  const int receiver = socket(AF_INET, SOCK_DGRAM, 0), sender = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(bind(receiver, (struct sockaddr*)&address, length) == 0);
  CHECK(getsockname(receiver, (struct sockaddr*)&address, &length) == 0);
  CHECK(connect(sender, (struct sockaddr*)&address, length) == 0);
  const int on = 1;
  CHECK(setsockopt(sender, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) == 0);
  const int six = socket(AF_INET6, SOCK_DGRAM, 0);
  test_checkpoint();

  char text[8] = {0};
  CHECK(write(sender, "udp", 3) == 3 && read(receiver, text, sizeof text) == 3 && strcmp(text, "udp") == 0);
  struct sockaddr_in now;
  length = sizeof now;
  CHECK(getsockname(receiver, (struct sockaddr*)&now, &length) == 0 && now.sin_port == address.sin_port);
  int broadcast = 0;
  length = sizeof broadcast;
  CHECK(getsockopt(sender, SOL_SOCKET, SO_BROADCAST, &broadcast, &length) == 0 && broadcast == 1);
  if (six >= 0) CHECK(send(six, "", 0, 0) == -1);
  test_pass();
}
