#include "proc/notify.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>

#include "base/async.h"
#include "base/fd.h"
#include "base/values.h"

namespace cedana {

namespace {

Result<Unit> SendDatagram(const std::string& path, const std::string& message) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return Errno{"sdNotify", ENAMETOOLONG};
  std::copy(path.begin(), path.end(), address.sun_path);
  // An abstract name begins with a zero byte and has no end mark: its length is part of it.
  if (path.starts_with('@')) address.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Errno::Last("socket");
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  // We are on the main thread: a service manager that does not read must not stop the daemon.
  constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
  if (::sendto(fd.get(), message.data(), message.size(), kFlags, to, length) < 0)
    return Errno::Last("sdNotify");
  return Unit{};
}

Napi::Value NothingToJs(Napi::Env env, Unit&) { return env.Undefined(); }

Napi::Value SdNotify(const Napi::CallbackInfo& info) {
  const auto sent = SendDatagram(Text(info[0]), Text(info[1]));
  if (!sent.ok()) return Throw(info.Env(), sent.error());
  return info.Env().Undefined();
}

Napi::Value SyncFilesystem(const Napi::CallbackInfo& info) {
  const auto work = [fd = Int(info[0])]() -> Result<Unit> {
    if (::syncfs(fd) != 0) return Errno::Last("syncfs");
    return Unit{};
  };
  return RunAsync(info.Env(), Where::kThread, work, NothingToJs);
}

Napi::Value RenameNoReplace(const Napi::CallbackInfo& info) {
  const auto work = [from_dir = Int(info[0]), from = Text(info[1]), to_dir = Int(info[2]),
                     to = Text(info[3])]() -> Result<Unit> {
    if (::renameat2(from_dir, from.c_str(), to_dir, to.c_str(), RENAME_NOREPLACE) != 0) {
      return Errno::Last("rename " + from + " to " + to);
    }
    return Unit{};
  };
  return RunAsync(info.Env(), Where::kPool, work, NothingToJs);
}

}  // namespace

void InitNotify(Napi::Env env, Napi::Object exports) {
  exports.Set("sdNotify", Napi::Function::New(env, SdNotify));
  exports.Set("syncFilesystem", Napi::Function::New(env, SyncFilesystem));
  exports.Set("renameNoReplace", Napi::Function::New(env, RenameNoReplace));
}

}  // namespace cedana
