#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "base/result.h"
#include "stream/codec.h"
#include "stream/format.h"
#include "stream/threads.h"
#include "stream/writer.h"

namespace cedana {

// Packs a stream into a file: chunks are packed by several threads and written in order.
class Encoder {
 public:
  static Result<std::unique_ptr<Encoder>> Start(Format format, int level, int threads,
                                                OutputFile& out);
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
  ~Encoder();

  // Room for the next bytes, never empty; empty after a failure.
  std::span<std::byte> Space();
  void Commit(size_t size);
  bool Append(const void* data, size_t size);
  // Packs and writes what is left.
  Result<Unit> Finish();

 private:
  struct Chunk {
    std::string before;  // end of the chunk before this one
    std::unique_ptr<std::byte[]> content = std::make_unique<std::byte[]>(kChunkBytes);
    size_t size = 0;
    bool last = false;
    std::string packed;
    uint32_t checksum = 0;
    bool is_packed = false;
    bool failed = false;
  };

  Encoder(Format format, int level, OutputFile& out);
  void Work();
  void Submit(bool last);
  void WriteUntil(size_t chunks_left);

  const Format format_;
  const int level_;
  OutputFile& out_;
  std::unique_ptr<StreamFrame> frame_;
  size_t limit_ = 0;  // chunks under way
  bool failed_ = false;
  std::unique_ptr<Chunk> filling_;
  std::deque<std::unique_ptr<Chunk>> in_order_;
  std::vector<std::unique_ptr<Chunk>> idle_;

  std::mutex mutex_;
  std::condition_variable queued_;
  std::condition_variable packed_;
  std::deque<Chunk*> queue_;
  bool closing_ = false;
  ThreadGroup threads_;
};

}  // namespace cedana
