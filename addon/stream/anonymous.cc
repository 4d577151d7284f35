#include "stream/anonymous.h"

#include <dirent.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>

namespace cedana {

namespace {

std::string ProcPath(pid_t pid, const char* name) {
  return "/proc/" + std::to_string(pid) + "/" + name;
}

// All processes below and with `root`.
std::vector<pid_t> Tree(pid_t root) {
  std::vector<pid_t> pids = {root};
  for (size_t i = 0; i < pids.size(); i++) {
    const std::string tasks = ProcPath(pids[i], "task");
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(tasks.c_str()), ::closedir);
    while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
      if (entry->d_name[0] == '.') continue;
      std::ifstream children(tasks + "/" + entry->d_name + "/children");
      std::copy(std::istream_iterator<pid_t>(children), {}, std::back_inserter(pids));
    }
  }
  return pids;
}

// Its PID in its own PID namespace.
uint64_t InnerPid(pid_t pid) {
  std::ifstream status(ProcPath(pid, "status"));
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("NSpid:")) {
      std::istringstream numbers(line.substr(6));
      uint64_t last = 0;
      while (numbers >> last) continue;
      return last;
    }
  }
  return 0;
}

// A line of /proc/PID/maps: start-end perms offset device inode [name]
bool IsPrivateAnonymous(const char* permissions, uint64_t inode, const std::string& name) {
  return permissions[3] == 'p' && inode == 0 &&
         (name.empty() || name == "[heap]" || name == "[stack]" || name.starts_with("[anon:"));
}

}  // namespace

AnonymousMemory AnonymousMemory::Of(pid_t root_pid, uint64_t inner_pid) {
  AnonymousMemory memory;
  pid_t pid = 0;
  for (const pid_t candidate : Tree(root_pid)) {
    if (InnerPid(candidate) != inner_pid) continue;
    if (pid != 0) return memory;
    pid = candidate;
  }
  if (pid == 0) return memory;
  std::ifstream maps(ProcPath(pid, "maps"));
  std::string line;
  while (std::getline(maps, line)) {
    Range range{};
    char permissions[5] = {};
    uint64_t inode = 0;
    int name_at = 0;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %*x %*x:%*x %" SCNu64 " %n",
                    &range.start, &range.end, permissions, &inode, &name_at) != 4) {
      return {};
    }
    if (!IsPrivateAnonymous(permissions, inode, line.substr(static_cast<size_t>(name_at))))
      continue;
    if (!memory.ranges_.empty() && memory.ranges_.back().end == range.start) {
      memory.ranges_.back().end = range.end;
    } else {
      memory.ranges_.push_back(range);
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
