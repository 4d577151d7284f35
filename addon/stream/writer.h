#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "stream/blocks.h"
#include "stream/checksum.h"
#include "stream/threads.h"

namespace cedana {

class BlockWriter;

struct FileOptions {
  bool direct = false;   // past the page cache, where the file system can
  bool durable = false;  // synced before it counts as finished
};

// A file written front to back: one thread fills blocks, the threads of the writer store them.
class OutputFile {
 public:
  // Free part of the current block, never empty; empty once the writer has failed.
  std::span<std::byte> Space();
  // The first `size` bytes of Space() are content now.
  void Commit(size_t size);
  // False once the writer has failed.
  bool Append(const std::byte* data, size_t size);
  // The content is complete. Later failures show in BlockWriter::Finish.
  void Close();

 private:
  friend class BlockWriter;
  OutputFile(BlockWriter& writer, UniqueFd fd, std::string name, FileOptions options);

  bool Submit(bool last);
  void Reserve(uint64_t end);
  std::optional<Errno> Store(const std::byte* block, uint64_t offset, size_t size);
  std::optional<Errno> Complete();

  BlockWriter& writer_;
  UniqueFd fd_;
  const std::string name_;
  const bool durable_;
  std::atomic<bool> direct_;
  const bool opened_direct_;
  std::byte* block_ = nullptr;
  size_t filled_ = 0;
  uint64_t size_ = 0;      // handed to the threads, and `filled_` less than the content
  uint64_t reserved_ = 0;  // allocated ahead
  // The filler's share while it may add blocks, plus one for each block on its way.
  std::atomic<int> pending_ = 1;
  std::vector<LeafDigest> leaves_;  // guarded by the writer's mutex
};

// Threads that digest and store the blocks of any number of files, and the buffers between.
class BlockWriter {
 public:
  // `on_failure` runs once, on the thread that failed. Blocks of memory are limited, two at least.
  static Result<std::unique_ptr<BlockWriter>> Start(size_t memory_bytes, int threads,
                                                    std::function<void()> on_failure);
  BlockWriter(const BlockWriter&) = delete;
  BlockWriter& operator=(const BlockWriter&) = delete;
  ~BlockWriter();

  // Creates `name` (O_EXCL), or takes over an open regular file to be filled from its start.
  Result<OutputFile*> Create(int directory_fd, const std::string& name, FileOptions options);
  OutputFile* Take(UniqueFd fd, std::string name, FileOptions options);

  // After the last Close: waits until all is stored. The files in the order of Create and Take.
  Result<std::vector<FileDigest>> Finish();
  // The first error counts; what is not stored yet is dropped.
  void Fail(Errno error);

  [[nodiscard]] uint64_t written() const { return written_; }
  [[nodiscard]] std::optional<Errno> error();

 private:
  friend class OutputFile;
  struct Job {
    OutputFile* file;
    std::byte* block;  // nullptr: nothing but the end of the file
    uint64_t offset;
    size_t size;
  };

  BlockWriter(size_t memory_bytes, std::function<void()> on_failure);
  void Work();
  void Do(const Job& job);
  void Enqueue(const Job& job);

  BlockPool blocks_;
  const std::function<void()> on_failure_;
  std::atomic<uint64_t> written_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  std::condition_variable queued_;
  std::deque<Job> jobs_;
  bool closing_ = false;
  std::optional<Errno> error_;
  std::deque<std::unique_ptr<OutputFile>> files_;
  ThreadGroup threads_;
};

}  // namespace cedana
