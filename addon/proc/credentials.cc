#include "proc/credentials.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <string>
#include <vector>

#include "base/async.h"
#include "base/fd.h"
#include "base/values.h"

namespace cedana {

namespace {

struct PeerCredentials {
  ucred ids{};
  std::vector<gid_t> groups;
};

Result<PeerCredentials> ReadPeer(int socket) {
  PeerCredentials peer;
  socklen_t size = sizeof peer.ids;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer.ids, &size) != 0)
    return Errno::Last("SO_PEERCRED");
  size = 0;
  // Answers ERANGE with the size needed, unless there are no groups at all.
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, nullptr, &size) != 0) {
    if (errno != ERANGE) return Errno::Last("SO_PEERGROUPS");
    peer.groups.resize(size / sizeof(gid_t));
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &size) != 0) {
      return Errno::Last("SO_PEERGROUPS");
    }
  }
  return peer;
}

struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

// From here on the calling thread, and only it, meets the file system as that user: raw system
// calls, since those of glibc change every thread. Leaving file system id 0 also takes away the
// capabilities that pass over file permissions. There is no way back: the thread has to end.
Result<Unit> Become(const Identity& identity) {
  if (identity.uid == ::geteuid()) return Unit{};
  if (::syscall(SYS_setgroups, identity.groups.size(), identity.groups.data()) != 0)
    return Errno::Last("setgroups");
  ::syscall(SYS_setfsgid, identity.gid);
  ::syscall(SYS_setfsuid, identity.uid);
  // They report nothing but the id before; an id that does not exist only asks.
  constexpr unsigned kAsk = ~0U;
  if (static_cast<gid_t>(::syscall(SYS_setfsgid, kAsk)) != identity.gid)
    return Errno{"setfsgid", EPERM};
  if (static_cast<uid_t>(::syscall(SYS_setfsuid, kAsk)) != identity.uid)
    return Errno{"setfsuid", EPERM};
  return Unit{};
}

// Never through /proc/self/fd and the like: they lead to the daemon's own files past every
// permission.
Result<UniqueFd> Open(int dir, const std::string& path, int flags, mode_t mode,
                      uint64_t resolve = 0) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.mode = (flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) != 0 ? mode : 0;
  how.resolve = RESOLVE_NO_MAGICLINKS | resolve;
  UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, dir, path.c_str(), &how, sizeof how)));
  if (!fd.valid()) return Errno::Last("open " + path);
  return fd;
}

Result<UniqueFd> MakeDirectory(int dir, std::string path, mode_t mode) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  const size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  const std::string parent_path = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  auto parent = Open(dir, parent_path, O_PATH | O_DIRECTORY, 0);
  if (!parent.ok()) return parent;
  if (::mkdirat(parent.value().get(), name.c_str(), mode) != 0) return Errno::Last("mkdir " + path);
  return Open(parent.value().get(), name, O_RDONLY | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
}

Result<bool> Access(const std::string& path, int mode) {
  const auto denied = [](int error) {
    return error == EACCES || error == EPERM || error == EROFS || error == ENOENT ||
           error == ENOTDIR || error == ELOOP;
  };
  const auto found = Open(AT_FDCWD, path, O_PATH, 0);
  if (!found.ok()) {
    if (denied(found.error().code)) return false;
    return found.error();
  }
  // AT_EACCESS: with the ids in force, not the real ones. glibc's wrapper would compute this by
  // itself.
  constexpr int kFlags = AT_EMPTY_PATH | AT_EACCESS;
  if (::syscall(SYS_faccessat2, found.value().get(), "", mode, kFlags) == 0) return true;
  if (denied(errno)) return false;
  return Errno::Last("access " + path);
}

Identity IdentityFrom(const Napi::CallbackInfo& info) {
  return Identity{Uint(info[0]), Uint(info[1]), List<gid_t>(info[2], Uint)};
}

// `work` on a thread of its own, as the user of the first three arguments.
template <typename Work, typename ToJs>
Napi::Value RunAs(const Napi::CallbackInfo& info, Work work, ToJs to_js) {
  const auto run = [identity = IdentityFrom(info), work]() -> std::invoke_result_t<const Work&> {
    const auto became = Become(identity);
    if (!became.ok()) return became.error();
    return work();
  };
  return RunAsync(info.Env(), Where::kThread, run, to_js);
}

Napi::Value GiveDescriptor(Napi::Env env, UniqueFd& fd) {
  return Napi::Number::New(env, fd.Release());
}

Napi::Value PeerCredentialsJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto peer = ReadPeer(Int(info[0]));
  if (!peer.ok()) return Throw(env, peer.error());
  auto out = Napi::Object::New(env);
  out.Set("pid", Napi::Number::New(env, peer.value().ids.pid));
  out.Set("uid", Napi::Number::New(env, peer.value().ids.uid));
  out.Set("gid", Napi::Number::New(env, peer.value().ids.gid));
  out.Set("groups", ArrayOf(env, peer.value().groups,
                            [env](gid_t group) { return Napi::Number::New(env, group); }));
  return out;
}

Napi::Value OpenAs(const Napi::CallbackInfo& info) {
  const auto work = [dir = Int(info[3]), path = Text(info[4]), flags = Int(info[5]),
                     mode = Uint(info[6])] { return Open(dir, path, flags, mode); };
  return RunAs(info, work, GiveDescriptor);
}

Napi::Value MkdirAs(const Napi::CallbackInfo& info) {
  const auto work = [dir = Int(info[3]), path = Text(info[4]), mode = Uint(info[5])] {
    return MakeDirectory(dir, path, mode);
  };
  return RunAs(info, work, GiveDescriptor);
}

Napi::Value AccessAs(const Napi::CallbackInfo& info) {
  const auto work = [path = Text(info[3]), mode = Int(info[4])] { return Access(path, mode); };
  return RunAs(info, work,
               [](Napi::Env env, bool& allowed) { return Napi::Boolean::New(env, allowed); });
}

}  // namespace

void InitCredentials(Napi::Env env, Napi::Object exports) {
  exports.Set("peerCredentials", Napi::Function::New(env, PeerCredentialsJs));
  exports.Set("openAs", Napi::Function::New(env, OpenAs));
  exports.Set("mkdirAs", Napi::Function::New(env, MkdirAs));
  exports.Set("accessAs", Napi::Function::New(env, AccessAs));
}

}  // namespace cedana
