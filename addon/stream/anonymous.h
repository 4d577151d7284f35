#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace cedana {

// The private anonymous memory of one process of a frozen tree: a page of it that is absent from
// the image comes back as zeros, while one of a private file mapping would come back from the file.
class AnonymousMemory {
 public:
  // CRIU names processes by the PID they see themselves. Unless exactly one process of the tree
  // below `root_pid` (as we see it) bears it, nothing is known and nothing counts as anonymous.
  static AnonymousMemory Of(pid_t root_pid, uint64_t inner_pid);

  AnonymousMemory() = default;
  [[nodiscard]] bool Contains(uint64_t address, uint64_t size) const;

 private:
  struct Range {
    uint64_t start;
    uint64_t end;
  };
  std::vector<Range> ranges_;  // ascending, not adjacent
};

}  // namespace cedana
