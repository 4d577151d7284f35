#include "stream/mappings.h"

#include <dirent.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>

namespace cedana {

namespace {

std::string ProcPath(pid_t pid, const char* name) {
  return "/proc/" + std::to_string(pid) + "/" + name;
}

TreeMember MemberOf(pid_t pid) {
  TreeMember member{pid, 0, 0};
  std::ifstream status(ProcPath(pid, "status"));
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("TracerPid:")) std::istringstream(line.substr(10)) >> member.tracer;
    if (line.starts_with("NSpid:")) {
      std::istringstream numbers(line.substr(6));
      while (numbers >> member.inner_pid) continue;
      break;
    }
  }
  return member;
}

}  // namespace

bool Mapping::IsPrivateAnonymous() const {
  return permissions[3] == 'p' && inode == 0 &&
         (name.empty() || name == "[heap]" || name == "[stack]" || name.starts_with("[anon:"));
}

std::vector<Mapping> MappingsOf(pid_t pid) {
  std::vector<Mapping> mappings;
  std::ifstream maps(ProcPath(pid, "maps"));
  std::string line;
  while (std::getline(maps, line)) {
    Mapping mapping{};
    char permissions[5] = {};
    int name_at = 0;
    // start-end perms offset device inode [name]
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %*x %*x:%*x %" SCNu64 " %n",
                    &mapping.start, &mapping.end, permissions, &mapping.inode, &name_at) != 4) {
      return {};
    }
    mapping.permissions = permissions;
    mapping.name = line.substr(static_cast<size_t>(name_at));
    mappings.push_back(std::move(mapping));
  }
  return mappings;
}

std::vector<TreeMember> TreeOf(pid_t root) {
  std::vector<TreeMember> members = {MemberOf(root)};
  std::map<uint64_t, int> bearers = {{members[0].inner_pid, 1}};
  for (size_t i = 0; i < members.size(); i++) {
    const std::string tasks = ProcPath(members[i].pid, "task");
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(tasks.c_str()), ::closedir);
    while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
      if (entry->d_name[0] == '.') continue;
      std::ifstream children(tasks + "/" + entry->d_name + "/children");
      for (pid_t child; children >> child;) {
        members.push_back(MemberOf(child));
        bearers[members.back().inner_pid]++;
      }
    }
  }
  std::erase_if(members, [&](const TreeMember& member) {
    return member.inner_pid == 0 || bearers[member.inner_pid] > 1;
  });
  return members;
}

}  // namespace cedana
