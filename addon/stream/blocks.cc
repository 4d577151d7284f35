#include "stream/blocks.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace cedana {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMadeAtOnce = 4;
constexpr auto kFirstTouch = std::chrono::microseconds(1500);  // of a block, measured

// Aligned to a huge page, so that a first touch is two faults and not a thousand.
std::byte* MapBlock() {
  const size_t mapped = kBlockBytes + kHugePage;
  void* raw = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* start = static_cast<std::byte*>(raw);
  const size_t lead = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
  if (lead > 0) ::munmap(start, lead);
  if (lead < kHugePage) ::munmap(start + lead + kBlockBytes, kHugePage - lead);
  ::madvise(start + lead, kBlockBytes, MADV_HUGEPAGE);
  ::madvise(start + lead, kBlockBytes, MADV_DONTFORK);  // a fork during O_DIRECT must not copy it
  return start + lead;
}

// A few blocks stay touched between two captures: a small one would spend as long on the first
// touch of its buffers as on everything else.
class Spares {
 public:
  std::byte* Take() {
    const std::lock_guard lock(mutex_);
    if (blocks_.empty()) return nullptr;
    std::byte* block = blocks_.back();
    blocks_.pop_back();
    return block;
  }

  bool Keep(std::byte* block) {
    const std::lock_guard lock(mutex_);
    if (blocks_.size() >= kMadeAtOnce) return false;
    blocks_.push_back(block);
    return true;
  }

 private:
  std::mutex mutex_;
  std::vector<std::byte*> blocks_;
};

Spares& SpareBlocks() {
  static Spares spares;
  return spares;
}

}  // namespace

void UnmapBlock::operator()(std::byte* block) const { ::munmap(block, kBlockBytes); }

UniqueBlock MakeBlock() { return UniqueBlock(MapBlock()); }

BlockPool::BlockPool(size_t limit_bytes) : limit_(std::max<size_t>(limit_bytes / kBlockBytes, 2)) {}

BlockPool::~BlockPool() { Trim(); }

std::byte* BlockPool::Acquire() {
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return stopped_ || !free_.empty(); };
  if (made_ >= kMadeAtOnce) freed_.wait_for(lock, kFirstTouch, ready);
  if (!ready() && made_ < limit_) {
    std::byte* spare = SpareBlocks().Take();
    if (std::byte* block = spare != nullptr ? spare : MapBlock()) {
      made_++;
      return block;
    }
    if (made_ == 0) return nullptr;  // else go on with what there is
  }
  freed_.wait(lock, ready);
  if (stopped_) return nullptr;
  std::byte* block = free_.back();
  free_.pop_back();
  return block;
}

std::byte* BlockPool::TryAcquire() {
  const std::lock_guard lock(mutex_);
  if (stopped_) return nullptr;
  if (!free_.empty()) {
    std::byte* block = free_.back();
    free_.pop_back();
    return block;
  }
  std::byte* block = made_ < limit_ ? MapBlock() : nullptr;
  if (block != nullptr) made_++;
  return block;
}

void BlockPool::Release(std::byte* block) {
  const std::lock_guard lock(mutex_);
  free_.push_back(block);
  freed_.notify_one();
}

size_t BlockPool::available() {
  const std::lock_guard lock(mutex_);
  return limit_ - made_ + free_.size();
}

void BlockPool::Prepare(size_t blocks) {
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (stopped_ || made_ >= std::min(blocks, limit_)) return;
      made_++;
    }
    std::byte* block = MapBlock();
    if (block != nullptr) ::madvise(block, kBlockBytes, MADV_POPULATE_WRITE);
    const std::lock_guard lock(mutex_);
    if (block == nullptr) {
      made_--;
      return;
    }
    free_.push_back(block);
    freed_.notify_one();
  }
}

void BlockPool::Trim() {
  const std::lock_guard lock(mutex_);
  for (std::byte* block : free_) {
    if (!SpareBlocks().Keep(block)) ::munmap(block, kBlockBytes);
  }
  made_ -= free_.size();
  free_.clear();
}

void BlockPool::Stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  freed_.notify_all();
}

}  // namespace cedana
