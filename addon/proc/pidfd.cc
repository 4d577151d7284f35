#include "proc/pidfd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/handle.h"
#include "base/thread.h"
#include "base/values.h"
#include "proc/procfs.h"

namespace cedana {

namespace {

using Clock = std::chrono::steady_clock;

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

// A status as wait(2) gives it; nothing when the kernel does not tell.
using ExitStatus = std::optional<int>;

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

// One epoll thread for all waits of the process; it lives as long as the process.
class ExitWatcher {
 public:
  using Done = std::function<void(Result<ExitStatus>)>;

  static ExitWatcher& Instance() {
    // Never destroyed: its thread may run until the very end.
    static auto* watcher = new ExitWatcher;
    return *watcher;
  }

  // `done` is called once, on any thread.
  Result<uint64_t> Add(int pidfd, pid_t pid, Done done) {
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
    waits_.emplace(id, Wait{std::move(own), pid, std::move(done), {}, {}});
    return id;
  }

  void Cancel(uint64_t id) {
    if (auto wait = Take(id)) wait->done(Errno{"pidfdWait", ECANCELED});
  }

 private:
  struct Wait {
    UniqueFd fd;
    pid_t pid;
    Done done;
    std::optional<Clock::time_point> deadline;  // set once it is a zombie
    ExitStatus zombie;
  };

  // Closing the wait's descriptor does not take it off the epoll set while the handle's own is
  // open.
  std::optional<Wait> Take(uint64_t id) {
    const std::lock_guard lock(mutex_);
    const auto found = waits_.find(id);
    if (found == waits_.end()) return std::nullopt;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.fd.get(), nullptr);
    std::optional<Wait> wait(std::move(found->second));
    waits_.erase(found);
    return wait;
  }

  void Run(int epoll) {
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
  bool AwaitReap(int epoll, uint64_t id) {
    const std::lock_guard lock(mutex_);
    const auto found = waits_.find(id);
    if (found == waits_.end()) return true;
    Wait& wait = found->second;
    wait.zombie = StatusOfZombie(wait.fd.get(), wait.pid);
    wait.deadline = Clock::now() + kReapPatience;
    epoll_event event{};
    event.data.u64 = id;
    return ::epoll_ctl(epoll, EPOLL_CTL_MOD, wait.fd.get(), &event) == 0;
  }

  void Finish(uint64_t id, bool reaped) {
    auto wait = Take(id);
    if (!wait) return;
    const ExitStatus status = reaped ? StatusAfterReap(wait->fd.get()) : std::nullopt;
    wait->done(status ? status : wait->zombie);
  }

  int Timeout() {
    const std::lock_guard lock(mutex_);
    std::optional<Clock::time_point> first;
    for (const auto& [id, wait] : waits_) {
      if (wait.deadline && (!first || *wait.deadline < *first)) first = wait.deadline;
    }
    if (!first) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*first - Clock::now()).count();
    return static_cast<int>(std::max<int64_t>(0, left));
  }

  std::vector<uint64_t> Expired() {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    std::vector<uint64_t> out;
    for (const auto& [id, wait] : waits_) {
      if (wait.deadline && *wait.deadline <= now) out.push_back(id);
    }
    return out;
  }

  std::mutex mutex_;
  UniqueFd epoll_;
  uint64_t last_id_ = 0;
  std::map<uint64_t, Wait> waits_;
};

class Pidfd {
 public:
  Pidfd(UniqueFd fd, pid_t pid) : fd_(std::move(fd)), pid_(pid) {}
  ~Pidfd() { Close(); }
  Pidfd(const Pidfd&) = delete;
  Pidfd& operator=(const Pidfd&) = delete;

  static Result<std::shared_ptr<Pidfd>> Open(pid_t pid) {
    UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!fd.valid()) return Errno::Last("pidfd_open");
    return std::make_shared<Pidfd>(std::move(fd), pid);
  }

  Result<bool> Send(int signal) const {
    // A zombie still takes signals; for the caller it is gone.
    pollfd poll{fd_.get(), POLLIN, 0};
    if (fd_.valid() && ::poll(&poll, 1, 0) == 1) return false;
    if (::syscall(SYS_pidfd_send_signal, fd_.get(), signal, nullptr, 0) == 0) return true;
    if (errno == ESRCH) return false;
    return Errno::Last("pidfd_send_signal");
  }

  Result<Unit> Wait(ExitWatcher::Done done) {
    auto id = ExitWatcher::Instance().Add(fd_.get(), pid_, std::move(done));
    if (!id.ok()) return id.error();
    waits_.push_back(id.value());
    return Unit{};
  }

  void Close() {
    for (const uint64_t id : waits_) ExitWatcher::Instance().Cancel(id);
    waits_.clear();
    fd_.Reset();
  }

 private:
  UniqueFd fd_;
  pid_t pid_;
  std::vector<uint64_t> waits_;  // ended ones too: cancelling those does nothing
};

Napi::Value ExitToJs(Napi::Env env, const ExitStatus& status) {
  const auto number = [env](bool known, int value) -> Napi::Value {
    return known ? Napi::Number::New(env, value) : env.Null();
  };
  auto out = Napi::Object::New(env);
  out.Set("code", number(status && WIFEXITED(*status), status ? WEXITSTATUS(*status) : 0));
  out.Set("signal", number(status && WIFSIGNALED(*status), status ? WTERMSIG(*status) : 0));
  return out;
}

Napi::Value PidfdOpen(const Napi::CallbackInfo& info) {
  auto opened = Pidfd::Open(Int(info[0]));
  if (!opened.ok()) return Throw(info.Env(), opened.error());
  return MakeHandle(info.Env(), std::move(opened.value()));
}

Napi::Value PidfdSend(const Napi::CallbackInfo& info) {
  const auto sent = HandleOf<Pidfd>(info[0])->Send(Int(info[1]));
  if (!sent.ok()) return Throw(info.Env(), sent.error());
  return Napi::Boolean::New(info.Env(), sent.value());
}

Napi::Value PidfdWait(const Napi::CallbackInfo& info) {
  const auto handle = HandleOf<Pidfd>(info[0]);
  // The wait keeps the handle: the collector must not cancel a promise that somebody awaits.
  auto to_js = [handle](Napi::Env env, ExitStatus& status) { return ExitToJs(env, status); };
  auto completion = std::make_shared<Completion<ExitStatus, decltype(to_js)>>(info.Env(), to_js);
  const auto added = handle->Wait(
      [completion](Result<ExitStatus> status) { completion->Finish(std::move(status)); });
  if (!added.ok()) completion->Finish(added.error());
  return completion->promise();
}

void PidfdClose(const Napi::CallbackInfo& info) { HandleOf<Pidfd>(info[0])->Close(); }

}  // namespace

void InitPidfd(Napi::Env env, Napi::Object exports) {
  exports.Set("pidfdOpen", Napi::Function::New(env, PidfdOpen));
  exports.Set("pidfdSend", Napi::Function::New(env, PidfdSend));
  exports.Set("pidfdWait", Napi::Function::New(env, PidfdWait));
  exports.Set("pidfdClose", Napi::Function::New(env, PidfdClose));
}

}  // namespace cedana
