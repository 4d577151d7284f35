#include "proc/exits.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/thread.h"
#include "proc/procfs.h"

namespace cedana {

namespace {

// Linux 6.13 (the ioctl) and 6.15 (the exit status); older headers have neither.
struct PidfdInfo {
  uint64_t mask;
  uint64_t cgroup;
  uint32_t ids[11];  // pid tgid ppid ruid rgid euid egid suid sgid fsuid fsgid
  int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr uint64_t kInfoExit = 1U << 3;
constexpr unsigned long kGetInfo = _IOWR(0xFF, 11, PidfdInfo);

// How long a zombie may keep its status to itself: only after its parent has reaped it does the
// kernel tell the true one (a zombie group leader may carry another than its group).
constexpr auto kReapPatience = std::chrono::milliseconds(100);

ExitStatus StatusAfterReap(int fd) {
  PidfdInfo info{};
  info.mask = kInfoExit;
  if (::ioctl(fd, kGetInfo, &info) != 0 || (info.mask & kInfoExit) == 0) return std::nullopt;
  return info.exit_code;
}

ExitStatus StatusOfZombie(int fd, pid_t pid) {
  const std::string dir = "/proc/" + std::to_string(pid);
  // Without ptrace access the kernel shows 0 instead of the status; the link tells which it is.
  char unused[1];
  if (::readlink((dir + "/exe").c_str(), unused, sizeof unused) < 0 && errno == EACCES)
    return std::nullopt;
  const auto stat = ParseStat(ReadProcFile(AT_FDCWD, dir + "/stat"));
  if (!stat || stat->state != 'Z') return std::nullopt;
  // Not reaped up to now, so the PID was not anybody else's.
  pollfd poll{fd, POLLIN, 0};
  if (::poll(&poll, 1, 0) != 1 || (poll.revents & POLLHUP) != 0) return std::nullopt;
  return stat->exit_code;
}

}  // namespace

ExitWatcher& ExitWatcher::Instance() {
  // Never destroyed: its thread may run until the very end.
  static auto* watcher = new ExitWatcher;
  return *watcher;
}

Result<uint64_t> ExitWatcher::Add(int pidfd, pid_t pid, Whose whose, Done done) {
  UniqueFd own(::fcntl(pidfd, F_DUPFD_CLOEXEC, 0));
  if (!own.valid()) return Errno::Last("fcntl");
  const std::lock_guard lock(mutex_);
  if (!epoll_.valid()) {
    UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.valid()) return Errno::Last("epoll_create1");
    const auto started = StartThread([this, fd = epoll.get()] { Run(fd); });
    if (!started.ok()) return started.error();
    epoll_ = std::move(epoll);
  }
  const uint64_t id = ++last_id_;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = id;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, own.get(), &event) != 0)
    return Errno::Last("epoll_ctl");
  waits_.emplace(id, Wait{std::move(own), pid, whose, std::move(done), {}, {}});
  return id;
}

void ExitWatcher::Cancel(uint64_t id) {
  if (auto wait = Take(id)) wait->done(Errno{"pidfdWait", ECANCELED});
}

// Closing the wait's descriptor does not take it off the epoll set while the handle's own is
// open.
std::optional<ExitWatcher::Wait> ExitWatcher::Take(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = waits_.find(id);
  if (found == waits_.end()) return std::nullopt;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.fd.get(), nullptr);
  std::optional<Wait> wait(std::move(found->second));
  waits_.erase(found);
  return wait;
}

void ExitWatcher::Run(int epoll) {
  for (;;) {
    epoll_event events[32];
    const int count = ::epoll_wait(epoll, events, 32, Timeout());
    for (int i = 0; i < count; i++) {
      const bool reaped = (events[i].events & EPOLLHUP) != 0;
      if (reaped || !AwaitReap(epoll, events[i].data.u64)) Finish(events[i].data.u64, reaped);
    }
    for (const uint64_t id : Expired()) Finish(id, false);
  }
}

// From now on only EPOLLHUP wakes us (it cannot be masked), or the deadline. False: no sense in
// waiting.
bool ExitWatcher::AwaitReap(int epoll, uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = waits_.find(id);
  if (found == waits_.end()) return true;
  Wait& wait = found->second;
  if (wait.whose == Whose::kOurs) {
    int status = 0;
    if (::waitpid(wait.pid, &status, WNOHANG) == wait.pid) wait.zombie = status;
    return false;
  }
  wait.zombie = StatusOfZombie(wait.fd.get(), wait.pid);
  wait.deadline = Clock::now() + kReapPatience;
  epoll_event event{};
  event.data.u64 = id;
  return ::epoll_ctl(epoll, EPOLL_CTL_MOD, wait.fd.get(), &event) == 0;
}

void ExitWatcher::Finish(uint64_t id, bool reaped) {
  auto wait = Take(id);
  if (!wait) return;
  const ExitStatus status = reaped ? StatusAfterReap(wait->fd.get()) : std::nullopt;
  wait->done(status ? status : wait->zombie);
}

int ExitWatcher::Timeout() {
  const std::lock_guard lock(mutex_);
  std::optional<Clock::time_point> first;
  for (const auto& [id, wait] : waits_) {
    if (wait.deadline && (!first || *wait.deadline < *first)) first = wait.deadline;
  }
  if (!first) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*first - Clock::now()).count();
  return static_cast<int>(std::max<int64_t>(0, left));
}

std::vector<uint64_t> ExitWatcher::Expired() {
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  std::vector<uint64_t> out;
  for (const auto& [id, wait] : waits_) {
    if (wait.deadline && *wait.deadline <= now) out.push_back(id);
  }
  return out;
}

}  // namespace cedana
