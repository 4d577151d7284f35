#include "proc/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/async.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/handle.h"
#include "base/values.h"
#include "proc/pidfd.h"

namespace cedana {

namespace {

struct SpawnRequest {
  std::vector<std::string> argv;         // the path first
  std::vector<std::string> environment;  // NAME=value
  std::vector<int> descriptors;          // what become 0, 1, 2 … of the child; -1: none
  bool new_session = false;
};

struct Actions {
  posix_spawn_file_actions_t value;
  Actions() { ::posix_spawn_file_actions_init(&value); }
  ~Actions() { ::posix_spawn_file_actions_destroy(&value); }
  Actions(const Actions&) = delete;
  Actions& operator=(const Actions&) = delete;
};

struct Attributes {
  posix_spawnattr_t value;
  // Signals as a program expects them, whatever Node has made of ours.
  explicit Attributes(bool new_session) {
    ::posix_spawnattr_init(&value);
    sigset_t set;
    std::memset(&set, 0xff, sizeof set);  // sigfillset leaves out those that glibc uses itself
    ::posix_spawnattr_setsigdefault(&value, &set);
    sigemptyset(&set);
    ::posix_spawnattr_setsigmask(&value, &set);
    const int flags =
        POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | (new_session ? POSIX_SPAWN_SETSID : 0);
    ::posix_spawnattr_setflags(&value, static_cast<short>(flags));
  }
  ~Attributes() { ::posix_spawnattr_destroy(&value); }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;
};

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (auto& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// The child shares our memory until it is the new program: what fork costs a process of the size of
// Node is several milliseconds of its only JavaScript thread.
Result<pid_t> Spawn(SpawnRequest& request) {
  Actions actions;
  // Out of the way first: a source must not be overwritten before its turn.
  const int beyond = static_cast<int>(request.descriptors.size());
  std::vector<UniqueFd> sources;
  for (int target = 0; target < beyond; target++) {
    const int given = request.descriptors[static_cast<size_t>(target)];
    if (given < 0) {
      if (target <= STDERR_FILENO) {
        ::posix_spawn_file_actions_addopen(&actions.value, target, "/dev/null", O_RDWR, 0);
      } else {
        ::posix_spawn_file_actions_addclose(&actions.value, target);
      }
      continue;
    }
    UniqueFd& source = sources.emplace_back(::fcntl(given, F_DUPFD_CLOEXEC, beyond));
    if (!source.valid()) return Errno::Last("fcntl");
    ::posix_spawn_file_actions_adddup2(&actions.value, source.get(), target);
  }
  const Attributes attributes(request.new_session);
  const auto argv = Pointers(request.argv);
  const auto environment = Pointers(request.environment);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, argv[0], &actions.value, &attributes.value, argv.data(),
                                  environment.data());
  if (error != 0) return Errno{"spawn " + request.argv[0], error};
  return pid;
}

Result<std::shared_ptr<Pidfd>> Watched(pid_t pid, ExitWatcher::Done done) {
  auto child = Pidfd::Open(pid);  // ours and not reaped, so the number is not another's
  if (!child.ok()) return child;
  const auto reaping = child.value()->ReapWhenEnded(std::move(done));
  if (!reaping.ok()) return reaping.error();
  return child;
}

Napi::Value SpawnJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  SpawnRequest request{Texts(info[0]), Texts(info[1]), List<int>(info[2], Int),
                       info[3].As<Napi::Boolean>().Value()};
  const auto pid = Spawn(request);
  if (!pid.ok()) return Throw(env, pid.error());
  auto to_js = [](Napi::Env env, ExitStatus& status) { return ExitToJs(env, status); };
  auto ended = std::make_shared<Completion<ExitStatus, decltype(to_js)>>(env, to_js, false);
  auto child = Watched(pid.value(),
                       [ended](Result<ExitStatus> status) { ended->Finish(std::move(status)); });
  if (!child.ok()) {
    ::kill(pid.value(), SIGKILL);
    ::waitpid(pid.value(), nullptr, 0);
    return Throw(env, child.error());
  }
  auto out = Napi::Object::New(env);
  out.Set("child", MakeHandle(env, std::move(child.value())));
  out.Set("ended", ended->promise());
  return out;
}

Napi::Value PipeJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int pair[2];
  if (::pipe2(pair, O_CLOEXEC) != 0) return Throw(env, Errno::Last("pipe2"));
  auto out = Napi::Object::New(env);
  out.Set("readFd", Napi::Number::New(env, pair[0]));
  out.Set("writeFd", Napi::Number::New(env, pair[1]));
  return out;
}

}  // namespace

void InitSpawn(Napi::Env env, Napi::Object exports) {
  exports.Set("spawn", Napi::Function::New(env, SpawnJs));
  exports.Set("pipe", Napi::Function::New(env, PipeJs));
}

}  // namespace cedana
