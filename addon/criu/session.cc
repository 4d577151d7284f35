#include "criu/session.h"

#include <criu/rpc.pb-c.h>
#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/async.h"
#include "base/fd.h"
#include "base/handle.h"
#include "base/values.h"
#include "criu/options.h"

namespace cedana {

namespace {

struct FreeResponse {
  void operator()(CriuResp* response) const { criu_resp__free_unpacked(response, nullptr); }
};
using ResponsePtr = std::unique_ptr<CriuResp, FreeResponse>;

struct Notification {
  std::string script;
  std::optional<int> pid;
};

// Our end of the socket pair to a `criu swrk`, and the conversation over it. The JavaScript thread
// closes it and answers notifications; the thread of the request does the rest.
class CriuSession {
 public:
  explicit CriuSession(UniqueFd fd) : fd_(std::move(fd)) {}

  // Tells JavaScript of a notification: whoever gets the ticket calls Answer with it. False when
  // nobody will.
  using Tell = std::function<bool(Notification, uint64_t ticket)>;
  struct Listener {
    std::vector<std::string> scripts;  // the only ones it is told of; all when empty
    Tell tell;

    [[nodiscard]] bool Wants(const std::string& script) const {
      return tell && (scripts.empty() || std::ranges::find(scripts, script) != scripts.end());
    }
  };

  // One request at a time.
  Result<Unit> Begin() {
    const std::lock_guard lock(mutex_);
    if (closed_) return Errno{"criuRequest", EBADF};
    if (std::exchange(busy_, true)) return Errno{"criuRequest", EBUSY};
    return Unit{};
  }

  // Sends the request and serves notifications until the final response.
  Result<ResponsePtr> Converse(const CriuReq& request, const Listener& listener) {
    auto response = Exchange(request, listener);
    const std::lock_guard lock(mutex_);
    busy_ = false;
    if (closed_) fd_.Reset();
    return response;
  }

  void Answer(uint64_t ticket, bool success) {
    const std::lock_guard lock(mutex_);
    if (ticket != ticket_ || answer_) return;
    answer_ = success;
    answered_.notify_all();
  }

  // The descriptor stays open as long as the thread of the request may use its number.
  void Close() {
    const std::lock_guard lock(mutex_);
    if (std::exchange(closed_, true)) return;
    ::shutdown(fd_.get(), SHUT_RDWR);
    answered_.notify_all();
    if (!busy_) fd_.Reset();
  }

 private:
  Result<ResponsePtr> Exchange(const CriuReq& request, const Listener& listener) {
    auto sent = Send(request);
    if (!sent.ok()) return sent.error();
    for (;;) {
      auto response = Receive();
      if (!response.ok() || response.value()->type != CRIU_REQ_TYPE__NOTIFY) return response;
      const auto success = Notify(*response.value(), listener);
      if (!success.ok()) return success.error();
      CriuReq answer = CRIU_REQ__INIT;
      answer.type = CRIU_REQ_TYPE__NOTIFY;
      answer.has_notify_success = 1;
      answer.notify_success = success.value() ? 1 : 0;
      sent = Send(answer);
      if (!sent.ok()) return sent.error();
    }
  }

  // CRIU waits meanwhile, so there is nothing to read: only the answer or Close can end this.
  Result<bool> Notify(const CriuResp& response, const Listener& listener) {
    Notification notification;
    if (const CriuNotify* notify = response.notify) {
      if (notify->script != nullptr) notification.script = notify->script;
      if (notify->has_pid) notification.pid = notify->pid;
    }
    std::unique_lock lock(mutex_);
    if (closed_) return Errno{"criuRequest", ECONNRESET};
    if (!listener.Wants(notification.script)) return true;
    answer_.reset();
    const uint64_t ticket = ++ticket_;
    lock.unlock();
    if (!listener.tell(std::move(notification), ticket)) return false;
    lock.lock();
    answered_.wait(lock, [this] { return answer_ || closed_; });
    if (closed_) return Errno{"criuRequest", ECONNRESET};
    return *answer_;
  }

  Result<Unit> Send(const CriuReq& request) {
    std::vector<uint8_t> bytes(criu_req__get_packed_size(&request));
    criu_req__pack(&request, bytes.data());
    for (;;) {
      if (::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0) return Unit{};
      // A CRIU that died is ECONNRESET, whichever call meets it first.
      if (errno == EPIPE) return Errno{"criuRequest", ECONNRESET};
      if (errno != EINTR) return Errno::Last("criuRequest");
    }
  }

  Result<ResponsePtr> Receive() {
    std::vector<uint8_t> bytes;
    // The first look only asks for the size.
    for (const int flags : {MSG_PEEK | MSG_TRUNC, 0}) {
      ssize_t size = 0;
      do {
        size = ::recv(fd_.get(), bytes.data(), bytes.size(), flags);
      } while (size < 0 && errno == EINTR);
      if (size < 0) return Errno::Last("criuRequest");
      if (size == 0) return Errno{"criuRequest", ECONNRESET};
      bytes.resize(static_cast<size_t>(size));
    }
    ResponsePtr response(criu_resp__unpack(nullptr, bytes.size(), bytes.data()));
    if (!response) return Errno{"criuRequest", EBADMSG};
    return response;
  }

