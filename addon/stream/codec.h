#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "stream/format.h"

namespace cedana {

using Bytes = std::span<const std::byte>;

// How a part of a stream counts in its frame.
struct Chunk {
  uint64_t size;      // unpacked
  uint32_t checksum;  // for formats with one of the whole stream
};

// Packs a stream piece by piece. A packed chunk does not depend on those before: chunks can be
// packed on any thread (each with a codec of its own), and be put together in any order.
class ChunkCodec {
 public:
  virtual ~ChunkCodec() = default;
  // Appends the packed chunk, of at most kChunkBytes, to `out`; none: no memory.
  virtual std::optional<Chunk> Pack(Bytes chunk, std::string& out) = 0;
  // Appends it as it is: its packed size depends on its size only. At most kStoredBytes.
  virtual Chunk Keep(Bytes chunk, std::string& out) = 0;
};

constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr size_t kStoredBytes = size_t{32} << 10;

std::unique_ptr<ChunkCodec> MakeChunkCodec(Format format, int level);

// What stands around the packed chunks of a stream.
std::string StreamHead(Format format);
std::string StreamTail(Format format, const std::vector<Chunk>& chunks);

// Unpacks a whole stream: strict, so that neither a cut nor a changed byte goes unnoticed.
class StreamDecoder {
 public:
  struct Step {
    size_t consumed = 0;
    size_t produced = 0;
    bool bad = false;
  };
  virtual ~StreamDecoder() = default;
  virtual Step Decode(Bytes in, std::span<std::byte> out) = 0;
  // Between two frames, or after the last one.
  [[nodiscard]] virtual bool AtBoundary() const = 0;
};

std::unique_ptr<StreamDecoder> MakeStreamDecoder(Format format);

// What can be told of a frame without unpacking it.
struct FrameHead {
  size_t size;        // of the head
  uint64_t content;   // unpacked
  size_t block_head;  // before each block
  size_t block_tail;  // behind each that has content
  size_t tail;        // behind them all
};
// `in` begins at a boundary. None: it is not told, or cannot be.
std::optional<FrameHead> ReadFrameHead(Format format, Bytes in);
constexpr size_t kMaxFrameHead = 18;
struct BlockHead {
  size_t size;  // without it
  bool is_last;
};
// `in` is as long as its frame says.
BlockHead ReadBlockHead(Format format, Bytes in);

}  // namespace cedana
