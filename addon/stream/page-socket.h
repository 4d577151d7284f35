#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include "base/fd.h"
#include "base/result.h"

namespace cedana {

// Our end of the socket over which CRIU sends pages by reference: they are still the target's own.
class PageSocket {
 public:
  explicit PageSocket(UniqueFd fd);

  // ECONNRESET when the other end has closed.
  std::optional<Errno> ReadHeader(std::span<std::byte> header);
  std::optional<Errno> Read(std::span<std::byte> data);
  // Without looking at it, and where it can be without copying it.
  std::optional<Errno> Discard(size_t bytes);
  std::optional<Errno> Send(const void* data, size_t size);
  // On any thread: whatever goes on here fails.
  void Shutdown();

 private:
  std::optional<Errno> Fill(size_t least);
  size_t TakeBuffered(std::span<std::byte> data);
  // One call of recvmsg: into `data`, and what follows into the buffer.
  std::optional<Errno> Receive(std::span<std::byte>& data, size_t following);
  template <typename Call>
  Result<size_t> Patiently(const char* op, const Call& call);

  const UniqueFd fd_;
  UniqueFd pipe_[2];
  UniqueFd nowhere_;
  // A fragmented process sends page by page: several with their headers in one call.
  std::unique_ptr<std::byte[]> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t following_ = 0;  // how much to take into the buffer: pages that are many stay outside
};

}  // namespace cedana
