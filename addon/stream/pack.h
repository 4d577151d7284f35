#pragma once

#include <napi.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "stream/codec.h"
#include "stream/sink.h"
#include "stream/tar.h"
#include "stream/writer.h"

namespace cedana {

// Packs images while they come, into one archive or into shards.
//
//   filler ──block──► digest, pack (any thread) ──packed──► in its turn, or to the smallest shard
//                     ──block──► direct write
//
// An archive is a tar of the images. A shard is a tar of pieces, each named NAME@OFFSET (hex), at
// most kLeafBytes long and at a multiple of that: pieces of pages and ghost files go to any shard
// in any order, all others to the first.
class Packer final : public ImageSink {
 public:
  struct Options {
    Format format = Format::kTar;
    int level = 0;
    int threads = 1;
    size_t memory_bytes = 0;  // of everything here
    // The machine has better things to do than pack: whoever fills is not to wait for it.
    bool background = false;
    UniqueFd spill;  // as of a BlockWriter
    bool sharded = false;
    uint64_t offset = 0;  // where in the outputs it begins, as of a DiskFile
  };
  struct Progress {
    uint64_t packed;   // content
    uint64_t written;  // to the outputs
    uint64_t spilled;
  };

  static Result<std::shared_ptr<Packer>> Open(Options options, std::vector<UniqueFd> outputs);
  ~Packer() override;

  Result<OutputFile*> CreatePages(const std::string& name) override;
  Result<OutputFile*> CreateImage(const std::string& name) override;
  // A regular file of a directory, as an image. `folder` (of an archive only): empty, or what goes
  // before its name, with a slash at its end.
  std::optional<Errno> AddFile(int directory_fd, const std::string& name,
                               const std::string& folder);
  // A directory of an archive, with a slash at its end.
  std::optional<Errno> AddFolder(const std::string& folder);
  void Prepare(uint64_t bytes) override { packing_->Prepare(bytes); }
  void Go() override { packing_->Go(); }
  [[nodiscard]] BlockPool& blocks() override { return packing_->blocks(); }
  Result<std::vector<FileDigest>> Drain() override;
  // Ends the outputs and makes them durable. Once.
  Result<std::vector<FileDigest>> Finish();
  // Fails whatever is going on, and waits until it has ended.
  void Abort();
  void Fail(Errno error) override;
  void OnFailure(std::function<void()> callback) override;
  [[nodiscard]] std::optional<Errno> error() override;
  [[nodiscard]] uint64_t written() const override { return packing_->written(); }
  [[nodiscard]] Progress progress() const;

 private:
  class Image;
  struct Packed {
    std::string bytes;
    std::vector<Chunk> chunks;
  };
  // A thread's own.
  struct Tools {
    std::unique_ptr<ChunkCodec> codec;
    Packed packed;
  };
  struct Output {
    DiskFile* file;
    std::mutex mutex;
    uint64_t size = 0;
    std::vector<Chunk> chunks;
  };
  // Of a header that is not known yet.
  struct Slot {
    uint64_t offset;
    size_t chunk;
  };

  explicit Packer(Options options);
  Result<OutputFile*> Create(const std::string& name, bool is_bulk, const std::string& folder);
  std::unique_ptr<Tools> TakeTools();
  void GiveTools(std::unique_ptr<Tools> tools);
  std::optional<Errno> Pack(Bytes content, Tools& tools);
  static void Keep(Bytes content, ChunkCodec& codec, Packed& packed);
  bool Append(Output& output, const Packed& packed);
  bool AppendToShard(const Packed& packed, bool is_bulk);
  // False when everything failed meanwhile.
  bool AwaitTurn(uint64_t ticket);
  void EndTurn();
  Slot ReserveHeader(ChunkCodec& codec);
  void KeepHeader(Slot slot, const TarBlock& header);
  [[nodiscard]] Errno Stuck();

  const Options options_;
  std::deque<Output> outputs_;
  std::unique_ptr<BlockWriter> storing_;

  std::mutex turn_mutex_;
  std::condition_variable turned_;
  uint64_t turn_ = 0;
  std::vector<std::pair<Slot, Packed>> headers_;  // of the archive, as they become known

  std::mutex tools_mutex_;
  std::vector<std::unique_ptr<Tools>> idle_tools_;

  std::mutex failure_mutex_;
  std::function<void()> on_failure_;

  std::unique_ptr<BlockWriter> packing_;  // last: its threads use all of the above
};

void InitPack(Napi::Env env, Napi::Object exports);

}  // namespace cedana
