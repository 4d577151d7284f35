#include "stream/writer.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace cedana {

namespace {

constexpr size_t kAlignment = 4096;  // of O_DIRECT; an exotic device that wants more answers EINVAL
constexpr uint64_t kReserveBytes = uint64_t{256} << 20;
constexpr int kSpillers = 2;
constexpr size_t kPressed = 8;  // blocks left when spilling begins

bool SetDirect(int fd, bool on) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && ::fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

// All of it; `direct` is given up where the file system cannot.
std::optional<Errno> WriteAt(int fd, const std::byte* data, size_t size, uint64_t offset,
                             std::atomic<bool>& direct, const std::string& op) {
  size_t done = 0;
  while (done < size) {
    // The end is stored up to the alignment; whoever completes the file cuts it off.
    const bool is_direct = direct;
    const size_t want =
        is_direct ? (size - done + kAlignment - 1) / kAlignment * kAlignment : size - done;
    const ssize_t n = ::pwrite(fd, data + done, want, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EINVAL && is_direct && SetDirect(fd, false)) {
      direct = false;
      continue;
    }
    if (n < 0) return Errno::Last(op);
    if (n == 0) return Errno{op, EIO};
    done += static_cast<size_t>(n);
    // A short direct write may end anywhere; the rest goes through the cache.
    if (is_direct && done < size && done % kAlignment != 0 && SetDirect(fd, false)) direct = false;
  }
  return std::nullopt;
}

}  // namespace

OutputFile::OutputFile(BlockWriter& writer, std::string name)
    : name_(std::move(name)), writer_(writer) {}

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

bool OutputFile::Append(const void* data, size_t size) {
  const auto* from = static_cast<const std::byte*>(data);
  while (size > 0) {
    const std::span<std::byte> space = Space();
    if (space.empty()) return false;
    const size_t n = std::min(size, space.size());
    std::memcpy(space.data(), from, n);
    Commit(n);
    from += n;
    size -= n;
  }
  return true;
}

void OutputFile::Close() { Submit(true); }

bool OutputFile::Submit(bool last) {
  // The last part takes over the filler's share, so that whoever finishes last completes the file.
  if (!last) pending_++;
  if (filled_ > 0) Prepare(size_, filled_);
  const Part part{std::exchange(block_, nullptr), size_, std::exchange(filled_, 0), last, 0};
  size_ += part.size;
  BlockWriter& writer = writer_;
  writer.Enqueue(this, part);  // with the last part the file is the threads'
  return !writer.failed_;
}

DiskFile::DiskFile(BlockWriter& writer, UniqueFd fd, std::string name, Options options)
    : OutputFile(writer, std::move(name)),
      fd_(std::move(fd)),
      durable_(options.durable),
      begin_(options.offset),
      direct_(options.direct && SetDirect(fd_.get(), true)),
      opened_direct_(direct_) {}

void DiskFile::Patch(uint64_t offset, std::string bytes) {
  patches_.emplace_back(offset, std::move(bytes));
}

// A direct write behind the end of the file has it to itself; inside, several go on at once.
void DiskFile::Prepare(uint64_t offset, size_t size) {
  const uint64_t end = offset + size;
  if (!direct_ || end <= kBlockBytes || end <= reserved_) return;
  // Not where somebody might miss it meanwhile.
  struct statvfs disk {};
  const bool has_room =
      ::fstatvfs(fd_.get(), &disk) == 0 && disk.f_bavail > 4 * kReserveBytes / disk.f_frsize;
  reserved_ = has_room ? offset + kReserveBytes : std::numeric_limits<uint64_t>::max();
  if (!has_room) return;
  static_cast<void>(::fallocate(fd_.get(), 0, static_cast<off_t>(begin_ + offset),
                                kReserveBytes));  // only quicker
}

std::optional<Errno> DiskFile::Store(const Part& part) {
  return WriteAt(fd_.get(), part.block, part.size, begin_ + part.offset, direct_, "write " + name_);
}