  UniqueFd fd_;
  std::mutex mutex_;
  std::condition_variable answered_;
  bool busy_ = false;
  bool closed_ = false;
  uint64_t ticket_ = 0;
  std::optional<bool> answer_;
};

// Runs on the JavaScript thread: calls the callback and passes on what becomes of its promise.
void CallNotify(Napi::Env env, const Napi::FunctionReference& callback,
                const Notification& notification, const std::shared_ptr<CriuSession>& session,
                uint64_t ticket) {
  const auto answer = [env, session, ticket](bool success) {
    return Napi::Function::New(env, [session, ticket, success](const Napi::CallbackInfo&) {
      session->Answer(ticket, success);
    });
  };
  const Napi::Value pid =
      notification.pid ? Napi::Value(Napi::Number::New(env, *notification.pid)) : env.Null();
  const Napi::Value promise = callback.Call({Napi::String::New(env, notification.script), pid});
  if (!env.IsExceptionPending()) {
    promise.As<Napi::Object>().Get("then").As<Napi::Function>().Call(promise,
                                                                     {answer(true), answer(false)});
  }
  if (env.IsExceptionPending()) {
    static_cast<void>(env.GetAndClearPendingException());
    session->Answer(ticket, false);
  }
}

struct FreeRequest {
  void operator()(CriuReq* request) const { criu_req__free_unpacked(request, nullptr); }
};
using RequestPtr = std::unique_ptr<CriuReq, FreeRequest>;

Result<RequestPtr> RequestFrom(const std::string& type, const Napi::Value& options) {
  const auto* value =
      protobuf_c_enum_descriptor_get_value_by_name(&criu_req_type__descriptor, type.c_str());
  if (value == nullptr) return Errno{"request type " + type, EINVAL};
  RequestPtr request(static_cast<CriuReq*>(std::malloc(sizeof(CriuReq))));
  criu_req__init(request.get());
  request->type = static_cast<CriuReqType>(value->value);
  if (options.IsNull()) return request;
  auto opts = CriuOptsFrom(options.As<Napi::Object>());
  if (!opts.ok()) return opts.error();
  request->opts = opts.value().release();
  return request;
}

Napi::Value ResponseToJs(Napi::Env env, const CriuResp& response) {
  const auto number = [env](double value) { return Napi::Number::New(env, value); };
  auto out = Napi::Object::New(env);
  out.Set("success", Napi::Boolean::New(env, response.success != 0));
  out.Set("errno", number(response.has_cr_errno ? response.cr_errno : 0));
  out.Set("message", env.Null());
  out.Set("pid", env.Null());
  out.Set("version", env.Null());
  if (response.cr_errmsg != nullptr) out.Set("message", Napi::String::New(env, response.cr_errmsg));
  if (response.restore != nullptr) out.Set("pid", number(response.restore->pid));
  if (const CriuVersion* version = response.version) {
    const std::vector<int> parts = {version->major_number, version->minor_number,
                                    version->has_sublevel ? version->sublevel : 0};
    out.Set("version", ArrayOf(env, parts, number));
  }
  return out;
}

Napi::Value CriuSessionJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return Throw(env, Errno::Last("socketpair"));
  auto out = Napi::Object::New(env);
  out.Set("session", MakeHandle(env, std::make_shared<CriuSession>(UniqueFd(pair[0]))));
  out.Set("peerFd", Napi::Number::New(env, pair[1]));
  return out;
}

Napi::Value CriuRequest(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto session = HandleOf<CriuSession>(info[0]);
  auto request = RequestFrom(Text(info[1]), info[2]);
  if (!request.ok()) return Rejected(env, request.error());
  const auto begun = session->Begin();
  if (!begun.ok()) return Rejected(env, begun.error());

  // Owned by to_js, which is destroyed on the JavaScript thread after the last notification was
  // called there; the thread of the request only hands the pointer on.
  auto callback = std::make_unique<Napi::FunctionReference>();
  CriuSession::Listener listener;
  if (!info[3].IsNull()) {
    *callback = Napi::Persistent(info[3].As<Napi::Function>());
    if (!info[4].IsNull()) listener.scripts = Texts(info[4]);
    listener.tell = [main = MainThread::Of(env), session, callback = callback.get()](
                        Notification what, uint64_t ticket) {
      return main->Post([session, callback, what = std::move(what), ticket](Napi::Env env) {
        CallNotify(env, *callback, what, session, ticket);
      });
    };
  }
  return RunAsync(
      env, Where::kThread,
      [session, request = std::move(request.value()), listener = std::move(listener)] {
        return session->Converse(*request, listener);
      },
      [callback = std::move(callback)](Napi::Env env, ResponsePtr& response) {
        return ResponseToJs(env, *response);
      });
}

void CriuClose(const Napi::CallbackInfo& info) { HandleOf<CriuSession>(info[0])->Close(); }

Napi::Value CriuOptions(const Napi::CallbackInfo& info) { return CriuOptionsToJs(info.Env()); }

}  // namespace

void InitSession(Napi::Env env, Napi::Object exports) {
  exports.Set("criuSession", Napi::Function::New(env, CriuSessionJs));
  exports.Set("criuRequest", Napi::Function::New(env, CriuRequest));
  exports.Set("criuClose", Napi::Function::New(env, CriuClose));
  exports.Set("criuOptions", Napi::Function::New(env, CriuOptions));
}

}  // namespace cedana
