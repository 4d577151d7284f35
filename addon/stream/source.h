#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>

#include "base/fd.h"
#include "base/result.h"
#include "stream/checksum.h"
#include "stream/codec.h"
#include "stream/format.h"

namespace cedana {

// A part of a file, as far as the file goes.
struct Range {
  uint64_t offset = 0;
  uint64_t size = std::numeric_limits<uint64_t>::max();
};

// The unpacked content of a file, front to back. A cut or changed stream is EBADMSG.
class Source {
 public:
  // With `digest`, the file itself is digested in passing.
  static Result<std::unique_ptr<Source>> Open(UniqueFd fd, Format format, bool digest,
                                              Range range = {});

  // Some bytes; 0 only at the end of a complete stream.
  Result<size_t> Read(std::span<std::byte> out);
  // All of it; an end before is EBADMSG.
  std::optional<Errno> ReadAll(std::span<std::byte> out);
  // Without a digest, what need not be unpacked for it is not looked at.
  std::optional<Errno> Skip(uint64_t size);

  // Of the file itself.
  [[nodiscard]] uint64_t consumed() const { return position_ - begin_; }
  // Where in the file the next byte is, of a plain tar.
  [[nodiscard]] uint64_t offset() const { return position_ - buffered_.size(); }
  // Of all of it, when it was opened so and read to the end.
  [[nodiscard]] FileDigest Digest() const { return {{}, consumed(), hasher_->Finish()}; }

 private:
  Source(UniqueFd fd, Format format, Range range, bool digest);
  std::optional<Errno> Fill();
  // The next bytes, as far as there are so many; they stay.
  Result<Bytes> Peek(size_t size, std::span<std::byte> room);
  std::optional<Errno> Leap(uint64_t size);
  Result<uint64_t> SkipFrames(uint64_t size);
  [[nodiscard]] Errno Bad(const char* what) const;

  const UniqueFd fd_;
  const Format format_;
  const uint64_t begin_;
  const uint64_t end_;
  uint64_t position_;  // in the file, behind buffered_
  const std::unique_ptr<StreamDecoder> decoder_;
  const std::unique_ptr<std::byte[]> buffer_;
  Bytes buffered_;
  const std::unique_ptr<FileHasher> hasher_;  // where a digest is wanted
};

}  // namespace cedana
