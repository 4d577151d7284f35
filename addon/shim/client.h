#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/fd.h"
#include "shim/protocol.h"

namespace cedana::shim {

// Bytes that wait; what is taken from the front costs nothing until it pays to move the rest.
class Buffer {
 public:
  [[nodiscard]] size_t size() const { return bytes_.size() - start_; }
  [[nodiscard]] bool empty() const { return size() == 0; }
  [[nodiscard]] const char* data() const { return bytes_.data() + start_; }
  [[nodiscard]] std::string_view view() const { return {data(), size()}; }
  void Append(const char* data, size_t size) { bytes_.append(data, size); }
  void Clear() { Drop(size()); }
  void Drop(size_t size) {
    start_ += size;
    if (start_ == bytes_.size()) {
      start_ = 0;
      bytes_.clear();
      if (bytes_.capacity() > kKeep) bytes_.shrink_to_fit();
    } else if (start_ > bytes_.size() / 2) {
      bytes_.erase(0, start_);
      start_ = 0;
    }
  }

 private:
  static constexpr size_t kKeep = 16 << 10;
  std::string bytes_;
  size_t start_ = 0;
};

// One connection: frames in, frames out, and whether it keeps up. Knows nothing of the job.
class Client {
 public:
  explicit Client(UniqueFd socket) : socket_(std::move(socket)) {}

  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] bool gone() const { return !socket_.valid(); }
  [[nodiscard]] size_t pending() const { return out_.size(); }
  [[nodiscard]] bool full() const { return out_.size() >= kMaxPending; }
  void Close() { socket_.Reset(); }

  void Send(Frame type, std::string_view payload);
  // Writes what the socket takes. After the last byte, when `Finish` was called, only the writing
  // half is closed: a client that is writing itself would lose what it has not read yet to a reset.
  // It closes as soon as it has seen the end, or is dropped. A client that left gets nothing any
  // more, but what it wrote before is still to be read.
  void Flush(int64_t now_ms);
  void Finish() { finishing_ = true; }
  [[nodiscard]] bool finishing() const { return finishing_; }
  // All is said; what it still sends is thrown away.
  [[nodiscard]] bool leaving() const { return leave_by_ms_ != 0; }
  // When it will have been stuck too long, or should have left; empty while it is neither.
  [[nodiscard]] std::optional<int64_t> Deadline() const;

  void Receive();
  // The next whole frame, valid until Consume; empty when there is none yet. Closes on a frame too
  // long.
  struct Incoming {
    Frame type;
    std::string_view payload;
  };
  std::optional<Incoming> Next();
  void Consume(const Incoming& frame);

  bool attached = false;       // gets output, and kExit after it
  bool watches_exit = false;   // gets kExit alone
  bool waits_for_job = false;  // its next frame is input which the job does not take yet

 private:
  UniqueFd socket_;
  Buffer in_;
  Buffer out_;
  bool deaf_ = false;
  bool finishing_ = false;
  int64_t stuck_since_ms_ = 0;  // 0: is not stuck
  int64_t leave_by_ms_ = 0;     // 0: has not been said goodbye to
};

}  // namespace cedana::shim
