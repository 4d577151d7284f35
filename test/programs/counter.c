// counter [MS]: a number every MS milliseconds (50) on standard output, `!N` for every tenth on standard
// error, and `got LINE` for every line of standard input. After `quit` or SIGTERM it ends with 0, after
// `exit N` with N; at the end of the input it says `end of input` and goes on.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
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
    const long long end = until.tv_sec * 1000000000LL + until.tv_nsec + interval * 1000000LL;
    for (;;) {
      clock_gettime(CLOCK_MONOTONIC, &now);
      const long long left = end - (now.tv_sec * 1000000000LL + now.tv_nsec);
      if (ended || left <= 0) break;
      const struct timespec rest = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
      if (ppoll(&input, input.fd < 0 ? 0 : 1, &rest, NULL) <= 0) continue;
      char byte;
      const ssize_t n = read(0, &byte, 1);
      if (n == 0) {
        struct stat info;
        // /dev/null is at its end from the start and not worth a word.
        if (fstat(0, &info) == 0 && !S_ISCHR(info.st_mode)) puts("end of input");
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
