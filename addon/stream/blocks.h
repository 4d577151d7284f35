#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

namespace cedana {

constexpr size_t kBlockBytes = size_t{4} << 20;  // also the leaf of a digest, see checksum.h

// Page-aligned buffers of kBlockBytes, made when none is free, until the limit; then Acquire waits.
// The block used last is handed out first: its pages are there, and first touch is what costs.
class BlockPool {
 public:
  explicit BlockPool(size_t limit_bytes);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool();  // every block is back

  // nullptr after Stop, or when there is no memory for the first one.
  std::byte* Acquire();
  void Release(std::byte* block);
  void Stop();

 private:
  std::mutex mutex_;
  std::condition_variable freed_;
  size_t limit_;
  size_t made_ = 0;
  bool stopped_ = false;
  std::vector<std::byte*> free_;
};

}  // namespace cedana
