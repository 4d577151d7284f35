#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "shim/options.h"
#include "shim/streams.h"

namespace cedana::shim {

// The socket over which a launcher hands on the terminal that it made for the job: one connection,
// one message with the master as SCM_RIGHTS.
class Console {
 public:
  Console(const Options& options, Streams* streams) : options_(options), streams_(streams) {}
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;
  ~Console();

  // Nothing, when the options name no socket.
  [[nodiscard]] Result<Unit> Listen();
  // How the launcher gets at it: the path of the options, or where that is too long for the name of
  // a socket one through our own descriptors.
  [[nodiscard]] const std::string& path() const { return path_; }
  // Whose turn it is to become readable; -1 when nothing is expected, or nothing more.
  [[nodiscard]] int fd() const { return listener_.valid() ? listener_.get() : connection_.get(); }
  // To be called when it has: in the end the streams have a terminal, or were given none.
  void Receive();

 private:
  const Options& options_;
  Streams* const streams_;
  std::string path_;
  UniqueFd directory_;
  UniqueFd listener_;
  UniqueFd connection_;
  bool bound_ = false;
};

}  // namespace cedana::shim
