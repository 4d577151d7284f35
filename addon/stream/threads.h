#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "base/result.h"
#include "base/thread.h"

namespace cedana {

// Threads that end before their owner does.
class ThreadGroup {
 public:
  ThreadGroup() = default;
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;
  ~ThreadGroup() { Join(); }

  template <typename Body>
  Result<Unit> Start(Body body) {
    {
      const std::lock_guard lock(count_->mutex);
      count_->running++;
    }
    auto started = StartThread([count = count_, body = std::move(body)]() mutable {
      body();
      Leave(*count);
    });
    if (!started.ok()) Leave(*count_);
    return started;
  }

  void Join() {
    std::unique_lock lock(count_->mutex);
    count_->changed.wait(lock, [this] { return count_->running == 0; });
  }

 private:
  // Shared with the threads: the last one may still be leaving when the owner is gone.
  struct Count {
    std::mutex mutex;
    std::condition_variable changed;
    int running = 0;
  };

  static void Leave(Count& count) {
    const std::lock_guard lock(count.mutex);
    count.running--;
    count.changed.notify_all();
  }

  std::shared_ptr<Count> count_ = std::make_shared<Count>();
};

}  // namespace cedana
