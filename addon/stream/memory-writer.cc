#include "stream/memory-writer.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "stream/mappings.h"
#include "stream/pagemap.h"

namespace cedana {

namespace {

const uint64_t kPageBytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));

Errno NotPlanned(const char* why) { return {std::string("pagemap: ") + why, ENOTSUP}; }

Errno WriteFailed(uint64_t inner_pid, int code) {
  return {"write memory of process " + std::to_string(inner_pid), code};
}

// Splits the pages of one run at the borders of `ranges`.
template <typename Take>
void Split(const PagemapEntry& entry, const std::vector<AddressRange>& ranges, const Take& take) {
  uint64_t at = entry.address;
  const uint64_t end = at + entry.pages * kPageBytes;
  auto range = std::partition_point(ranges.begin(), ranges.end(),
                                    [at](const AddressRange& one) { return one.end <= at; });
  while (at < end) {
    const bool is_inside = range != ranges.end() && range->start <= at;
    const uint64_t border = range == ranges.end() ? end : is_inside ? range->end : range->start;
    const uint64_t stop = std::min(end, border);
    take(at, stop, is_inside);
    at = stop;
    if (is_inside && at == border) ++range;
  }
}

void AddRun(std::vector<MemoryPlan::Run>& runs, const MemoryPlan::Run& run) {
  const bool continues = !runs.empty() && runs.back().offset + runs.back().bytes == run.offset &&
                         runs.back().to + runs.back().bytes == run.to;
  if (continues)
    runs.back().bytes += run.bytes;
  else
    runs.push_back(run);
}

}  // namespace

Result<MemoryPlan> PlanMemory(uint64_t inner_pid, std::string_view pagemap,
                              const std::vector<AddressRange>& ranges) {
  const auto read = ReadPagemap(pagemap);
  if (!read) return NotPlanned("not understood");
  MemoryPlan plan;
  plan.inner_pid = inner_pid;
  plan.pages_name = "pages-" + std::to_string(read->pages_id) + ".img";
  Pagemap rest(read->pages_id, read->criu_version);
  for (const PagemapEntry& entry : read->entries) {
    if ((entry.flags & kPageInParent) != 0) return NotPlanned("pages of another checkpoint");
    if ((entry.flags & kPagePresent) == 0) {
      rest.Add(entry.address, entry.pages, entry.flags);
      continue;
    }
    Split(entry, ranges, [&](uint64_t start, uint64_t end, bool is_direct) {
      const uint64_t bytes = end - start;
      if (is_direct) {
        AddRun(plan.direct, {plan.size, bytes, start});
      } else {
        AddRun(plan.rest, {plan.size, bytes, plan.rest_size});
        plan.rest_size += bytes;
        rest.Add(start, bytes / kPageBytes, entry.flags);
      }
      plan.size += bytes;
    });
  }
  plan.rest_pagemap = rest.Finish();
  return plan;
}

MemoryWriter::MemoryWriter(std::vector<MemoryPlan> plans) : plans_(std::move(plans)) {}

const MemoryPlan* MemoryWriter::Find(std::string_view pages_name) const {
  const auto found =
      std::ranges::find_if(plans_, [&](const auto& plan) { return plan.pages_name == pages_name; });
  return found == plans_.end() ? nullptr : &*found;
}

void MemoryWriter::Start(pid_t root_pid) {
  std::map<uint64_t, Target> targets;
  for (const TreeMember& member : TreeOf(root_pid)) {
    UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, member.pid, 0)));
    if (pidfd.valid()) targets[member.inner_pid] = {member.pid, std::move(pidfd)};
  }
  const std::lock_guard lock(mutex_);
  targets_ = std::move(targets);
  started_ = true;
  changed_.notify_all();
}

void MemoryWriter::Stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  targets_.clear();
  changed_.notify_all();
}

Result<pid_t> MemoryWriter::Await(uint64_t inner_pid) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return started_ || stopped_; });
  if (stopped_) return Errno{"write memory", ECANCELED};
  const auto target = targets_.find(inner_pid);
  if (target == targets_.end()) return WriteFailed(inner_pid, ESRCH);
  // A call keeps the memory it has found, but finds it by a number that is free again soon after
  // the end of its process.
  pollfd ended{target->second.pidfd.get(), POLLIN, 0};
  if (::poll(&ended, 1, 0) != 0) return WriteFailed(inner_pid, ESRCH);
  return target->second.pid;
}

std::optional<Errno> MemoryWriter::Write(const MemoryPlan& plan, uint64_t offset,
                                         std::span<const std::byte> data) {
  const auto pid = Await(plan.inner_pid);
  if (!pid.ok()) return pid.error();
  std::array<iovec, IOV_MAX> local;
  std::array<iovec, IOV_MAX> remote;
  size_t count = 0;
  uint64_t bytes = 0;
  std::optional<Errno> error;
  const auto flush = [&] {
    if (count == 0) return true;
    const ssize_t n =
        ::process_vm_writev(pid.value(), local.data(), count, remote.data(), count, 0);
    if (n < 0)
      error = WriteFailed(plan.inner_pid, errno);
    else if (static_cast<uint64_t>(n) != bytes)
      error = WriteFailed(plan.inner_pid, EFAULT);
    count = 0;
    bytes = 0;
    return !error;
  };
  ForEachPart(plan.direct, offset, data.size(), [&](const auto& run, uint64_t at, uint64_t size) {
    const uint64_t address = run.to + (at - run.offset);
    local[count] = {const_cast<std::byte*>(data.data() + (at - offset)), size};
    remote[count] = {reinterpret_cast<void*>(address), size};
    bytes += size;
    return ++count < local.size() || flush();
  });
  static_cast<void>(flush());
  return error;
}

}  // namespace cedana