std::optional<Errno> DiskFile::Complete() {
  if (opened_direct_) {
    SetDirect(fd_.get(), false);
    if (::ftruncate(fd_.get(), static_cast<off_t>(begin_ + size_)) < 0)
      return Errno::Last("truncate " + name_);
  }
  std::atomic<bool> direct = false;
  for (const auto& [offset, bytes] : patches_) {
    const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
    if (auto error =
            WriteAt(fd_.get(), data, bytes.size(), begin_ + offset, direct, "write " + name_))
      return error;
  }
  if (durable_ && ::fdatasync(fd_.get()) < 0) return Errno::Last("sync " + name_);
  if (::close(fd_.Release()) < 0) return Errno::Last("close " + name_);
  return std::nullopt;
}

Result<std::unique_ptr<BlockWriter>> BlockWriter::Start(Options options) {
  const int threads = options.threads;
  std::unique_ptr<BlockWriter> writer(new BlockWriter(std::move(options)));
  for (int i = 0; i < threads; i++) {
    const auto started = writer->threads_.Start([raw = writer.get()] { raw->Work(); });
    if (!started.ok()) return started.error();
  }
  for (int i = 0; writer->spill_fd_.valid() && i < kSpillers; i++) {
    const auto started = writer->threads_.Start([raw = writer.get()] { raw->Spill(); });
    if (!started.ok()) return started.error();
  }
  return writer;
}

BlockWriter::BlockWriter(Options options)
    : niceness_(options.niceness),
      blocks_(options.memory_bytes),
      patient_(options.patient),
      spill_fd_(std::move(options.spill)) {}

BlockWriter::~BlockWriter() {
  failed_ = true;  // nothing is worth storing any more
  static_cast<void>(Finish());
  for (const auto& file : files_) {
    if (file->block_ != nullptr) blocks_.Release(file->block_);
  }
}

Result<OutputFile*> BlockWriter::Create(int directory_fd, const std::string& name,
                                        DiskFile::Options options) {
  UniqueFd fd(::openat(directory_fd, name.c_str(),
                       O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return Errno::Last("create " + name);
  return Add(std::make_unique<DiskFile>(*this, std::move(fd), name, options));
}

OutputFile* BlockWriter::Add(std::unique_ptr<OutputFile> file) {
  const std::lock_guard lock(mutex_);
  return files_.emplace_back(std::move(file)).get();
}

Result<std::vector<FileDigest>> BlockWriter::Drain() {
  Go();
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return jobs_.empty() && busy_ == 0; });
  if (error_) return *error_;
  std::vector<FileDigest> digests;
  for (const auto& file : files_)
    digests.push_back({file->name_, file->size_, CombineLeaves(file->leaves_)});
  if (!failed_) files_.clear();
  return digests;
}

Result<std::vector<FileDigest>> BlockWriter::Finish() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    queued_.notify_all();
    pressed_.notify_all();
  }
  threads_.Join();
  auto files = Drain();
  blocks_.Trim();
  const std::lock_guard lock(mutex_);
  spill_fd_.Reset();
  for (const auto& file : files_) file->Abandon();  // of a success none is left
  return files;
}

void BlockWriter::Fail(Errno error) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) return;
    error_ = std::move(error);
    failed_ = true;
  }
  blocks_.Stop();
  Go();
  const std::lock_guard lock(failure_mutex_);
  if (on_failure_) on_failure_();
}

void BlockWriter::OnFailure(std::function<void()> callback) {
  const std::lock_guard lock(failure_mutex_);
  on_failure_ = std::move(callback);
  if (failed_ && on_failure_) on_failure_();
}

std::optional<Errno> BlockWriter::error() {
  const std::lock_guard lock(mutex_);
  return error_;
}

void BlockWriter::Enqueue(OutputFile* file, OutputFile::Part part) {
  const std::lock_guard lock(mutex_);
  if (failed_) {  // those who store may have gone
    if (part.block != nullptr) blocks_.Release(part.block);
    return;
  }
  part.ticket = tickets_++;
  jobs_.push_back({file, part});
  queued_.notify_one();
  pressed_.notify_one();
}

