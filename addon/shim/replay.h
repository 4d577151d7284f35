#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <deque>

#include "shim/protocol.h"

namespace cedana::shim {

// The last output, for those who attach late: bytes in a ring, and which stream each run of them is
// of.
class Replay {
 public:
  void Add(Frame stream, const char* data, size_t size) {
    if (size > kReplayBytes) {
      data += size - kReplayBytes;
      size = kReplayBytes;
    }
    Forget(size_ + size > kReplayBytes ? size_ + size - kReplayBytes : 0);
    const size_t at = (start_ + size_) % kReplayBytes;
    const size_t before_end = std::min(size, kReplayBytes - at);
    memcpy(bytes_ + at, data, before_end);
    memcpy(bytes_, data + before_end, size - before_end);
    size_ += size;
    if (runs_.empty() || runs_.back().stream != stream) runs_.push_back({stream, 0});
    runs_.back().size += size;
  }

  // visit(stream, data, size), oldest first.
  template <typename Visit>
  void ForEach(Visit visit) const {
    size_t at = start_;
    for (const Run& run : runs_) {
      const size_t before_end = std::min(run.size, kReplayBytes - at);
      visit(run.stream, bytes_ + at, before_end);
      if (run.size > before_end) visit(run.stream, bytes_, run.size - before_end);
      at = (at + run.size) % kReplayBytes;
    }
  }

 private:
  struct Run {
    Frame stream;
    size_t size;
  };

  void Forget(size_t size) {
    start_ = (start_ + size) % kReplayBytes;
    size_ -= size;
    while (size > 0) {
      const size_t part = std::min(size, runs_.front().size);
      runs_.front().size -= part;
      size -= part;
      if (runs_.front().size == 0) runs_.pop_front();
    }
  }

  char bytes_[kReplayBytes];  // untouched, so not resident, until there is output
  size_t start_ = 0;
  size_t size_ = 0;
  std::deque<Run> runs_;
};

}  // namespace cedana::shim
