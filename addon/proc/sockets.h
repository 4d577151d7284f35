#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "proc/process.h"

namespace cedana {

struct SocketFacts {
  pid_t pid = 0;
  int fd = 0;
  uint64_t inode = 0;
  const char* family = "other";
  const char* kind = "other";
  std::string state;
  std::string local;
  std::string remote;
  // Of a unix stream whose other end nobody here holds: a process that does. 0: none known.
  pid_t peer_pid = 0;
};

// The sockets among the open files of these processes, described by the tables of their network
// namespaces.
std::vector<SocketFacts> ReadSockets(const std::vector<ProcessFacts>& processes);

}  // namespace cedana
