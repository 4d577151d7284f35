// counter [MS]: a number every MS milliseconds (50) on standard output, `!N` for every tenth on standard
// error, and `got LINE` for every line of standard input. After `quit` or SIGTERM it ends with 0, after
// `exit N` with N; at the end of the input it says `end of input` and goes on.
#include <fcntl.h>
#include <poll.h>
#include <time.h>

#include "test.h"

static volatile sig_atomic_t ended;
static void OnTerm(int signal) {
  (void)signal;
  ended = 1;
}

int main(int argc, char** argv) {
  const int interval = argc > 1 ? atoi(argv[1]) : 50;
  setvbuf(stdout, NULL, _IOLBF, 0);
  setvbuf(stdin, NULL, _IONBF, 0);
  CHECK(signal(SIGTERM, OnTerm) != SIG_ERR);
  struct pollfd input = {.fd = 0, .events = POLLIN};
  char line[256];
  size_t length = 0;
  for (int number = 1; !ended; number++) {
    printf("%d\n", number);
    if (number % 10 == 0) fprintf(stderr, "!%d\n", number);
    struct timespec now, until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)interval % 1000 * 1000000;
    until.tv_sec += interval / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    for (;;) {
      clock_gettime(CLOCK_MONOTONIC, &now);
      const long left = (until.tv_sec - now.tv_sec) * 1000 + (until.tv_nsec - now.tv_nsec) / 1000000;
      if (ended || left <= 0) break;
      if (poll(&input, input.fd < 0 ? 0 : 1, (int)left) <= 0) continue;
      char byte;
      const ssize_t n = read(0, &byte, 1);
      if (n == 0) {
        // /dev/null is at its end from the start and not worth a word.
        if (length > 0 || isatty(0) == 0) puts("end of input");
        input.fd = -1;
      } else if (n == 1 && byte == '\n') {
        line[length] = '\0';
        length = 0;
        if (strcmp(line, "quit") == 0) return 0;
        if (strncmp(line, "exit ", 5) == 0) return atoi(line + 5);
        printf("got %s\n", line);
      } else if (n == 1 && length + 1 < sizeof line) {
        line[length++] = byte;
      }
    }
  }
  return 0;
}
