#include "proc/scan.h"

#include <fcntl.h>

#include <set>

#include "base/async.h"
#include "base/values.h"
#include "proc/mounts.h"
#include "proc/process.h"
#include "proc/procfs.h"
#include "proc/sockets.h"

namespace cedana {

namespace {

struct Snapshot {
  std::vector<ProcessFacts> processes;
  std::vector<SocketFacts> sockets;
  std::vector<MountFacts> mounts;
};

Result<Snapshot> ScanTree(pid_t root) {
  // CONFIG_PROC_CHILDREN, which CRIU needs too; without it every tree would look like a single
  // process.
  if (::access("/proc/thread-self/children", F_OK) != 0)
    return Errno{"/proc/PID/task/TID/children", ENOSYS};
  const UniqueFd root_dir = OpenProcess(root);
  Snapshot snapshot;
  std::vector<pid_t> queue = {root};  // breadth first: parents before children
  std::set<pid_t> seen = {root};      // a process may get another parent meanwhile
  for (size_t next = 0; next < queue.size(); next++) {
    const UniqueFd dir = OpenProcess(queue[next]);
    if (!dir.valid()) continue;
    auto facts = ReadProcess(dir.get());
    if (!facts) continue;
    for (const pid_t child : ReadChildren(dir.get(), facts->threads)) {
      if (seen.insert(child).second) queue.push_back(child);
    }
    snapshot.processes.push_back(std::move(*facts));
  }
  if (snapshot.processes.empty() || snapshot.processes[0].stat.pid != root)
    return Errno{"scanTree", ESRCH};
  snapshot.sockets = ReadSockets(snapshot.processes);
  snapshot.mounts = ReadMounts(root_dir.get());
  return snapshot;
}

struct Brief {
  ProcStat stat;
  std::vector<std::string> args;
  uint32_t uid = 0;
  uint32_t gid = 0;
};

// `dir` is a descriptor of /proc/PID.
std::optional<Brief> ReadBrief(int dir) {
  const auto status = ReadProcFile(dir, "status");
  const auto arguments = ReadProcFile(dir, "cmdline");
  auto stat = ParseStat(ReadProcFile(dir, "stat"));
  if (!stat || !status || !arguments) return std::nullopt;
  // The number parser stops at the blank after the first, the real id.
  return Brief{std::move(*stat), SplitArguments(*arguments),
               Number<uint32_t>(FieldOf(*status, "Uid:")),
               Number<uint32_t>(FieldOf(*status, "Gid:"))};
}

// What a look at one process tells more.
struct Owner {
  Brief brief;
  std::vector<uint32_t> uids;
  std::vector<uint32_t> gids;
  std::vector<uint32_t> groups;
  std::string working_directory;
};

std::optional<Owner> ReadOwner(pid_t pid) {
  const UniqueFd dir = OpenProcess(pid);
  if (!dir.valid()) return std::nullopt;
  const auto status = ReadProcFile(dir.get(), "status").value_or("");
  auto working_directory = ReadProcLink(dir.get(), "cwd").value_or("");
  auto brief = ReadBrief(dir.get());
  if (!brief) return std::nullopt;
  return Owner{std::move(*brief), Numbers<uint32_t>(FieldOf(status, "Uid:")),
               Numbers<uint32_t>(FieldOf(status, "Gid:")),
               Numbers<uint32_t>(FieldOf(status, "Groups:")), std::move(working_directory)};
}

// Of all processes: one small file of each.
Result<std::vector<ProcStat>> ScanStats() {
  std::vector<ProcStat> rows;
  for (const auto& name : ListProcDir(AT_FDCWD, "/proc")) {
    if (Number<pid_t>(name) <= 0) continue;
    if (auto stat = ParseStat(ReadProcFile(AT_FDCWD, "/proc/" + name + "/stat")))
      rows.push_back(std::move(*stat));
  }
  return rows;
}

Result<std::vector<Brief>> ScanProcesses(const std::vector<pid_t>& pids) {
  std::vector<Brief> rows;
  for (const pid_t pid : pids) {
    const UniqueFd dir = OpenProcess(pid);
    if (!dir.valid()) continue;
    if (auto row = ReadBrief(dir.get())) rows.push_back(std::move(*row));
  }
  return rows;
}

// Short names: an object of many members is mostly calls of this.
class ObjectBuilder {
 public:
  explicit ObjectBuilder(Napi::Env env) : env_(env), object_(Napi::Object::New(env)) {}

