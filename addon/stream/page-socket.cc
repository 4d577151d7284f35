#include "stream/page-socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cedana {

namespace {

constexpr size_t kBufferBytes = size_t{64} << 10;
constexpr size_t kHeaderBytes = 32;  // at most
constexpr int kPipeBytes = 1 << 20;
constexpr int kNaps = 20;  // before the reader takes it that nothing flows
constexpr useconds_t kNapMicroseconds = 100;

}  // namespace

PageSocket::PageSocket(UniqueFd fd)
    : fd_(std::move(fd)), buffer_(std::make_unique<std::byte[]>(kBufferBytes)) {
  int pipe[2];
  UniqueFd nowhere(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  if (!nowhere.valid() || ::pipe2(pipe, O_CLOEXEC) < 0) return;
  static_cast<void>(::fcntl(pipe[0], F_SETPIPE_SZ, kPipeBytes));  // only quicker
  pipe_[0].Reset(pipe[0]);
  pipe_[1].Reset(pipe[1]);
  nowhere_ = std::move(nowhere);
}

std::optional<Errno> PageSocket::ReadHeader(std::span<std::byte> header) {
  if (auto error = Fill(header.size())) return error;
  TakeBuffered(header);
  return std::nullopt;
}

std::optional<Errno> PageSocket::Read(std::span<std::byte> data) {
  const bool is_small = data.size() < kBufferBytes;
  data = data.subspan(TakeBuffered(data));
  following_ = is_small ? kBufferBytes : kHeaderBytes;
  while (!data.empty()) {
    if (auto error = Receive(data, following_)) return error;
  }
  return std::nullopt;
}

std::optional<Errno> PageSocket::Discard(size_t bytes) {
  const size_t buffered = std::min(bytes, end_ - begin_);
  following_ = bytes < kBufferBytes ? kBufferBytes : kHeaderBytes;
  begin_ += buffered;
  bytes -= buffered;
  while (bytes > 0) {
    if (bytes < kBufferBytes || !nowhere_.valid()) {
      const size_t step = std::min(bytes, kBufferBytes);
      if (auto error = Fill(step)) return error;
      begin_ += step;
      bytes -= step;
      continue;
    }
    const auto moved = Patiently("page server discard", [&](bool wait) {
      return ::splice(fd_.get(), nullptr, pipe_[1].get(), nullptr, bytes,
                      SPLICE_F_MOVE | (wait ? 0 : SPLICE_F_NONBLOCK));
    });
    if (!moved.ok()) return moved.error();
    bytes -= moved.value();
    for (size_t left = moved.value(); left > 0;) {
      const ssize_t n =
          ::splice(pipe_[0].get(), nullptr, nowhere_.get(), nullptr, left, SPLICE_F_MOVE);
      if (n <= 0) return Errno::Last("page server discard");
      left -= static_cast<size_t>(n);
    }
  }
  return std::nullopt;
}

std::optional<Errno> PageSocket::Send(const void* data, size_t size) {
  if (::send(fd_.get(), data, size, MSG_NOSIGNAL) < 0) return Errno::Last("page server answer");
  return std::nullopt;
}

void PageSocket::Shutdown() { ::shutdown(fd_.get(), SHUT_RDWR); }

size_t PageSocket::TakeBuffered(std::span<std::byte> data) {
  const size_t taken = std::min(data.size(), end_ - begin_);
  std::memcpy(data.data(), buffer_.get() + begin_, taken);
  begin_ += taken;
  return taken;
}

std::optional<Errno> PageSocket::Fill(size_t least) {
  while (end_ - begin_ < least) {
    std::span<std::byte> none;
    if (auto error = Receive(none, std::max(least, following_))) return error;
  }
  return std::nullopt;
}

std::optional<Errno> PageSocket::Receive(std::span<std::byte>& data, size_t following) {
  std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
  end_ -= std::exchange(begin_, 0);
  iovec parts[2] = {{data.data(), data.size()},
                    {buffer_.get() + end_, std::min(following, kBufferBytes) - end_}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  const auto taken = Patiently("page server receive", [&](bool wait) {
    return ::recvmsg(fd_.get(), &message, wait ? 0 : MSG_DONTWAIT);
  });
  if (!taken.ok()) return taken.error();
  const size_t direct = std::min(taken.value(), data.size());
  data = data.subspan(direct);
  end_ += taken.value() - direct;
  return std::nullopt;
}

// Who sleeps in the socket is woken for each of CRIU's many small buffers, and waking costs more
// than the copy: while pages flow nobody sleeps there.
template <typename Call>
Result<size_t> PageSocket::Patiently(const char* op, const Call& call) {
  while (true) {
    ssize_t n = call(false);
    for (int i = 0; n < 0 && errno == EAGAIN && i < kNaps; i++) {
      ::usleep(kNapMicroseconds);
      n = call(false);
    }
    if (n < 0 && errno == EAGAIN) n = call(true);
    if (n > 0) return static_cast<size_t>(n);
    if (n == 0) return Errno{op, ECONNRESET};  // CRIU ended before its last command
    if (errno != EINTR) return Errno::Last(op);
  }
}

}  // namespace cedana
