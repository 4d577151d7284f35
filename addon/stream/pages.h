#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "stream/anonymous.h"
#include "stream/memory-reader.h"
#include "stream/page-socket.h"
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
//
// What was read ahead is not copied out of the socket. As soon as there is some of it, all waits in
// memory for the last command, and is put in order afterwards.
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
    uint64_t ahead;  // of what was received: read by ourselves
  };

  static Result<std::shared_ptr<PageServer>> Open(Options options, UniqueFd socket);
  PageServer(const PageServer&) = delete;
  PageServer& operator=(const PageServer&) = delete;
  ~PageServer();

  [[nodiscard]] Progress progress() const;
  // Memory for so much, before CRIU asks for it.
  void Prepare(uint64_t bytes);
  // CRIU has stopped the tree, has changed nothing in it, and waits: memory is read from now on, as
  // much as fits. Once.
  void ReadAhead();
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
  // A run of pages that waits for the end.
  struct Captured {
    MemoryReader::Span span;
    uint32_t flags;
  };
  // What CRIU sends between two OPENs: the memory of one process, or one shared memory segment.
  struct Stream {
    std::string pagemap_name;
    Pagemap pagemap;
    OutputFile* pages;
    AnonymousMemory droppable;
    uint64_t target;
    std::vector<MemoryReader::Span> ahead = {};
    size_t next_ahead = 0;
    std::deque<Captured> captured = {};
  };

  PageServer(Options options, UniqueFd socket);
  // Buffers and descriptors go at the end of the capture, not when the garbage collector comes by.
  void Release();
  void DropCaptured();
  std::optional<Errno> Serve();
  std::optional<Errno> OpenStream(const Command& command);
  std::optional<Errno> CloseStream();
  std::optional<Errno> TakePages(const Command& command);
  std::optional<Errno> Skip(MemoryReader::Span span, uint32_t flags);
  std::optional<Errno> Capture(uint64_t address, uint64_t pages, uint32_t flags);
  std::optional<Errno> Store(uint64_t address, uint64_t pages, uint32_t flags);
  std::optional<Errno> Settle();
  std::optional<Errno> SettleStream(Stream& stream);
  void KeepPages(Stream& stream, uint64_t address, std::span<std::byte> data, uint32_t flags);
  std::optional<Errno> WritePagemap(Stream& stream);
  Result<Command> NextCommand();

  Options options_;
  std::unique_ptr<PageSocket> socket_;
  std::mutex ending_mutex_;        // between Finish() and Abort(), each on a thread of its own
  mutable std::mutex sink_mutex_;  // between those who look at the sink and Release()
  std::shared_ptr<ImageSink> sink_;
  uint64_t written_ = 0;     // when there is no sink any more
  std::mutex reader_mutex_;  // between ReadAhead() and Serve()
  std::unique_ptr<MemoryReader> memory_reader_;
  bool is_served_ = false;
  const size_t header_bytes_;
  uint32_t opened_ = 0;
  std::deque<Stream> streams_;  // the last one is open, those before wait
  bool is_waiting_ = false;     // something is captured, so that all that comes has to be
  std::shared_ptr<HeldBlock> capturing_;
  size_t capturing_filled_ = kBlockBytes;
  std::atomic<uint64_t> received_ = 0;
  std::atomic<uint64_t> zero_ = 0;
  std::atomic<uint64_t> ahead_ = 0;
  ThreadGroup reader_;
};

void InitPages(Napi::Env env, Napi::Object exports);

}  // namespace cedana
