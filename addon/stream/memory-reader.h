#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/result.h"
#include "stream/blocks.h"
#include "stream/mappings.h"
#include "stream/threads.h"

namespace cedana {

// A block that goes back to its pool.
class HeldBlock {
 public:
  HeldBlock(BlockPool& pool, std::byte* data) : pool_(pool), data_(data) {}
  HeldBlock(const HeldBlock&) = delete;
  HeldBlock& operator=(const HeldBlock&) = delete;
  ~HeldBlock() { pool_.Release(data_); }
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  BlockPool& pool_;
  std::byte* data_;
};

// Reads the memory of a tree that CRIU has stopped, while CRIU still looks at it.
//
// What CRIU sends later says which pages count. Ours are the same as long as nobody writes to them
// in between, so that only memory is read that CRIU leaves alone too: private, anonymous, without
// code (it borrows some to make the process do what it wants), present (nothing is faulted in), of
// a process without AIO, whose events CRIU takes afterwards. Somebody outside of the tree who
// writes to it meanwhile, by process_vm_writev or with the same memory, has it torn by CRIU as
// well, which reads one page after the other.
class MemoryReader {
 public:
  struct Span {
    uint64_t address;
    uint64_t pages;
    const std::byte* data;
    std::shared_ptr<HeldBlock> block;

    [[nodiscard]] uint64_t end() const;
  };

  // At once; all else is done by threads. As much is read as leaves `spare` blocks in the pool.
  static std::unique_ptr<MemoryReader> Start(pid_t root_pid, BlockPool& pool, size_t spare);
  MemoryReader(const MemoryReader&) = delete;
  MemoryReader& operator=(const MemoryReader&) = delete;
  ~MemoryReader();

  // Waits until it is known what is read: nobody else has taken memory for it by then.
  void AwaitPlan();
  // What is or will be read of a process, ascending; once for each. After AwaitPlan.
  std::vector<Span> Take(uint64_t inner_pid);
  // Waits until all is read.
  std::optional<Errno> Finish();

 private:
  // What one call reads: of one process, into one block.
  struct Piece {
    pid_t pid;
    std::vector<Span> spans;
  };

  MemoryReader(pid_t root_pid, BlockPool& pool, size_t spare)
      : root_pid_(root_pid), pool_(pool), spare_(spare) {}
  void Run();
  void Plan(const TreeMember& member);
  bool PlanRun(pid_t pid, uint64_t start, uint64_t end, std::vector<Span>& planned);
  void Enqueue();
  void Read();
  static std::optional<Errno> ReadPiece(const Piece& piece);

  const pid_t root_pid_;
  BlockPool& pool_;
  const size_t spare_;
  // Of who plans.
  std::shared_ptr<HeldBlock> block_;
  size_t filled_ = kBlockBytes;
  Piece piece_{};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, std::vector<Span>> planned_;
  std::deque<Piece> pieces_;  // to be read
  bool is_planned_ = false;
  bool stopped_ = false;
  std::optional<Errno> error_;
  ThreadGroup threads_;
};

}  // namespace cedana
