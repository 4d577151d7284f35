#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proc/exits.h"

namespace cedana {

class Pidfd {
 public:
  Pidfd(UniqueFd fd, pid_t pid) : fd_(std::move(fd)), pid_(pid) {}
  ~Pidfd() { Close(); }
  Pidfd(const Pidfd&) = delete;
  Pidfd& operator=(const Pidfd&) = delete;

  static Result<std::shared_ptr<Pidfd>> Open(pid_t pid);

  // False when it is gone.
  [[nodiscard]] Result<bool> Send(int signal) const;

  Result<Unit> Wait(ExitWatcher::Done done);

  // For a child of ours that nobody else waits for. Closing does not end this.
  Result<Unit> ReapWhenEnded(ExitWatcher::Done done) const;

  // Ends all waits.
  void Close();

 private:
  UniqueFd fd_;
  pid_t pid_;
  std::vector<uint64_t> waits_;  // ended ones too: cancelling those does nothing
};

// NativeExit.
Napi::Value ExitToJs(Napi::Env env, const ExitStatus& status);

void InitPidfd(Napi::Env env, Napi::Object exports);

}  // namespace cedana
