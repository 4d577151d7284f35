#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "proc/procfs.h"

namespace cedana {

// Everything /proc tells of one process; the members are those of native.d.ts.
struct OpenFile {
  int fd = 0;
  std::string path;
  const char* type = "anonymous";
  uint32_t flags = 0;
  int64_t position = 0;
  int mount_id = 0;
  uint64_t inode = 0;
  uint32_t device = 0;
  uint32_t device_id = 0;
  bool is_tty = false;
  bool is_deleted = false;
  bool is_locked = false;
  bool is_semaphore = false;
};

// In the order of kNamespaceNames.
inline constexpr std::array<const char*, 7> kNamespaceNames = {"cgroup", "ipc",  "mnt", "net",
                                                               "pid",    "user", "uts"};
inline constexpr size_t kNetNamespace = 3;

struct ProcessFacts {
  ProcStat stat;
  std::vector<std::string> args;
  std::string executable;
  std::string working_directory;
  std::string root_directory;
  std::vector<uint32_t> uids;
  std::vector<uint32_t> gids;
  std::vector<uint32_t> groups;
  std::vector<pid_t> threads;
  // In the innermost PID namespace that it is in.
  pid_t inner_pid = 0;
  int seccomp = 0;
  pid_t tracer = 0;
  uint64_t resident_bytes = 0;
  uint64_t dump_bytes = 0;
  uint64_t shared_bytes = 0;
  std::array<std::string, kNamespaceNames.size()> namespaces;
  std::vector<std::string> cgroups;
  std::vector<OpenFile> files;
};

// A descriptor of /proc/PID, not valid when there is no such process.
UniqueFd OpenProcess(pid_t pid);
// Nothing when the process is gone at the end of the reading. `dir` is a descriptor of /proc/PID.
std::optional<ProcessFacts> ReadProcess(int dir);
// Children of all threads. `threads` as in ProcessFacts.
std::vector<pid_t> ReadChildren(int dir, const std::vector<pid_t>& threads);

}  // namespace cedana
