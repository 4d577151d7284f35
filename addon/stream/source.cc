#include "stream/source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

namespace cedana {

namespace {

constexpr size_t kBufferBytes = size_t{256} << 10;

}  // namespace

Result<std::unique_ptr<Source>> Source::Open(UniqueFd fd, Format format, bool digest, Range range) {
  struct stat info {};
  if (::fstat(fd.get(), &info) < 0) return Errno::Last("stat archive");
  static_cast<void>(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL));
  range.offset = std::min(range.offset, static_cast<uint64_t>(info.st_size));
  range.size = std::min(range.size, static_cast<uint64_t>(info.st_size) - range.offset);
  return std::unique_ptr<Source>(new Source(std::move(fd), format, range, digest));
}

Source::Source(UniqueFd fd, Format format, Range range, bool digest)
    : fd_(std::move(fd)),
      format_(format),
      begin_(range.offset),
      end_(range.offset + range.size),
      position_(range.offset),
      decoder_(MakeStreamDecoder(format)),
      buffer_(new std::byte[kBufferBytes]),
      hasher_(digest ? std::make_unique<FileHasher>() : nullptr) {}

Result<size_t> Source::Read(std::span<std::byte> out) {
  while (!out.empty()) {
    const bool is_boundary = decoder_->AtBoundary();
    if (buffered_.empty()) {
      if (auto error = Fill()) return *error;
      if (buffered_.empty() && is_boundary) return size_t{0};
    }
    const bool is_end = buffered_.empty();
    const StreamDecoder::Step step = decoder_->Decode(buffered_, out);
    buffered_ = buffered_.subspan(step.consumed);
    if (step.bad) return Bad(is_boundary ? "data after the end" : "corrupt");
    if (step.produced > 0) return step.produced;
    if (step.consumed == 0 && !decoder_->AtBoundary()) return Bad(is_end ? "cut off" : "corrupt");
  }
  return size_t{0};
}

std::optional<Errno> Source::ReadAll(std::span<std::byte> out) {
  while (!out.empty()) {
    const auto n = Read(out);
    if (!n.ok()) return n.error();
    if (n.value() == 0) return Bad("cut off");
    out = out.subspan(n.value());
  }
  return std::nullopt;
}

std::optional<Errno> Source::Skip(uint64_t size) {
  if (format_ == Format::kTar && !hasher_) return Leap(size);
  const std::unique_ptr<std::byte[]> scrap(size > 0 ? new std::byte[kBufferBytes] : nullptr);
  while (size > 0) {
    const auto skipped = SkipFrames(size);
    if (!skipped.ok()) return skipped.error();
    size -= skipped.value();
    const size_t n = std::min<uint64_t>(size, kBufferBytes);
    if (n == 0) break;
    const auto read = Read({scrap.get(), n});  // to the end of a frame at most
    if (!read.ok()) return read.error();
    if (read.value() == 0) return Bad("cut off");
    size -= read.value();
  }
  return std::nullopt;
}

std::optional<Errno> Source::Leap(uint64_t size) {
  if (size > end_ - offset()) return Bad("cut off");
  const uint64_t ahead = std::min<uint64_t>(size, buffered_.size());
  buffered_ = buffered_.subspan(ahead);
  position_ += size - ahead;
  return std::nullopt;
}

Result<Bytes> Source::Peek(size_t size, std::span<std::byte> room) {
  if (buffered_.size() >= size) return buffered_;
  size = std::min<uint64_t>(size, end_ - offset());
  const ssize_t n = ::pread(fd_.get(), room.data(), size, static_cast<off_t>(offset()));
  if (n < 0) return Errno::Last("read archive");
  return Bytes(room.first(static_cast<size_t>(n)));
}

// Whole frames of no more than `size`, as far as they tell their size. Answers theirs.
Result<uint64_t> Source::SkipFrames(uint64_t size) {
  std::array<std::byte, kMaxFrameHead> room;
  uint64_t skipped = 0;
  while (!hasher_ && decoder_->AtBoundary()) {
    const auto head_bytes = Peek(kMaxFrameHead, room);
    if (!head_bytes.ok()) return head_bytes.error();
    const auto head = ReadFrameHead(format_, head_bytes.value());
    if (!head || head->content == 0 || head->content > size - skipped) break;
    if (auto error = Leap(head->size)) return *std::move(error);
    for (bool is_last = false; !is_last;) {
      const auto block_bytes = Peek(head->block_head, room);
      if (!block_bytes.ok()) return block_bytes.error();
      if (block_bytes.value().size() < head->block_head) return Bad("cut off");
      const BlockHead block = ReadBlockHead(format_, block_bytes.value());
      const size_t tail = block.size > 0 ? head->block_tail : 0;
      if (auto error = Leap(head->block_head + block.size + tail)) return *std::move(error);
      is_last = block.is_last;
    }
    if (auto error = Leap(head->tail)) return *std::move(error);
    skipped += head->content;
  }
  return skipped;
}

std::optional<Errno> Source::Fill() {
  ssize_t n;
  do {
    n = ::pread(fd_.get(), buffer_.get(), std::min<uint64_t>(kBufferBytes, end_ - position_),
                static_cast<off_t>(position_));
  } while (n < 0 && errno == EINTR);
  if (n < 0) return Errno::Last("read archive");
  position_ += static_cast<uint64_t>(n);
  buffered_ = {buffer_.get(), static_cast<size_t>(n)};
  if (hasher_) hasher_->Update(buffered_);
  return std::nullopt;
}

Errno Source::Bad(const char* what) const {
  return {std::string(TraitsOf(format_).name) + ": " + what, EBADMSG};
}

}  // namespace cedana
