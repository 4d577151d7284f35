#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "shim/options.h"
#include "shim/process.h"
#include "shim/record.h"
#include "shim/streams.h"

namespace cedana::shim {

struct Start {
  const Options& options;
  Streams* streams;
  Record* record;
  const std::string& oom_score_adj;                // what a child gets
  const std::vector<std::pair<int, int>>& passed;  // what CRIU gets unchanged
  Failure* failure;
};

struct Root {
  pid_t pid = -1;
  unsigned long long start_ticks = 0;
  Foreign foreign;  // with --foreign; else it is our child
};

// Starts the program, or has CRIU or a launcher make the tree. Answers the root, whose `state` is
// written; or PID -1 and why, and then whatever was made is still to be killed.
Root StartJob(const Start& start);

}  // namespace cedana::shim
