#pragma once

#include <string>
#include <vector>

namespace cedana {

struct MountFacts {
  int id = 0;
  int parent_id = 0;
  std::string device;
  std::string root;
  std::string path;
  std::string options;
  std::string filesystem;
  std::string source;
};

// The mount table of a process. `dir` is a descriptor of /proc/PID.
std::vector<MountFacts> ReadMounts(int dir);

}  // namespace cedana
