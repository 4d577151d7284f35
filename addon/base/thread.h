#pragma once

#include <pthread.h>
#include <signal.h>

#include <memory>
#include <utility>

#include "base/result.h"

namespace cedana {

// Runs `body` on a detached thread with every signal blocked (Node's handlers stay on Node's
// threads). Unlike std::thread, a machine that is out of threads is an error here and not the end
// of the daemon.
template <typename Body>
Result<Unit> StartThread(Body body) {
  auto heap = std::make_unique<Body>(std::move(body));
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // inherited by the new thread
  pthread_t thread;
  const int error = pthread_create(
      &thread, &attributes,
      [](void* raw) -> void* {
        const std::unique_ptr<Body> owned(static_cast<Body*>(raw));
        (*owned)();
        return nullptr;
      },
      heap.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (error != 0) return Errno{"pthread_create", error};
  static_cast<void>(heap.release());
  return Unit{};
}

}  // namespace cedana