  ObjectBuilder& Set(const char* name, double value) {
    return Put(name, Napi::Number::New(env_, value));
  }
  ObjectBuilder& Set(const char* name, bool value) {
    return Put(name, Napi::Boolean::New(env_, value));
  }
  ObjectBuilder& Set(const char* name, const char* value) {
    return Put(name, Napi::String::New(env_, value));
  }
  ObjectBuilder& Set(const char* name, const std::string& value) {
    return Put(name, Napi::String::New(env_, value));
  }
  template <typename T>
  ObjectBuilder& Set(const char* name, const std::vector<T>& values) {
    return Put(name, ArrayOf(env_, values, [this](const T& value) -> Napi::Value {
                 if constexpr (std::is_arithmetic_v<T>)
                   return Napi::Number::New(env_, static_cast<double>(value));
                 else
                   return Napi::String::New(env_, value);
               }));
  }
  template <typename T>
  requires std::is_integral_v<T> ObjectBuilder& Set(const char* name, T value) {
    return Set(name, static_cast<double>(value));
  }
  ObjectBuilder& Put(const char* name, const Napi::Value& value) {
    object_.Set(name, value);
    return *this;
  }
  [[nodiscard]] Napi::Object Done() const { return object_; }

 private:
  Napi::Env env_;
  Napi::Object object_;
};

Napi::Object FileToJs(Napi::Env env, const OpenFile& file) {
  return ObjectBuilder(env)
      .Set("fd", file.fd)
      .Set("path", file.path)
      .Set("type", file.type)
      .Set("flags", file.flags)
      .Set("position", file.position)
      .Set("mountId", file.mount_id)
      .Set("inode", std::to_string(file.inode))
      .Set("device", file.device)
      .Set("deviceId", file.device_id)
      .Set("isTty", file.is_tty)
      .Set("isDeleted", file.is_deleted)
      .Set("isLocked", file.is_locked)
      .Set("isSemaphore", file.is_semaphore)
      .Done();
}

Napi::Object ProcessToJs(Napi::Env env, const ProcessFacts& process) {
  ObjectBuilder namespaces(env);
  for (size_t i = 0; i < kNamespaceNames.size(); i++)
    namespaces.Set(kNamespaceNames[i], process.namespaces[i]);
  return ObjectBuilder(env)
      .Set("pid", process.stat.pid)
      .Set("innerPid", process.inner_pid)
      .Set("parentPid", process.stat.parent)
      .Set("processGroup", process.stat.group)
      .Set("session", process.stat.session)
      .Set("startTicks", process.stat.start_ticks)
      .Set("state", std::string(1, process.stat.state))
      .Set("name", process.stat.name)
      .Set("args", process.args)
      .Set("executable", process.executable)
      .Set("workingDirectory", process.working_directory)
      .Set("rootDirectory", process.root_directory)
      .Set("uids", process.uids)
      .Set("gids", process.gids)
      .Set("groups", process.groups)
      .Set("threads", process.threads)
      .Set("terminal", process.stat.terminal)
      .Set("seccomp", process.seccomp)
      .Set("residentBytes", process.resident_bytes)
      .Set("dumpBytes", process.dump_bytes)
      .Set("sharedBytes", process.shared_bytes)
      .Set("tracer", process.tracer)
      .Put("namespaces", namespaces.Done())
      .Set("cgroups", process.cgroups)
      .Put("files",
           ArrayOf(env, process.files, [env](const OpenFile& file) { return FileToJs(env, file); }))
      .Done();
}

Napi::Object SocketToJs(Napi::Env env, const SocketFacts& socket) {
  return ObjectBuilder(env)
      .Set("pid", socket.pid)
      .Set("fd", socket.fd)
      .Set("inode", std::to_string(socket.inode))
      .Set("family", socket.family)
      .Set("kind", socket.kind)
      .Set("state", socket.state)
      .Set("local", socket.local)
      .Set("remote", socket.remote)
      .Set("peerPid", socket.peer_pid)
      .Done();
}

Napi::Object MountToJs(Napi::Env env, const MountFacts& mount) {
  return ObjectBuilder(env)
      .Set("id", mount.id)
      .Set("parentId", mount.parent_id)
      .Set("device", mount.device)
      .Set("root", mount.root)
      .Set("path", mount.path)
      .Set("options", mount.options)
      .Set("filesystem", mount.filesystem)
      .Set("source", mount.source)
      .Done();
}

ObjectBuilder StatBuilder(Napi::Env env, const ProcStat& stat) {
  return ObjectBuilder(env)
      .Set("pid", stat.pid)
      .Set("processGroup", stat.group)
      .Set("session", stat.session)
      .Set("parentPid", stat.parent)
      .Set("startTicks", stat.start_ticks)
      .Set("state", std::string(1, stat.state))
      .Set("name", stat.name);
}

ObjectBuilder BriefBuilder(Napi::Env env, const Brief& brief) {
  return StatBuilder(env, brief.stat)
      .Set("args", brief.args)
      .Set("uid", brief.uid)
      .Set("gid", brief.gid);
}

// Threads of their own: adding up the memory of a large process takes long.
Napi::Value ScanTreeJs(const Napi::CallbackInfo& info) {
  return RunAsync(
      info.Env(), Where::kThread, [pid = Int(info[0])] { return ScanTree(pid); },
      [](Napi::Env env, Snapshot& snapshot) {
        const auto list = [env](const auto& facts, auto to_js) {
          return ArrayOf(env, facts, [env, to_js](const auto& one) { return to_js(env, one); });
        };
        return ObjectBuilder(env)
            .Put("processes", list(snapshot.processes, ProcessToJs))
            .Put("sockets", list(snapshot.sockets, SocketToJs))
            .Put("mounts", list(snapshot.mounts, MountToJs))
            .Done();
      });
}

Napi::Value ScanStatsJs(const Napi::CallbackInfo& info) {
  return RunAsync(
      info.Env(), Where::kThread, ScanStats, [](Napi::Env env, std::vector<ProcStat>& rows) {
        return ArrayOf(env, rows,
                       [env](const ProcStat& row) { return StatBuilder(env, row).Done(); });
      });
}

Napi::Value ScanProcessesJs(const Napi::CallbackInfo& info) {
  return RunAsync(
      info.Env(), Where::kThread,
      [pids = List<pid_t>(info[0], Int)] { return ScanProcesses(pids); },
      [](Napi::Env env, std::vector<Brief>& rows) {
        return ArrayOf(env, rows,
                       [env](const Brief& row) { return BriefBuilder(env, row).Done(); });
      });
}

// A few small files of one process, which is less than to start a thread and to hear of its end.
Napi::Value ScanProcessJs(const Napi::CallbackInfo& info) {
  const auto owner = ReadOwner(Int(info[0]));
  if (!owner) return info.Env().Null();
  return BriefBuilder(info.Env(), owner->brief)
      .Set("uids", owner->uids)
      .Set("gids", owner->gids)
      .Set("groups", owner->groups)
      .Set("workingDirectory", owner->working_directory)
      .Done();
}

}  // namespace

void InitScan(Napi::Env env, Napi::Object exports) {
  exports.Set("scanTree", Napi::Function::New(env, ScanTreeJs));
  exports.Set("scanProcess", Napi::Function::New(env, ScanProcessJs));
  exports.Set("scanStats", Napi::Function::New(env, ScanStatsJs));
  exports.Set("scanProcesses", Napi::Function::New(env, ScanProcessesJs));
}

}  // namespace cedana
