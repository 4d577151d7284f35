// An established TCP connection with both ends inside the tree, with unread data both ways.
#include <sys/wait.h>

#include "tcp.h"

int main(void) {
  test_begin();
  struct sockaddr_in address;
  const int listener = Listen(&address);
  const int client = Connect(&address);
  const int served = accept(listener, NULL, NULL);
  const int on = 1;
  CHECK(served >= 0 && setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
  char* sent = malloc(20000);
  for (int i = 0; i < 20000; i++) sent[i] = (char)(i * 13);
  CHECK(write(client, sent, 20000) == 20000 && write(served, "answer", 6) == 6);

  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(client);
    test_wait();
    char* got = malloc(20004);
    for (int done = 0; done < 20004;) {
      const ssize_t n = read(served, got + done, (size_t)(20004 - done));
      CHECK(n > 0);
      done += (int)n;
    }
    CHECK(memcmp(got, sent, 20000) == 0 && memcmp(got + 20000, "tail", 4) == 0);
    CHECK(write(served, "over", 4) == 4);
    _exit(0);
  }
  close(served);
  test_checkpoint();
  char text[11] = {0};
  CHECK(write(client, "tail", 4) == 4 && kill(child, SIGUSR1) == 0);
  for (int done = 0; done < 10;) {
    const ssize_t n = read(client, text + done, (size_t)(10 - done));
    CHECK(n > 0);
    done += (int)n;
  }
  CHECK(strcmp(text, "answerover") == 0);
  int no_delay = 0, status;
  socklen_t length = sizeof no_delay;
  CHECK(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &no_delay, &length) == 0 && no_delay == 1);
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(read(client, text, 1) == 0);
  test_pass();
}
