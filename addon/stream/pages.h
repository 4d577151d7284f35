#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "stream/anonymous.h"
#include "stream/pagemap.h"
#include "stream/sink.h"

namespace cedana {

// CRIU's page server, in this process: takes the pages of a dump from a socket pair and makes
// images of them: files, written past the page cache, or parts of what a Packer makes; digested in
// passing.
//
//   CRIU ──splice──► socket ──recv──► block ──► digest, store     (one reader, several who store)
//
// The pages in the socket are still the target's own; they are copied once, by the reader, and CRIU
// lets the target go only after our answer to the last command. Everything after that is off the
// target's clock.
class PageServer {
 public:
  struct Options {
    std::shared_ptr<ImageSink> sink;
    unsigned criu_version = 0;
    bool drop_zero_pages = false;
    pid_t root_pid = 0;  // 0: unknown, then no page is dropped
  };
  struct Progress {
    uint64_t received;
    uint64_t written;
    uint64_t zero;
  };
  struct Outcome {
    std::vector<FileDigest> files;
    uint64_t received;
    uint64_t zero;
  };

  static Result<std::shared_ptr<PageServer>> Open(Options options, UniqueFd socket);
  PageServer(const PageServer&) = delete;
  PageServer& operator=(const PageServer&) = delete;
  ~PageServer();

  [[nodiscard]] Progress progress() const;
  // Memory for so much, before CRIU asks for it.
  void Prepare(uint64_t bytes);
  // Waits for CRIU's last command, and until all is stored. Once.
  Result<Outcome> Finish();
  // CRIU sees a broken connection and rolls back.
  void Abort();

 private:
  struct Command {
    uint32_t code;
    uint32_t flags;
    uint64_t pages;
    uint64_t address;
    uint64_t target;
  };
  // What CRIU sends between two OPENs: the memory of one process, or one shared memory segment.
  struct Stream {
    std::string pagemap_name;
    Pagemap pagemap;
    OutputFile* pages;
    AnonymousMemory droppable;
    uint64_t target;
  };

  PageServer(Options options, UniqueFd socket);
  // Buffers and descriptors go at the end of the capture, not when the garbage collector comes by.
  void Release();
  std::optional<Errno> Serve();
  std::optional<Errno> OpenStream(const Command& command);
  std::optional<Errno> CloseStream();
  std::optional<Errno> TakePages(const Command& command);
  void KeepPages(uint64_t address, std::span<std::byte> data, uint32_t flags);
  std::optional<Errno> Receive(std::span<std::byte> data, bool then_header);
  std::optional<Errno> Answer(const void* data, size_t size);
  [[nodiscard]] Command Header() const;

  Options options_;
  UniqueFd socket_;
  std::mutex ending_mutex_;        // between Finish() and Abort(), each on a thread of its own
  mutable std::mutex sink_mutex_;  // between those who look at the sink and Release()
  std::shared_ptr<ImageSink> sink_;
  uint64_t written_ = 0;  // when there is no sink any more
  std::byte header_[32];
  const size_t header_bytes_;
  uint32_t streams_ = 0;
  std::optional<Stream> stream_;
  std::atomic<uint64_t> received_ = 0;
  std::atomic<uint64_t> zero_ = 0;
  ThreadGroup reader_;
};

void InitPages(Napi::Env env, Napi::Object exports);

}  // namespace cedana
