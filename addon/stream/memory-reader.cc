#include "stream/memory-reader.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <string>
#include <utility>

#include "base/fd.h"

namespace cedana {

namespace {

constexpr uint64_t kWorthwhile = uint64_t{1} << 20;  // of a mapping; the rest comes just as fast
constexpr size_t kRegions = 1024;                    // of pages, at a time

const uint64_t kPageBytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));

// PAGEMAP_SCAN of Linux 6.7: which pages of a process are in which state.
struct PageRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
struct PageScan {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t regions;
  uint64_t region_count;
  uint64_t max_pages;
  uint64_t inverted;
  uint64_t mask;
  uint64_t any_of;
  uint64_t returned;
};
const unsigned long kPageScan = _IOWR('f', 16, PageScan);
constexpr uint64_t kFile = 1 << 2;
constexpr uint64_t kPresent = 1 << 3;
constexpr uint64_t kZero = 1 << 5;  // the kernel's own page of zeros

bool IsReadAhead(const Mapping& mapping) {
  return mapping.IsPrivateAnonymous() && mapping.name != "[stack]" &&
         mapping.permissions[0] == 'r' && mapping.permissions[2] != 'x' &&
         mapping.end - mapping.start >= kWorthwhile;
}

// Calls `take(start, end)` for each run of pages that CRIU will take too and that are there.
template <typename Take>
bool ForEachRun(int pagemap, const Mapping& mapping, const Take& take) {
  std::array<PageRegion, kRegions> regions;
  for (uint64_t at = mapping.start; at < mapping.end;) {
    PageScan scan{};
    scan.size = sizeof scan;
    scan.start = at;
    scan.end = mapping.end;
    scan.regions = reinterpret_cast<uint64_t>(regions.data());
    scan.region_count = regions.size();
    scan.inverted = kFile | kZero;
    scan.mask = kFile | kPresent | kZero;
    scan.returned = kPresent;
    const int found = ::ioctl(pagemap, kPageScan, &scan);
    if (found < 0 && errno == EINTR) continue;
    if (found < 0 || scan.walk_end <= at) return false;
    for (size_t i = 0; i < static_cast<size_t>(found); i++) {
      if (!take(regions[i].start, regions[i].end)) return false;
    }
    at = scan.walk_end;
  }
  return true;
}

bool MayRead(pid_t pid, uint64_t address) {
  std::byte byte;
  const iovec local{&byte, 1};
  const iovec remote{reinterpret_cast<void*>(address), 1};
  return ::process_vm_readv(pid, &local, 1, &remote, 1, 0) == 1;
}

}  // namespace

uint64_t MemoryReader::Span::end() const { return address + pages * kPageBytes; }

std::unique_ptr<MemoryReader> MemoryReader::Start(pid_t root_pid, BlockPool& pool, size_t spare) {
  std::unique_ptr<MemoryReader> reader(new MemoryReader(root_pid, pool, spare));
  const auto started = reader->threads_.Start([raw = reader.get()] { raw->Run(); });
  if (!started.ok()) reader->is_planned_ = true;  // nothing is read ahead then
  return reader;
}

MemoryReader::~MemoryReader() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  threads_.Join();
}

void MemoryReader::AwaitPlan() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return is_planned_; });
}

std::vector<MemoryReader::Span> MemoryReader::Take(uint64_t inner_pid) {
  const std::lock_guard lock(mutex_);
  const auto found = planned_.find(inner_pid);
  if (found == planned_.end()) return {};
  return std::exchange(found->second, {});
}

std::optional<Errno> MemoryReader::Finish() {
  threads_.Join();
  return error_;
}

void MemoryReader::Run() {
  static_cast<void>(threads_.Start([this] { Read(); }));  // only quicker
  for (const TreeMember& member : TreeOf(root_pid_)) {
    if (member.tracer != 0) Plan(member);
  }
  block_.reset();
  {
    const std::lock_guard lock(mutex_);
    is_planned_ = true;
    changed_.notify_all();
  }
  Read();
}

void MemoryReader::Plan(const TreeMember& member) {
  const auto mappings = MappingsOf(member.pid);
  if (std::ranges::any_of(mappings, [](const Mapping& m) { return m.name.starts_with("/[aio]"); }))
    return;
  const std::string path = "/proc/" + std::to_string(member.pid) + "/pagemap";
  const UniqueFd pagemap(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!pagemap.valid()) return;
  std::vector<Span> planned;
  const auto take = [&](uint64_t start, uint64_t end) {
    if (planned.empty() && !MayRead(member.pid, start)) return false;
    return PlanRun(member.pid, start, end, planned);
  };
  for (const Mapping& mapping : mappings) {
    if (IsReadAhead(mapping) && !ForEachRun(pagemap.get(), mapping, take)) break;
  }
  Enqueue();
  const std::lock_guard lock(mutex_);
  planned_[member.inner_pid] = std::move(planned);
}

// False when there is no more memory for it.
bool MemoryReader::PlanRun(pid_t pid, uint64_t start, uint64_t end, std::vector<Span>& planned) {
  while (start < end) {
    if (filled_ == kBlockBytes) {
      Enqueue();
      std::byte* data = pool_.available() > spare_ ? pool_.TryAcquire() : nullptr;
      if (data == nullptr) return false;
      block_ = std::make_shared<HeldBlock>(pool_, data);
      filled_ = 0;
    }
    const uint64_t bytes = std::min<uint64_t>(end - start, kBlockBytes - filled_);
    planned.push_back({start, bytes / kPageBytes, block_->data() + filled_, block_});
    piece_.pid = pid;
    piece_.spans.push_back(planned.back());
    filled_ += bytes;
    start += bytes;
  }
  return true;
}

void MemoryReader::Enqueue() {
  if (piece_.spans.empty()) return;
  const std::lock_guard lock(mutex_);
  pieces_.push_back(std::exchange(piece_, {}));
  changed_.notify_all();
}

void MemoryReader::Read() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return !pieces_.empty() || is_planned_; });
    if (pieces_.empty() || stopped_) return;
    Piece piece = std::move(pieces_.front());
    pieces_.pop_front();
    lock.unlock();
    auto error = ReadPiece(piece);
    piece.spans.clear();
    lock.lock();
    if (!error) continue;
    error_ = std::move(error);
    stopped_ = true;
  }
}

std::optional<Errno> MemoryReader::ReadPiece(const Piece& piece) {
  std::array<iovec, IOV_MAX> remote;
  for (size_t at = 0; at < piece.spans.size();) {
    const size_t count = std::min(remote.size(), piece.spans.size() - at);
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
      const Span& span = piece.spans[at + i];
      remote[i] = {reinterpret_cast<void*>(span.address), span.pages * kPageBytes};
      bytes += remote[i].iov_len;
    }
    const iovec local{const_cast<std::byte*>(piece.spans[at].data), bytes};
    const ssize_t n = ::process_vm_readv(piece.pid, &local, 1, remote.data(), count, 0);
    if (n < 0) return Errno::Last("read memory of process " + std::to_string(piece.pid));
    if (static_cast<size_t>(n) != bytes)
      return Errno{"read memory of process " + std::to_string(piece.pid), EFAULT};
    at += count;
  }
  return std::nullopt;
}

}  // namespace cedana
