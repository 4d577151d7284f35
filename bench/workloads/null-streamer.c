// Takes what `criu dump --stream` writes and throws it away without a copy: what is left of a dump when storing costs nothing.
// usage: null-streamer IMAGES-DIR; says READY, serves one dump, ends.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { kMaxPipes = 256, kPipeBytes = 1 << 20 };

static int take_pipe(int socket) {
  char byte;
  char control[CMSG_SPACE(sizeof(int))];
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (recvmsg(socket, &message, 0) <= 0 || CMSG_FIRSTHDR(&message) == NULL) return -1;
  int fd;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  fcntl(fd, F_SETPIPE_SZ, kPipeBytes);
  return fd;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s/streamer-capture.sock", argv[1]);
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1) < 0) {
    perror(address.sun_path);
    return 1;
  }
  printf("READY\n");
  fflush(stdout);
  const int null = open("/dev/null", O_WRONLY);
  struct pollfd polls[1 + kMaxPipes] = {{accept(listener, NULL, NULL), POLLIN, 0}};
  int count = 1;
  while (count > 1 || polls[0].fd >= 0) {
    if (poll(polls, (nfds_t)count, -1) < 0) return 1;
    for (int i = count - 1; i > 0; i--) {
      if (polls[i].revents == 0) continue;
      const ssize_t n = splice(polls[i].fd, NULL, null, NULL, kPipeBytes, SPLICE_F_MOVE);
      if (n > 0 || (n < 0 && errno == EINTR)) continue;
      close(polls[i].fd);
      polls[i] = polls[--count];
    }
    if (polls[0].revents == 0) continue;
    uint32_t size;  // of a request: the name of the image, of no interest
    if (recv(polls[0].fd, &size, sizeof size, MSG_WAITALL) != sizeof size) {
      close(polls[0].fd);
      polls[0].fd = -1;
      continue;
    }
    char name[4096];
    if (size > sizeof name || recv(polls[0].fd, name, size, MSG_WAITALL) != (ssize_t)size) return 1;
    const int pipe = take_pipe(polls[0].fd);
    if (pipe < 0 || count > kMaxPipes) return 1;
    polls[count++] = (struct pollfd){pipe, POLLIN, 0};
  }
  return 0;
}
