#include "stream/anonymous.h"

#include <algorithm>
#include <iterator>

#include "stream/mappings.h"

namespace cedana {

AnonymousMemory AnonymousMemory::Of(pid_t root_pid, uint64_t inner_pid) {
  AnonymousMemory memory;
  const auto members = TreeOf(root_pid);
  const auto found = std::ranges::find(members, inner_pid, &TreeMember::inner_pid);
  if (found == members.end()) return memory;
  for (const Mapping& mapping : MappingsOf(found->pid)) {
    if (!mapping.IsPrivateAnonymous()) continue;
    if (!memory.ranges_.empty() && memory.ranges_.back().end == mapping.start) {
      memory.ranges_.back().end = mapping.end;
    } else {
      memory.ranges_.push_back({mapping.start, mapping.end});
    }
  }
  return memory;
}

bool AnonymousMemory::Contains(uint64_t address, uint64_t size) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                      [](uint64_t a, const Range& r) { return a < r.start; });
  return after != ranges_.begin() && address + size <= std::prev(after)->end;
}

}  // namespace cedana
