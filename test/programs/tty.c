// The job's own terminal: standard streams, controlling terminal, foreground group, size and mode.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "test.h"

static volatile sig_atomic_t resized;
static void OnResize(int signal) {
  (void)signal;
  resized = 1;
}

int main(void) {
  test_begin();
  CHECK(isatty(0) && isatty(1) && isatty(2));
  CHECK(tcgetsid(0) == getsid(0) && tcgetpgrp(0) == getpgrp());
  struct termios mode;
  CHECK(tcgetattr(0, &mode) == 0);
  mode.c_lflag &= ~(tcflag_t)ECHO;
  CHECK(tcsetattr(0, TCSANOW, &mode) == 0);
  CHECK(signal(SIGWINCH, OnResize) != SIG_ERR);
  test_ready();

  // Answers lines from the terminal: `size`, `resized`, `check`; ends at `quit`.
  char line[64];
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (strcmp(line, "size\n") == 0) {
      struct winsize size;
      CHECK(ioctl(0, TIOCGWINSZ, &size) == 0);
      printf("size %d %d\n", size.ws_row, size.ws_col);
    } else if (strcmp(line, "resized\n") == 0) {
      printf("resized %d\n", (int)resized);
    } else if (strcmp(line, "check\n") == 0) {
      struct termios now;
      CHECK(isatty(0) && isatty(1) && isatty(2));
      CHECK(tcgetsid(0) == getsid(0) && tcgetpgrp(0) == getpgrp());
      CHECK(tcgetattr(0, &now) == 0 && !(now.c_lflag & ECHO));
      const int own = open("/dev/tty", O_RDWR);
      CHECK(own >= 0 && close(own) == 0);
      puts("checked");
    } else if (strcmp(line, "quit\n") == 0) {
      test_pass();
    }
  }
  fail("end of input");
}
