#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "shim/options.h"
#include "shim/process.h"

namespace cedana::shim {

// The standard streams of a job: the ends that the job gets, until it has them, and the shim's.
struct Streams {
  // The job's 0, 1, 2 (one description where they are the same file). Closed once it has started.
  UniqueFd job[3];
  UniqueFd null;

  // The shim's; those that the mode has.
  UniqueFd stdin_write;
  UniqueFd stdin_peek;  // read end too: for tee(2), never read from
  UniqueFd stdout_read;
  UniqueFd stderr_read;
  UniqueFd master;
  UniqueFd slave;  // held while the root lives: with no slave open at all the master is at its end
  UniqueFd log;    // the copy (pipe, tty)
  UniqueFd words;  // what a launcher says that has no streams of the job's

  // Lines of `state` that tell CRIU's keys for them.
  std::string facts;

  // Makes the pseudo-terminal of this master the job's. False, and it is closed, when it is none.
  // One without a size gets that of the options or the usual one.
  [[nodiscard]] bool TakeTerminal(UniqueFd terminal, const Options& options);
  // What a launcher that has failed said last, as far as nobody else hears of it.
  [[nodiscard]] std::string LastWords() const;

  // Everything made is taken back: a log that did not exist before, as long as it is empty.
  void Undo() const;
  std::string created_log;
  const Ids* log_ids = nullptr;
};

// On failure nothing is left behind. A terminal that a launcher makes is still missing afterwards.
bool OpenStreams(const Options& options, Streams* streams, Failure* failure);

// What the job gets as 0, 1, 2; what CRIU gets in the slots of protocol.h.
std::vector<std::pair<int, int>> JobDescriptors(const Streams& streams);
std::vector<std::pair<int, int>> CriuDescriptors(Stdio stdio, const Streams& streams);

}  // namespace cedana::shim
