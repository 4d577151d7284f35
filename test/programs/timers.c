// Timers: timerfd, POSIX timer with a value, interval timer. What is left goes on after the restore; what
// was far away has not fired.
#include <stdint.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

#include "test.h"

int main(void) {
  test_begin();
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 2);
  sigaddset(&set, SIGALRM);
  CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);

  const struct itimerspec far = {.it_value.tv_sec = 5000, .it_interval.tv_sec = 7};
  const struct itimerspec quick = {.it_value.tv_nsec = 20000000, .it_interval.tv_nsec = 20000000};
  const int far_fd = timerfd_create(CLOCK_MONOTONIC, 0), quick_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
  CHECK(far_fd >= 0 && quick_fd >= 0);
  CHECK(timerfd_settime(far_fd, 0, &far, NULL) == 0 && timerfd_settime(quick_fd, 0, &quick, NULL) == 0);

  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2, .sigev_value.sival_int = 4711};
  CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &far, NULL) == 0);
  const struct itimerval later = {.it_value.tv_sec = 3000};
  CHECK(setitimer(ITIMER_REAL, &later, NULL) == 0);
  test_checkpoint();

  struct itimerspec left;
  struct itimerval left_real;
  CHECK(timerfd_gettime(far_fd, &left) == 0 && left.it_value.tv_sec > 4000 && left.it_value.tv_sec <= 5000);
  CHECK(left.it_interval.tv_sec == 7);
  CHECK(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec > 4000 && left.it_value.tv_sec <= 5000);
  CHECK(getitimer(ITIMER_REAL, &left_real) == 0 && left_real.it_value.tv_sec > 2000 && left_real.it_value.tv_sec < 3000);

  const struct timespec pause = {.tv_nsec = 60000000};
  nanosleep(&pause, NULL);
  uint64_t ticks = 0;
  CHECK(read(quick_fd, &ticks, 8) == 8 && ticks >= 1);
  CHECK(timer_settime(timer, 0, &quick, NULL) == 0);
  siginfo_t info;
  sigdelset(&set, SIGALRM);
  CHECK(sigwaitinfo(&set, &info) == SIGRTMIN + 2 && info.si_value.sival_int == 4711);
  test_pass();
}
