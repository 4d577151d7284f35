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
#include <utility>
#include <vector>

#include "base/fd.h"
#include "stream/blocks.h"
#include "stream/checksum.h"
#include "stream/threads.h"

namespace cedana {

class BlockWriter;

// A file written front to back: one thread fills blocks, the threads of the writer store them.
class OutputFile {
 public:
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  virtual ~OutputFile() = default;

  // Free part of the current block, never empty; empty once the writer has failed.
  std::span<std::byte> Space();
  // The first `size` bytes of Space() are content now.
  void Commit(size_t size);
  // False once the writer has failed.
  bool Append(const void* data, size_t size);
  // The content is complete. Later failures show in BlockWriter::Finish.
  void Close();

 protected:
  // A full block, or the last one, which may be empty; `ticket` counts all of a writer, in order.
  struct Part {
    std::byte* block;
    uint64_t offset;
    size_t size;
    bool last;
    uint64_t ticket;
  };

  OutputFile(BlockWriter& writer, std::string name);
  // On the filling thread, before a part goes to the others.
  virtual void Prepare(uint64_t /*offset*/, size_t /*size*/) {}
  // On any thread, several parts at once, each begun after the one before. The block has room up to
  // kBlockBytes.
  virtual std::optional<Errno> Store(const Part& part) = 0;
  // When all is stored.
  virtual std::optional<Errno> Complete() = 0;
  // Instead, when something failed and nobody stores any more.
  virtual void Abandon() {}

  const std::string name_;
  uint64_t size_ = 0;  // handed to the threads, and `filled_` less than the content

 private:
  friend class BlockWriter;
  bool Submit(bool last);

  BlockWriter& writer_;
  std::byte* block_ = nullptr;
  size_t filled_ = 0;
  // The filler's share while it may add blocks, plus one for each block on its way.
  std::atomic<int> pending_ = 1;
  std::vector<LeafDigest> leaves_;  // guarded by the writer's mutex
};

// An OutputFile that is a file.
class DiskFile final : public OutputFile {
 public:
  struct Options {
    bool direct = false;   // past the page cache, where the file system can
    bool durable = false;  // synced before it counts as finished
    uint64_t offset = 0;   // where in the file it begins, a multiple of its blocks
  };
  DiskFile(BlockWriter& writer, UniqueFd fd, std::string name, Options options);

  // Changes bytes of what was appended, when the rest is stored. Their digest is of what was
  // before.
  void Patch(uint64_t offset, std::string bytes);

 private:
  void Prepare(uint64_t offset, size_t size) override;
  std::optional<Errno> Store(const Part& part) override;
  std::optional<Errno> Complete() override;
  void Abandon() override { fd_.Reset(); }

  UniqueFd fd_;
  const bool durable_;
  const uint64_t begin_;
  std::atomic<bool> direct_;
  const bool opened_direct_;
  uint64_t reserved_ = 0;  // allocated ahead
  std::vector<std::pair<uint64_t, std::string>> patches_;
};

// Threads that digest and store the blocks of any number of files, and the buffers between.
class BlockWriter {
 public:
  struct Options {
    size_t memory_bytes = 0;  // of blocks, two at least
    int threads = 1;
    int niceness = 0;  // of the threads
    // Nothing is stored before Go() as long as there is memory: whoever fills has the machine.
    bool patient = false;
    // Where blocks wait while memory is short; without it, who fills them waits.
    UniqueFd spill = {};
  };

  static Result<std::unique_ptr<BlockWriter>> Start(Options options);
  BlockWriter(const BlockWriter&) = delete;
  BlockWriter& operator=(const BlockWriter&) = delete;
  ~BlockWriter();

  // Creates `name` (O_EXCL), or adds any other file to be filled from its start.
  Result<OutputFile*> Create(int directory_fd, const std::string& name, DiskFile::Options options);
  OutputFile* Add(std::unique_ptr<OutputFile> file);

  // Memory for so much content, touched. On any thread.
  void Prepare(uint64_t bytes) { blocks_.Prepare(bytes / kBlockBytes + 1); }
  // Ends the patience.
  void Go();
  // After the last Close: waits until all is stored. The files since the last time, in their order.
  Result<std::vector<FileDigest>> Drain();
  // The same, for the last time: memory is given back. More than once, and by several threads.
  Result<std::vector<FileDigest>> Finish();
  // The first error counts; what is not stored yet is dropped.
  void Fail(Errno error);
  // Runs once, on the thread that failed, or at once when that has happened. An empty one takes the
  // former back, and waits for it if it is running.
  void OnFailure(std::function<void()> callback);

  // Those of its files come from here.
  [[nodiscard]] BlockPool& blocks() { return blocks_; }
  [[nodiscard]] uint64_t written() const { return written_; }
  [[nodiscard]] uint64_t spilled() const { return spilled_; }
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] std::optional<Errno> error();

 private:
  friend class OutputFile;
  struct Job {
    OutputFile* file;
    OutputFile::Part part;
    enum { kReady, kSpilling, kSpilled } state = kReady;
    uint64_t spilled_at = 0;
  };

  explicit BlockWriter(Options options);
  void Work();
  void Do(const Job& job);
  std::optional<Errno> Load(Job& job, std::byte* block);
  void Enqueue(OutputFile* file, OutputFile::Part part);
  [[nodiscard]] bool MayWork();
  void Spill();
  Job* NextToSpill();

  const int niceness_;
  BlockPool blocks_;
  std::atomic<uint64_t> written_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex failure_mutex_;
  std::function<void()> on_failure_;

  std::mutex mutex_;
  std::condition_variable queued_;
  std::condition_variable idle_;
  std::deque<Job> jobs_;
  uint64_t tickets_ = 0;
  int busy_ = 0;
  bool patient_;
  bool closing_ = false;
  std::optional<Errno> error_;
  std::deque<std::unique_ptr<OutputFile>> files_;

  UniqueFd spill_fd_;
  std::condition_variable pressed_;
  std::atomic<uint64_t> spilled_ = 0;
  bool spill_failed_ = false;

  ThreadGroup threads_;
};

}  // namespace cedana
