#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "base/main-thread.h"
#include "base/result.h"
#include "base/thread.h"

namespace cedana {

// The one promise pattern.
//
//   return RunAsync(env, Where::kPool,
//                   [fd] { return Sync(fd); },                                // no JavaScript here
//                   [](Napi::Env env, Unit&) { return env.Undefined(); });    // no work here
//
// `work` returns Result<T> and runs elsewhere; `to_js(Napi::Env, T&)` makes the value on the
// JavaScript thread. While a promise is pending the process stays alive.
enum class Where {
  kPool,    // the four threads of libuv, shared with fs and dns: short work only
  kThread,  // a thread of its own: work that waits, or takes more than some milliseconds
};

namespace internal {

template <typename T, typename ToJs>
void Settle(Napi::Env env, const Napi::Promise::Deferred& deferred, Result<T>& result,
            ToJs& to_js) {
  if (!result.ok()) return deferred.Reject(ToJsError(env, result.error()).Value());
  const Napi::Value value = to_js(env, result.value());
  if (env.IsExceptionPending()) return deferred.Reject(env.GetAndClearPendingException().Value());
  deferred.Resolve(value);
}

template <typename Work, typename ToJs>
class PoolCall final : public Napi::AsyncWorker {
 public:
  PoolCall(Napi::Env env, Napi::Promise::Deferred deferred, Work work, ToJs to_js)
      : Napi::AsyncWorker(env),
        deferred_(deferred),
        work_(std::move(work)),
        to_js_(std::move(to_js)) {}

 private:
  void Execute() override { result_.emplace(work_()); }
  void OnOK() override { Settle(Env(), deferred_, *result_, to_js_); }

  Napi::Promise::Deferred deferred_;
  Work work_;
  ToJs to_js_;
  std::optional<std::invoke_result_t<Work&>> result_;
};

}  // namespace internal

// A promise which any thread settles, once, by calling Finish. Made on the JavaScript thread.
// `keeps_alive`: while it is pending the process stays alive.
template <typename T, typename ToJs>
class Completion {
 public:
  Completion(Napi::Env env, ToJs to_js, bool keeps_alive = true)
      : main_(MainThread::Of(env)),
        deferred_(Napi::Promise::Deferred::New(env)),
        to_js_(std::move(to_js)),
        keeps_alive_(keeps_alive) {
    if (keeps_alive_) main_->Hold(env);
  }

  [[nodiscard]] Napi::Promise promise() const { return deferred_.Promise(); }

  void Finish(Result<T> outcome) {
    main_->Post([main = main_, held = keeps_alive_, deferred = deferred_, to_js = std::move(to_js_),
                 outcome = std::move(outcome)](Napi::Env env) mutable {
      if (held) main->Drop(env);
      internal::Settle(env, deferred, outcome, to_js);
    });
  }

 private:
  std::shared_ptr<MainThread> main_;
  Napi::Promise::Deferred deferred_;
  ToJs to_js_;
  bool keeps_alive_;
};

// For a failure that is known at once: what returns a promise never throws.
inline Napi::Promise Rejected(Napi::Env env, const Errno& error) {
  const Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(env);
  deferred.Reject(ToJsError(env, error).Value());
  return deferred.Promise();
}

template <typename Work, typename ToJs>
Napi::Promise RunAsync(Napi::Env env, Where where, Work work, ToJs to_js) {
  using Outcome = std::invoke_result_t<Work&>;
  if (where == Where::kPool) {
    const Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(env);
    // Deletes itself after OnOK.
    (new internal::PoolCall<Work, ToJs>(env, deferred, std::move(work), std::move(to_js)))->Queue();
    return deferred.Promise();
  }
  auto completion =
      std::make_shared<Completion<typename Outcome::Value, ToJs>>(env, std::move(to_js));
  const auto started =
      StartThread([completion, work = std::move(work)]() mutable { completion->Finish(work()); });
  if (!started.ok()) completion->Finish(started.error());
  return completion->promise();
}

}  // namespace cedana
