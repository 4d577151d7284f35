#include "proc/pidfd.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/async.h"
#include "base/error.h"
#include "base/handle.h"
#include "base/values.h"

namespace cedana {

Result<std::shared_ptr<Pidfd>> Pidfd::Open(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.valid()) return Errno::Last("pidfd_open");
  return std::make_shared<Pidfd>(std::move(fd), pid);
}

Result<bool> Pidfd::Send(int signal) const {
  // A zombie still takes signals; for the caller it is gone.
  pollfd poll{fd_.get(), POLLIN, 0};
  if (fd_.valid() && ::poll(&poll, 1, 0) == 1) return false;
  if (::syscall(SYS_pidfd_send_signal, fd_.get(), signal, nullptr, 0) == 0) return true;
  if (errno == ESRCH) return false;
  return Errno::Last("pidfd_send_signal");
}

Result<Unit> Pidfd::Wait(ExitWatcher::Done done) {
  auto id =
      ExitWatcher::Instance().Add(fd_.get(), pid_, ExitWatcher::Whose::kOthers, std::move(done));
  if (!id.ok()) return id.error();
  waits_.push_back(id.value());
  return Unit{};
}

Result<Unit> Pidfd::ReapWhenEnded(ExitWatcher::Done done) const {
  const auto id =
      ExitWatcher::Instance().Add(fd_.get(), pid_, ExitWatcher::Whose::kOurs, std::move(done));
  if (!id.ok()) return id.error();
  return Unit{};
}

void Pidfd::Close() {
  for (const uint64_t id : waits_) ExitWatcher::Instance().Cancel(id);
  waits_.clear();
  fd_.Reset();
}

Napi::Value ExitToJs(Napi::Env env, const ExitStatus& status) {
  const auto number = [env](bool known, int value) -> Napi::Value {
    return known ? Napi::Number::New(env, value) : env.Null();
  };
  auto out = Napi::Object::New(env);
  out.Set("code", number(status && WIFEXITED(*status), status ? WEXITSTATUS(*status) : 0));
  out.Set("signal", number(status && WIFSIGNALED(*status), status ? WTERMSIG(*status) : 0));
  return out;
}

namespace {

Napi::Value PidfdOpen(const Napi::CallbackInfo& info) {
  auto opened = Pidfd::Open(Int(info[0]));
  if (!opened.ok()) return Throw(info.Env(), opened.error());
  return MakeHandle(info.Env(), std::move(opened.value()));
}

Napi::Value PidfdSend(const Napi::CallbackInfo& info) {
  const auto sent = HandleOf<Pidfd>(info[0])->Send(Int(info[1]));
  if (!sent.ok()) return Throw(info.Env(), sent.error());
  return Napi::Boolean::New(info.Env(), sent.value());
}

Napi::Value PidfdWait(const Napi::CallbackInfo& info) {
  const auto handle = HandleOf<Pidfd>(info[0]);
  // The wait keeps the handle: the collector must not cancel a promise that somebody awaits.
  auto to_js = [handle](Napi::Env env, ExitStatus& status) { return ExitToJs(env, status); };
  auto completion = std::make_shared<Completion<ExitStatus, decltype(to_js)>>(info.Env(), to_js);
  const auto added = handle->Wait(
      [completion](Result<ExitStatus> status) { completion->Finish(std::move(status)); });
  if (!added.ok()) completion->Finish(added.error());
  return completion->promise();
}

void PidfdClose(const Napi::CallbackInfo& info) { HandleOf<Pidfd>(info[0])->Close(); }

}  // namespace

void InitPidfd(Napi::Env env, Napi::Object exports) {
  exports.Set("pidfdOpen", Napi::Function::New(env, PidfdOpen));
  exports.Set("pidfdSend", Napi::Function::New(env, PidfdSend));
  exports.Set("pidfdWait", Napi::Function::New(env, PidfdWait));
  exports.Set("pidfdClose", Napi::Function::New(env, PidfdClose));
}

}  // namespace cedana
