// A TCP server with one outside client: every line comes back with a number counted here. Its port stands in
// the file `port`. After SIGUSR1 it says how many lines it has seen and ends.
#include <pthread.h>

#include "tcp.h"

static volatile int lines;

static void* Serve(void* argument) {
  FILE* stream = fdopen((int)(long)argument, "r+");
  char text[256];
  CHECK(stream != NULL);
  setvbuf(stream, NULL, _IONBF, 0);
  while (fgets(text, sizeof text, stream) != NULL) {
    lines++;
    dprintf(fileno(stream), "%d %s", lines, text);
  }
  return NULL;
}

int main(void) {
  test_begin();
  struct sockaddr_in address;
  const int listener = Listen(&address);
  FILE* port = fopen("port.tmp", "w");
  CHECK(port != NULL && fprintf(port, "%d\n", ntohs(address.sin_port)) > 0 && fclose(port) == 0);
  CHECK(rename("port.tmp", "port") == 0);
  const int served = accept(listener, NULL, NULL);
  pthread_t thread;
  CHECK(served >= 0 && pthread_create(&thread, NULL, Serve, (void*)(long)served) == 0);
  test_checkpoint();
  printf("lines %d\n", lines);
  test_pass();
}
