#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "shim/options.h"

namespace cedana::shim {

// Why a start failed: the step of protocol.h, and the call.
struct Failure {
  const char* step = "setup";
  Errno error;
};

// A process to be started. `fds`: (ours, its number in the child); everything else is closed there.
struct ChildSpec {
  char** argv = nullptr;
  std::vector<std::pair<int, int>> fds;
  bool new_session = false;
  int terminal = -1;  // becomes its controlling terminal
  const Ids* ids = nullptr;
  const char* working_directory = "/";
};

// A child that has been forked and waits for Go before it executes its program.
class Child {
 public:
  static Result<Child> Fork(const ChildSpec& spec, const std::string& oom_score_adj);
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Lets it execute. A failure of any of its steps is answered here, and the child is reaped.
  [[nodiscard]] bool Go(Failure* failure);

 private:
  pid_t pid_ = -1;
  UniqueFd go_;
  UniqueFd trouble_;
};

// A process of ours that must not be lost: nothing signals it to death, orphans below it become its
// children, the kernel kills others first (where it lets us). Answers the oom_score_adj of before.
std::string ProtectSelf(bool new_session);

// A process that is another's child: watched, not reaped.
class Foreign {
 public:
  // False when there is none, or another by now.
  [[nodiscard]] bool Hold(pid_t pid, unsigned long long start_ticks);
  // Readable once it has ended; -1 when it had already when it was to be held.
  [[nodiscard]] int fd() const { return fd_.get(); }
  // How it ended, as wait(2) gives it; nothing when the kernel does not tell. To be asked once it
  // has, and holds up for a moment: what is true is known when its parent has reaped it.
  [[nodiscard]] std::optional<int> Status() const;

 private:
  pid_t pid_ = -1;
  UniqueFd fd_;
};

// Field 22 of /proc/PID/stat, 0 when there is no such process. A zombie still has it.
unsigned long long StartTicks(pid_t pid);
std::string BootId();
// Our direct children, zombies among them.
std::vector<pid_t> Children();
// Kills all that is below our children, but not them: they see it fail, and may undo what else they
// did.
void KillBelowChildren();
// Kills and reaps until nothing is left below us.
void KillDescendants();

// The content of a small file such as those in /proc, without the newline at its end.
std::string ReadText(const char* path);

}  // namespace cedana::shim
