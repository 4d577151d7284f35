#include "base/main-thread.h"

namespace cedana {

namespace {

using Shared = std::shared_ptr<MainThread>;

// False in an environment that ends (a worker being terminated): there every call fails that could
// run JavaScript, as the setting of a property.
bool CanRunJavaScript(napi_env env) {
  napi_value probe = nullptr;
  return napi_create_object(env, &probe) == napi_ok &&
         napi_set_named_property(env, probe, "", probe) == napi_ok;
}

}  // namespace

void MainThread::Install(Napi::Env env) {
  auto shared = std::make_unique<Shared>(std::make_shared<MainThread>());
  MainThread* self = shared->get();
  napi_value name = Napi::String::New(env, "cedana");
  // Unlimited queue, one "thread" (this object), finalised by the teardown of the environment.
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, new Shared(*shared),
                                  OnFinalize, self, OnCall, &self->function_);
  napi_unref_threadsafe_function(env, self->function_);
  env.SetInstanceData<Shared>(shared.release());
}

std::shared_ptr<MainThread> MainThread::Of(Napi::Env env) { return *env.GetInstanceData<Shared>(); }

bool MainThread::Enqueue(std::unique_ptr<Call> call) {
  const std::lock_guard lock(mutex_);
  Call* raw = call.release();
  if (function_ == nullptr) return false;
  const napi_status status = napi_call_threadsafe_function(function_, raw, napi_tsfn_nonblocking);
  // After napi_closing the function must not be touched again.
  if (status != napi_ok) function_ = nullptr;
  return status == napi_ok;
}

void MainThread::Hold(Napi::Env env) {
  if (holds_++ == 0 && function_ != nullptr) napi_ref_threadsafe_function(env, function_);
}

void MainThread::Drop(Napi::Env env) {
  if (--holds_ == 0 && function_ != nullptr) napi_unref_threadsafe_function(env, function_);
}

void MainThread::OnCall(napi_env env, napi_value, void*, void* data) {
  Call* call = static_cast<Call*>(data);
  // Queued while the environment ended: leaked, see Post.
  if (env == nullptr) return;
  const Napi::HandleScope scope(env);
  if (!CanRunJavaScript(env)) return;
  call->Run(Napi::Env(env));
  delete call;
}

void MainThread::OnFinalize(napi_env, void* data, void*) {
  const std::unique_ptr<Shared> shared(static_cast<Shared*>(data));
  const std::lock_guard lock((*shared)->mutex_);
  (*shared)->function_ = nullptr;
}

}  // namespace cedana
