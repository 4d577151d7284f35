#include "stream/writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace cedana {

namespace {

constexpr size_t kAlignment = 4096;  // of O_DIRECT; an exotic device that wants more answers EINVAL
constexpr uint64_t kReserveBytes = uint64_t{256} << 20;

bool SetDirect(int fd, bool on) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && ::fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

}  // namespace

OutputFile::OutputFile(BlockWriter& writer, UniqueFd fd, std::string name, FileOptions options)
    : writer_(writer),
      fd_(std::move(fd)),
      name_(std::move(name)),
      durable_(options.durable),
      direct_(options.direct && SetDirect(fd_.get(), true)),
      opened_direct_(direct_) {}

std::span<std::byte> OutputFile::Space() {
  if (filled_ == kBlockBytes && !Submit(false)) return {};
  if (block_ == nullptr) {
    block_ = writer_.blocks_.Acquire();
    if (block_ == nullptr) {
      writer_.Fail(Errno{"mmap", ENOMEM});  // counts only where nothing failed before
      return {};
    }
  }
  return {block_ + filled_, kBlockBytes - filled_};
}

void OutputFile::Commit(size_t size) { filled_ += size; }

bool OutputFile::Append(const std::byte* data, size_t size) {
  while (size > 0) {
    const std::span<std::byte> space = Space();
    if (space.empty()) return false;
    const size_t n = std::min(size, space.size());
    std::memcpy(space.data(), data, n);
    Commit(n);
    data += n;
    size -= n;
  }
  return true;
}

void OutputFile::Close() { Submit(true); }

bool OutputFile::Submit(bool last) {
  // The last job takes over the filler's share, so that whoever finishes last completes the file.
  if (!last) pending_++;
  if (filled_ > 0) Reserve(size_ + filled_);
  const BlockWriter::Job job{this, std::exchange(block_, nullptr), size_,
                             std::exchange(filled_, 0)};
  size_ += job.size;
  writer_.Enqueue(job);  // with the last job the file is the threads'
  return !writer_.failed_;
}

// A direct write behind the end of the file has it to itself; inside, several go on at once.
void OutputFile::Reserve(uint64_t end) {
  if (!direct_ || end <= kBlockBytes || end <= reserved_) return;
  reserved_ = size_ + kReserveBytes;
  static_cast<void>(
      ::fallocate(fd_.get(), 0, static_cast<off_t>(size_), kReserveBytes));  // only quicker
}

std::optional<Errno> OutputFile::Store(const std::byte* block, uint64_t offset, size_t size) {
  size_t done = 0;
  while (done < size) {
    // The end is stored up to the alignment; Complete cuts the file off.
    const bool direct = direct_;
    const size_t want =
        direct ? (size - done + kAlignment - 1) / kAlignment * kAlignment : size - done;
    const ssize_t n = ::pwrite(fd_.get(), block + done, want, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EINVAL && direct && SetDirect(fd_.get(), false)) {
      direct_ = false;
      continue;
    }
    if (n < 0) return Errno::Last("write " + name_);
    if (n == 0) return Errno{"write " + name_, EIO};
    done += static_cast<size_t>(n);
    // A short direct write may end anywhere; the rest goes through the cache.
    if (direct && done < size && done % kAlignment != 0 && SetDirect(fd_.get(), false))
      direct_ = false;
  }
  return std::nullopt;
}

std::optional<Errno> OutputFile::Complete() {
  if (opened_direct_) {
    SetDirect(fd_.get(), false);
    if (::ftruncate(fd_.get(), static_cast<off_t>(size_)) < 0)
      return Errno::Last("truncate " + name_);
  }
  if (durable_ && ::fdatasync(fd_.get()) < 0) return Errno::Last("sync " + name_);
  if (::close(fd_.Release()) < 0) return Errno::Last("close " + name_);
  return std::nullopt;
}

Result<std::unique_ptr<BlockWriter>> BlockWriter::Start(size_t memory_bytes, int threads,
                                                        std::function<void()> on_failure) {
  std::unique_ptr<BlockWriter> writer(new BlockWriter(memory_bytes, std::move(on_failure)));
  for (int i = 0; i < threads; i++) {
    const auto started = writer->threads_.Start([raw = writer.get()] { raw->Work(); });
    if (!started.ok()) return started.error();
  }
  return writer;
}

BlockWriter::BlockWriter(size_t memory_bytes, std::function<void()> on_failure)
    : blocks_(memory_bytes), on_failure_(std::move(on_failure)) {}

BlockWriter::~BlockWriter() {
  failed_ = true;  // nothing is worth storing any more
  static_cast<void>(Finish());
  for (const auto& file : files_) {
    if (file->block_ != nullptr) blocks_.Release(file->block_);
  }
}

Result<OutputFile*> BlockWriter::Create(int directory_fd, const std::string& name,
                                        FileOptions options) {
  UniqueFd fd(::openat(directory_fd, name.c_str(),
                       O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return Errno::Last("create " + name);
  return Take(std::move(fd), name, options);
}

OutputFile* BlockWriter::Take(UniqueFd fd, std::string name, FileOptions options) {
  std::unique_ptr<OutputFile> file(new OutputFile(*this, std::move(fd), std::move(name), options));
  const std::lock_guard lock(mutex_);
  return files_.emplace_back(std::move(file)).get();
}

Result<std::vector<FileDigest>> BlockWriter::Finish() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    queued_.notify_all();
  }
  threads_.Join();
  if (const auto failure = error()) return *failure;
  std::vector<FileDigest> digests;
  for (const auto& file : files_)
    digests.push_back({file->name_, file->size_, CombineLeaves(file->leaves_)});
  return digests;
}

void BlockWriter::Fail(Errno error) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) return;
    error_ = std::move(error);
    failed_ = true;
  }
  blocks_.Stop();
  on_failure_();
}

std::optional<Errno> BlockWriter::error() {
  const std::lock_guard lock(mutex_);
  return error_;
}

void BlockWriter::Enqueue(const Job& job) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back(job);
  queued_.notify_one();
}

void BlockWriter::Work() {
  while (true) {
    std::unique_lock lock(mutex_);
    queued_.wait(lock, [this] { return !jobs_.empty() || closing_; });
    if (jobs_.empty()) return;
    const Job job = jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    Do(job);
  }
}

void BlockWriter::Do(const Job& job) {
  if (job.block != nullptr) {
    if (!failed_ && job.size > 0) {
      const LeafDigest digest = DigestLeaf(job.block, job.size);
      if (auto error = job.file->Store(job.block, job.offset, job.size)) Fail(*std::move(error));
      written_ += job.size;
      const std::lock_guard lock(mutex_);
      auto& leaves = job.file->leaves_;
      leaves.resize(std::max<size_t>(leaves.size(), job.offset / kLeafBytes + 1));
      leaves[job.offset / kLeafBytes] = digest;
    }
    blocks_.Release(job.block);
  }
  if (job.file->pending_.fetch_sub(1) == 1 && !failed_) {
    if (auto error = job.file->Complete()) Fail(*std::move(error));
  }
}

}  // namespace cedana
