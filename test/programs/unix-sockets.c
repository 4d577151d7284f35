// Unix sockets: a stream pair with queued data, a listening socket, datagrams and sequenced packets in
// flight, an abstract name, and socket options.
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "test.h"

static socklen_t Name(struct sockaddr_un* address, const char* name) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  snprintf(address->sun_path, sizeof address->sun_path, "%s", name);
  const socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
  if (name[0] == '@') address->sun_path[0] = '\0';
  return length;
}

int main(void) {
  test_begin();
  struct sockaddr_un address;
  char text[64], abstract[32];

  int stream[2], datagram[2], packet[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, datagram) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, packet) == 0);
  CHECK(write(stream[0], "queued", 6) == 6 && write(stream[1], "back", 4) == 4);
  CHECK(write(datagram[0], "d1", 2) == 2 && write(datagram[0], "d22", 3) == 3);
  CHECK(write(packet[0], "p1", 2) == 2 && write(packet[0], "p22", 3) == 3);

  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  socklen_t length = Name(&address, "listen.sock");
  CHECK(bind(listener, (struct sockaddr*)&address, length) == 0 && listen(listener, 5) == 0);
  const int client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(connect(client, (struct sockaddr*)&address, length) == 0);
  const int served = accept(listener, NULL, NULL);
  CHECK(served >= 0 && write(client, "request", 7) == 7);

  const int receiver = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0);
  snprintf(abstract, sizeof abstract, "@cedana-test-%d", getpid());
  length = Name(&address, abstract);
  CHECK(bind(receiver, (struct sockaddr*)&address, length) == 0);
  CHECK(connect(sender, (struct sockaddr*)&address, length) == 0 && write(sender, "named", 5) == 5);
  const int buffer = 32768;
  CHECK(setsockopt(receiver, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) == 0);
  CHECK(shutdown(served, SHUT_WR) == 0);
  test_checkpoint();

  CHECK(read(stream[1], text, sizeof text) == 6 && memcmp(text, "queued", 6) == 0);
  CHECK(read(stream[0], text, sizeof text) == 4 && memcmp(text, "back", 4) == 0);
  CHECK(read(datagram[1], text, sizeof text) == 2 && read(datagram[1], text, sizeof text) == 3);
  CHECK(read(packet[1], text, sizeof text) == 2 && read(packet[1], text, sizeof text) == 3);
  CHECK(read(packet[1], text, sizeof text) == -1 && errno == EAGAIN);
  CHECK(read(served, text, sizeof text) == 7 && memcmp(text, "request", 7) == 0);
  CHECK(read(client, text, sizeof text) == 0);  // shut down by the other side
  CHECK(read(receiver, text, sizeof text) == 5 && write(sender, "again", 5) == 5 && read(receiver, text, sizeof text) == 5);
  int now;
  socklen_t size = sizeof now;
  CHECK(getsockopt(receiver, SOL_SOCKET, SO_RCVBUF, &now, &size) == 0 && now == 2 * buffer);

  const int late = socket(AF_UNIX, SOCK_STREAM, 0);
  length = Name(&address, "listen.sock");
  CHECK(connect(late, (struct sockaddr*)&address, length) == 0 && accept(listener, NULL, NULL) >= 0);
  CHECK(write(stream[0], "more", 4) == 4 && read(stream[1], text, sizeof text) == 4);
  unlink("listen.sock");
  test_pass();
}
