#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "stream/format.h"

namespace cedana {

using Bytes = std::span<const std::byte>;

// Packs one chunk of a stream after the other, on whichever thread; each thread has its own.
class ChunkCodec {
 public:
  virtual ~ChunkCodec() = default;
  // Appends the packed chunk to `out`. `before` is the end of the chunk before it (up to
  // kWindowBytes). Answers the chunk's own checksum where the stream needs one; false: no memory.
  virtual bool Pack(Bytes chunk, Bytes before, bool last, std::string& out, uint32_t& checksum) = 0;
};

// The frame around the packed chunks. Used by one thread, in order.
class StreamFrame {
 public:
  virtual ~StreamFrame() = default;
  virtual std::string Head() = 0;
  // Every chunk, in order, after it was packed.
  virtual void Add(Bytes chunk, uint32_t checksum) = 0;
  virtual std::string Tail() = 0;
};

constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr size_t kWindowBytes = size_t{32} << 10;  // of deflate

// Not for kTar, which packs nothing.
std::unique_ptr<ChunkCodec> MakeChunkCodec(Format format, int level);
std::unique_ptr<StreamFrame> MakeStreamFrame(Format format);

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

}  // namespace cedana
