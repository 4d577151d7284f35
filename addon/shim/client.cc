#include "shim/client.h"

#include <endian.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace cedana::shim {
namespace {

constexpr size_t kHeader = 5;
constexpr size_t kReadSize = 16 << 10;
constexpr int64_t kLeaveMs = 2000;

bool Again() { return errno == EAGAIN || errno == EINTR; }

}  // namespace

void Client::Send(Frame type, std::string_view payload) {
  if (deaf_) return;
  char header[kHeader];
  header[0] = static_cast<char>(type);
  const uint32_t length = htole32(static_cast<uint32_t>(payload.size()));
  memcpy(header + 1, &length, sizeof length);
  out_.Append(header, sizeof header);
  out_.Append(payload.data(), payload.size());
}

void Client::Flush(int64_t now_ms) {
  bool progress = false;
  while (!out_.empty()) {
    const ssize_t size = send(fd(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (size < 0) {
      if (Again()) break;
      deaf_ = true;
      attached = false;
      out_.Clear();
    }
    progress = true;
    out_.Drop(static_cast<size_t>(size));
  }
  if (out_.empty() && finishing_) {
    if (leaving()) return;
    if (deaf_ || shutdown(fd(), SHUT_WR) < 0) return Close();
    leave_by_ms_ = now_ms + kLeaveMs;
    return;
  }
  const bool stuck = full() || (finishing_ && !out_.empty());
  if (!stuck) {
    stuck_since_ms_ = 0;
  } else if (progress || stuck_since_ms_ == 0) {
    stuck_since_ms_ = now_ms;
  }
}

std::optional<int64_t> Client::Deadline() const {
  if (leaving()) return leave_by_ms_;
  if (stuck_since_ms_ == 0) return std::nullopt;
  return stuck_since_ms_ + kStuckMs;
}

void Client::Receive() {
  char buffer[kReadSize];
  const ssize_t size = recv(fd(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (size > 0 && leaving()) return;
  if (size > 0) return in_.Append(buffer, static_cast<size_t>(size));
  if (size < 0 && Again()) return;
  Close();
}

std::optional<Client::Incoming> Client::Next() {
  if (gone() || in_.size() < kHeader) return std::nullopt;
  uint32_t length = 0;
  memcpy(&length, in_.data() + 1, sizeof length);
  length = le32toh(length);
  if (length > kMaxFrame) {
    Close();
    return std::nullopt;
  }
  if (in_.size() < kHeader + length) return std::nullopt;
  return Incoming{static_cast<Frame>(in_.data()[0]), in_.view().substr(kHeader, length)};
}

void Client::Consume(const Incoming& frame) { in_.Drop(kHeader + frame.payload.size()); }

}  // namespace cedana::shim
