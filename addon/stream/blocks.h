#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace cedana {

constexpr size_t kBlockBytes = size_t{4} << 20;  // also the leaf of a digest, see checksum.h

// A page-aligned buffer of kBlockBytes.
struct UnmapBlock {
  void operator()(std::byte* block) const;
};
using UniqueBlock = std::unique_ptr<std::byte, UnmapBlock>;
UniqueBlock MakeBlock();  // null: no memory

// Buffers of kBlockBytes, made when none comes free in time, until the limit; then
// Acquire waits. First touch is what costs, often more than storing the block before: so the one
// used last is handed out first, and after the first few a new one is made only when waiting has
// cost as much.
class BlockPool {
 public:
  explicit BlockPool(size_t limit_bytes);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool();  // every block is back

  // nullptr after Stop, or when there is no memory for the first one.
  std::byte* Acquire();
  // nullptr instead of waiting.
  std::byte* TryAcquire();
  void Release(std::byte* block);
  void Stop();
  // Makes and touches so many now, instead of one by one while somebody waits. On any thread.
  void Prepare(size_t blocks);
  // Gives the memory of all that are free back.
  void Trim();
  // How many more can be had without waiting.
  [[nodiscard]] size_t available();

 private:
  std::mutex mutex_;
  std::condition_variable freed_;
  const size_t limit_;
  size_t made_ = 0;
  bool stopped_ = false;
  std::vector<std::byte*> free_;
};

}  // namespace cedana
