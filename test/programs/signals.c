// Signals: pending ones with their values, handlers with flags and masks, an alternate stack, a signalfd.
#include <sys/signalfd.h>

#include "test.h"

static volatile sig_atomic_t handled, on_stack;
static char* stack;
#define STACK 65536

static void OnSignal(int signal, siginfo_t* info, void* context) {
  (void)context;
  char here;
  handled = signal == SIGUSR2 ? info->si_value.sival_int : -1;
  on_stack = &here > stack && &here < stack + STACK;
}

int main(void) {
  test_begin();
  stack = malloc(STACK);
  const stack_t alternate = {.ss_sp = stack, .ss_size = STACK};
  struct sigaction action = {.sa_sigaction = OnSignal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGTERM);
  CHECK(sigaltstack(&alternate, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
  CHECK(signal(SIGHUP, SIG_IGN) != SIG_ERR);

  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  sigaddset(&blocked, SIGRTMIN + 1);
  sigaddset(&blocked, SIGCONT);
  CHECK(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
  sigset_t by_fd;
  sigemptyset(&by_fd);
  sigaddset(&by_fd, SIGRTMIN + 1);
  const int fd = signalfd(-1, &by_fd, SFD_NONBLOCK);
  CHECK(fd >= 0);

  // Three realtime signals and one ordinary signal are pending at the checkpoint.
  for (int i = 1; i <= 3; i++) CHECK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 100 + i}) == 0);
  CHECK(sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 77}) == 0);
  test_checkpoint();

  CHECK(handled == 0);
  for (int i = 1; i <= 3; i++) {
    struct signalfd_siginfo info;
    CHECK(read(fd, &info, sizeof info) == sizeof info);
    CHECK((int)info.ssi_signo == SIGRTMIN + 1 && info.ssi_int == 100 + i && (pid_t)info.ssi_pid == getpid());
  }
  struct signalfd_siginfo none;
  CHECK(read(fd, &none, sizeof none) == -1 && errno == EAGAIN);
  sigset_t open_up;
  sigemptyset(&open_up);
  sigaddset(&open_up, SIGUSR2);
  CHECK(sigprocmask(SIG_UNBLOCK, &open_up, NULL) == 0);
  CHECK(handled == 77 && on_stack);

  struct sigaction now;
  CHECK(sigaction(SIGUSR2, NULL, &now) == 0 && sigismember(&now.sa_mask, SIGTERM) == 1);
  CHECK((now.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_RESTART)) == (SA_SIGINFO | SA_ONSTACK | SA_RESTART));
  CHECK(sigaction(SIGHUP, NULL, &now) == 0 && now.sa_handler == SIG_IGN);
  sigset_t mask;
  CHECK(sigprocmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, SIGCONT) == 1);
  test_pass();
}
