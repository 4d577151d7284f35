#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace cedana {

// A line of /proc/PID/maps.
struct Mapping {
  uint64_t start;
  uint64_t end;
  std::string permissions;  // rwxp
  uint64_t inode;
  std::string name;

  [[nodiscard]] bool IsPrivateAnonymous() const;
};

// Ascending. Empty when it cannot be read, all of it.
std::vector<Mapping> MappingsOf(pid_t pid);

// A process of a tree by its PID as we see it, and as it sees itself.
struct TreeMember {
  pid_t pid;
  uint64_t inner_pid;
  pid_t tracer;
};

// All processes below and with `root`, without those that share the inner PID with another: CRIU
// names processes by that.
std::vector<TreeMember> TreeOf(pid_t root);

}  // namespace cedana
