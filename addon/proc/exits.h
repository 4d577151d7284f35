#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace cedana {

// A status as wait(2) gives it; nothing when the kernel does not tell.
using ExitStatus = std::optional<int>;

// One epoll thread for all waits of the process; it lives as long as the process.
class ExitWatcher {
 public:
  using Done = std::function<void(Result<ExitStatus>)>;
  enum class Whose {
    kOthers,  // reaped by its parent
    kOurs,    // reaped here
  };

  static ExitWatcher& Instance();

  // `done` is called once, on any thread.
  Result<uint64_t> Add(int pidfd, pid_t pid, Whose whose, Done done);

  void Cancel(uint64_t id);

 private:
  using Clock = std::chrono::steady_clock;

  struct Wait {
    UniqueFd fd;
    pid_t pid;
    Whose whose;
    Done done;
    std::optional<Clock::time_point> deadline;  // set once it is a zombie
    ExitStatus zombie;
  };

  std::optional<Wait> Take(uint64_t id);
  void Run(int epoll);
  bool AwaitReap(int epoll, uint64_t id);
  void Finish(uint64_t id, bool reaped);
  int Timeout();
  std::vector<uint64_t> Expired();

  std::mutex mutex_;
  UniqueFd epoll_;
  uint64_t last_id_ = 0;
  std::map<uint64_t, Wait> waits_;
};

}  // namespace cedana
