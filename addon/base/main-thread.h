#pragma once

#include <napi.h>

#include <memory>
#include <mutex>
#include <utility>

namespace cedana {

// Carries closures from any thread to the JavaScript thread of one environment. Threads may outlive
// the environment (a process that exits does not wait for CRIU): Post is then refused.
class MainThread {
 public:
  // Called once by module.cc, before any binding.
  static void Install(Napi::Env env);
  static std::shared_ptr<MainThread> Of(Napi::Env env);

  // Runs task(Napi::Env) on the JavaScript thread, in order of posting, in a handle scope. False
  // when the environment is gone; the task is then leaked, since destroying what it may hold of
  // JavaScript needs the environment.
  template <typename Task>
  bool Post(Task task) {
    return Enqueue(std::make_unique<Closure<Task>>(std::move(task)));
  }

  // JavaScript thread only: while held, the event loop (thus the process) stays alive.
  void Hold(Napi::Env env);
  void Drop(Napi::Env env);

 private:
  struct Call {
    virtual ~Call() = default;
    virtual void Run(Napi::Env env) = 0;
  };
  template <typename Task>
  struct Closure final : Call {
    explicit Closure(Task task) : task(std::move(task)) {}
    void Run(Napi::Env env) override { task(env); }
    Task task;
  };

  bool Enqueue(std::unique_ptr<Call> call);
  static void OnCall(napi_env env, napi_value function, void* context, void* data);
  static void OnFinalize(napi_env env, void* data, void* context);

  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;  // null once the environment is gone
  int holds_ = 0;
};

}  // namespace cedana
