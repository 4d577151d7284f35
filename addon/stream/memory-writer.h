#pragma once

#include <sys/types.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace cedana {

struct AddressRange {
  uint64_t start;
  uint64_t end;
};

// The pages of a process in a checkpoint: which of them we write into its memory ourselves, and the
// rest, of which CRIU gets images of their own.
struct MemoryPlan {
  struct Run {
    uint64_t offset;  // in the pages file
    uint64_t bytes;
    uint64_t to;  // address in the process; of the rest: offset in its own pages file
  };

  uint64_t inner_pid = 0;
  std::string pages_name;
  uint64_t size = 0;  // of the pages file
  std::vector<Run> direct;
  std::vector<Run> rest;
  uint64_t rest_size = 0;
  std::string rest_pagemap;
};

// From a pagemap-PID.img, with what lies within `ranges` (ascending) written by ourselves. ENOTSUP
// when not all of it is understood, or when pages are in another checkpoint.
Result<MemoryPlan> PlanMemory(uint64_t inner_pid, std::string_view pagemap,
                              const std::vector<AddressRange>& ranges);

// Calls `take(run, offset, bytes)` for each part of the runs that lies in this part of the pages
// file, until it answers false.
template <typename Take>
void ForEachPart(const std::vector<MemoryPlan::Run>& runs, uint64_t offset, uint64_t bytes,
                 const Take& take) {
  auto run = std::partition_point(runs.begin(), runs.end(), [offset](const MemoryPlan::Run& one) {
    return one.offset + one.bytes <= offset;
  });
  for (; run != runs.end() && run->offset < offset + bytes; ++run) {
    const uint64_t start = std::max(run->offset, offset);
    const uint64_t end = std::min(run->offset + run->bytes, offset + bytes);
    if (!take(*run, start, end - start)) return;
  }
}

// Writes the memory of a tree that CRIU has built, and of which nothing has run, by several threads
// (CRIU has one for each process), straight from where the pages come: they are in memory once.
//
// Only memory that is private, anonymous and may be written: what CRIU has mapped there by then is
// what it restored, empty.
class MemoryWriter {
 public:
  explicit MemoryWriter(std::vector<MemoryPlan> plans);

  // Null: not ours.
  [[nodiscard]] const MemoryPlan* Find(std::string_view pages_name) const;
  // The tree stands there.
  void Start(pid_t root_pid);
  // There will be no tree, or it is no longer written to: who waits for it gets ECANCELED.
  void Stop();
  // Some content of a pages file. On any thread; waits for the tree. ESRCH when its process is not
  // there.
  std::optional<Errno> Write(const MemoryPlan& plan, uint64_t offset,
                             std::span<const std::byte> data);

 private:
  struct Target {
    pid_t pid;
    UniqueFd pidfd;
  };

  // The process, alive.
  Result<pid_t> Await(uint64_t inner_pid);

  const std::vector<MemoryPlan> plans_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool started_ = false;
  bool stopped_ = false;
  std::map<uint64_t, Target> targets_;
};

}  // namespace cedana
