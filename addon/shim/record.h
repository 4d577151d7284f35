#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "shim/options.h"
#include "shim/process.h"

namespace cedana::shim {

// The shim's directory: what survives the daemon, and what the daemon finds again.
class Record {
 public:
  static Result<Record> Open(const char* directory);

  Result<Unit> WriteState(const Options& options, pid_t pid, unsigned long long start_ticks,
                          const std::string& facts);
  // `status` as wait(2) gives it; nothing: how it ended is not known.
  void WriteExit(pid_t pid, std::optional<int> status);
  // Appends to shim.log: for what goes wrong when nobody is there to be told.
  void Complain(const std::string& what, int error) const;
  // Takes everything back: the start has failed.
  void RemoveAll() const;
  void RemoveSocket() const;
  // A listening socket at DIR/shim.sock, however long the name of DIR is.
  [[nodiscard]] Result<UniqueFd> Listen() const;

  // The lines of `state`, then those of `exit`.
  [[nodiscard]] std::string Text() const { return state_ + exit_; }
  [[nodiscard]] int code() const { return code_; }
  [[nodiscard]] int signal() const { return signal_; }

 private:
  [[nodiscard]] Result<Unit> WriteDurably(const char* name, const std::string& text) const;

  UniqueFd directory_;
  std::string state_;
  std::string exit_;
  int code_ = -1;
  int signal_ = 0;
};

}  // namespace cedana::shim