void BlockWriter::Work() {
  if (niceness_ != 0) ::setpriority(PRIO_PROCESS, 0, niceness_);  // of this thread
  UniqueBlock loaded;  // what was spilled comes back into memory of the thread's own
  std::unique_lock lock(mutex_);
  while (true) {
    queued_.wait(lock, [this] { return jobs_.empty() ? closing_ : MayWork(); });
    if (jobs_.empty()) return;
    Job job = jobs_.front();
    jobs_.pop_front();
    busy_++;
    lock.unlock();
    if (job.state == Job::kSpilled && !failed_) {
      if (!loaded) loaded = MakeBlock();
      if (auto error = Load(job, loaded.get())) Fail(*std::move(error));
    }
    Do(job);
    lock.lock();
    busy_--;
    if (jobs_.empty() && busy_ == 0) idle_.notify_all();
  }
}

bool BlockWriter::MayWork() {
  if (jobs_.front().state == Job::kSpilling) return false;
  if (!patient_ || closing_ || failed_) return true;
  const bool has_spill = spill_fd_.valid() && !spill_failed_;
  return !has_spill && blocks_.available() < kPressed;
}

void BlockWriter::Go() {
  const std::lock_guard lock(mutex_);
  patient_ = false;
  queued_.notify_all();
}

void BlockWriter::Do(const Job& job) {
  const OutputFile::Part& part = job.part;
  if (!failed_) {
    std::optional<LeafDigest> digest;
    if (part.size > 0) digest = DigestLeaf(part.block, part.size);
    if (auto error = job.file->Store(part)) Fail(*std::move(error));
    written_ += part.size;
    if (digest) {
      const std::lock_guard lock(mutex_);
      auto& leaves = job.file->leaves_;
      leaves.resize(std::max<size_t>(leaves.size(), part.offset / kLeafBytes + 1));
      leaves[part.offset / kLeafBytes] = *digest;
    }
  }
  if (part.block != nullptr && job.state == Job::kReady) blocks_.Release(part.block);
  if (job.file->pending_.fetch_sub(1) == 1 && !failed_) {
    if (auto error = job.file->Complete()) Fail(*std::move(error));
  }
}

std::optional<Errno> BlockWriter::Load(Job& job, std::byte* block) {
  if (block == nullptr) return Errno{"mmap", ENOMEM};
  job.part.block = block;
  const size_t size = (job.part.size + kAlignment - 1) / kAlignment * kAlignment;
  for (size_t done = 0; done < job.part.size;) {
    const ssize_t n = ::pread(spill_fd_.get(), block + done, size - done,
                              static_cast<off_t>(job.spilled_at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Errno::Last("read spilled pages");
    if (n == 0) return Errno{"read spilled pages", EIO};
    done += static_cast<size_t>(n);
  }
  return std::nullopt;
}

// While memory is short: the blocks that will be wanted last go to a file.
void BlockWriter::Spill() {
  std::atomic<bool> direct = SetDirect(spill_fd_.get(), true);
  std::unique_lock lock(mutex_);
  while (true) {
    Job* job = nullptr;
    pressed_.wait(lock, [&] {
      job = NextToSpill();
      return job != nullptr || closing_ || failed_ || spill_failed_;
    });
    if (job == nullptr) return;
    job->state = Job::kSpilling;
    job->spilled_at = spilled_.fetch_add(kBlockBytes);
    lock.unlock();
    const auto error = WriteAt(spill_fd_.get(), job->part.block, job->part.size, job->spilled_at,
                               direct, "spill pages");
    if (!error) blocks_.Release(job->part.block);
    lock.lock();
    // A disk that is full is no failure: from now on who fills blocks has to wait.
    spill_failed_ = spill_failed_ || error;
    job->state = error ? Job::kReady : Job::kSpilled;
    queued_.notify_all();
  }
}

BlockWriter::Job* BlockWriter::NextToSpill() {
  if (failed_ || spill_failed_ || blocks_.available() >= kPressed) return nullptr;
  const auto found = std::find_if(jobs_.rbegin(), jobs_.rend(), [](const Job& job) {
    return job.state == Job::kReady && job.part.block != nullptr;
  });
  return found == jobs_.rend() ? nullptr : &*found;
}

}  // namespace cedana
