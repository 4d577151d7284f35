// A terminal pair made by the program itself, with a child that has it as its controlling terminal.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "test.h"

int main(void) {
  test_begin();
  // Not the next number that is free: others would have taken that when it is restored. CRIU finds one less than 32 away.
  int before[16];
  for (int i = 0; i < 16; i++) CHECK((before[i] = posix_openpt(O_RDWR | O_NOCTTY)) >= 0);
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  for (int i = 0; i < 16; i++) close(before[i]);
  CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
  char name[64];
  CHECK(ptsname_r(master, name, sizeof name) == 0);
  int up[2];
  CHECK(pipe(up) == 0);

  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(setsid() > 0);
    const int slave = open(name, O_RDWR);
    CHECK(slave >= 0 && ioctl(slave, TIOCSCTTY, 0) == 0);
    const struct winsize size = {.ws_row = 33, .ws_col = 111};
    struct termios mode;
    CHECK(ioctl(slave, TIOCSWINSZ, &size) == 0 && tcgetattr(slave, &mode) == 0);
    mode.c_lflag &= ~(tcflag_t)(ECHO | ICANON);
    CHECK(tcsetattr(slave, TCSANOW, &mode) == 0);
    CHECK(write(up[1], "r", 1) == 1);
    test_wait();
    struct winsize now;
    struct termios mode_now;
    CHECK(ioctl(slave, TIOCGWINSZ, &now) == 0 && now.ws_row == 33 && now.ws_col == 111);
    CHECK(tcgetattr(slave, &mode_now) == 0 && !(mode_now.c_lflag & (ECHO | ICANON)));
    CHECK(tcgetsid(slave) == getpid() && open("/dev/tty", O_RDWR) >= 0);
    char text[4] = {0};
    CHECK(read(slave, text, 3) == 3 && strcmp(text, "in\n") == 0);
    CHECK(write(slave, "out", 3) == 3);
    CHECK(write(up[1], "d", 1) == 1);
    test_wait();
    _exit(0);
  }
  char byte, text[8] = {0};
  int status;
  CHECK(read(up[0], &byte, 1) == 1);
  test_checkpoint();
  CHECK(write(master, "in\n", 3) == 3 && kill(child, SIGUSR1) == 0 && read(up[0], &byte, 1) == 1);
  CHECK(read(master, text, sizeof text) == 3 && strcmp(text, "out") == 0);
  CHECK(kill(child, SIGUSR1) == 0 && waitpid(child, &status, 0) == child && status == 0);
  test_pass();
}
