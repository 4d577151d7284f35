// A file descriptor that is in flight over a unix socket when the checkpoint is made.
#include <fcntl.h>
#include <sys/socket.h>

#include "test.h"

int main(void) {
  test_begin();
  int pair[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  const int file = open("passed", O_RDWR | O_CREAT, 0600);
  CHECK(file >= 0 && write(file, "passed on", 9) == 9 && lseek(file, 7, SEEK_SET) == 7);

  char byte = 'x';
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec data = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &file, sizeof file);
  CHECK(sendmsg(pair[0], &message, 0) == 1);
  close(file);
  test_checkpoint();

  memset(control, 0, sizeof control);
  message.msg_controllen = sizeof control;
  CHECK(recvmsg(pair[1], &message, 0) == 1 && byte == 'x');
  header = CMSG_FIRSTHDR(&message);
  CHECK(header != NULL && header->cmsg_type == SCM_RIGHTS);
  int received;
  memcpy(&received, CMSG_DATA(header), sizeof received);
  char text[3] = {0};
  CHECK(read(received, text, 2) == 2 && strcmp(text, "on") == 0);
  test_pass();
}
