#include "stream/encoder.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cedana {

Result<std::unique_ptr<Encoder>> Encoder::Start(Format format, int level, int threads,
                                                OutputFile& out) {
  std::unique_ptr<Encoder> encoder(new Encoder(format, level, out));
  if (format == Format::kTar) return encoder;
  encoder->limit_ = static_cast<size_t>(threads) * 2 + 1;
  for (int i = 0; i < threads; i++) {
    const auto started = encoder->threads_.Start([raw = encoder.get()] { raw->Work(); });
    if (!started.ok()) return started.error();
  }
  const std::string head = encoder->frame_->Head();
  out.Append(reinterpret_cast<const std::byte*>(head.data()), head.size());
  encoder->filling_ = std::make_unique<Chunk>();
  return encoder;
}

Encoder::Encoder(Format format, int level, OutputFile& out)
    : format_(format), level_(level), out_(out), frame_(MakeStreamFrame(format)) {}

Encoder::~Encoder() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    queue_.clear();
    queued_.notify_all();
  }
  threads_.Join();
}

std::span<std::byte> Encoder::Space() {
  if (format_ == Format::kTar) return out_.Space();
  if (filling_->size == kChunkBytes) Submit(false);
  if (failed_) return {};
  return {filling_->content.get() + filling_->size, kChunkBytes - filling_->size};
}

void Encoder::Commit(size_t size) {
  if (format_ == Format::kTar) return out_.Commit(size);
  filling_->size += size;
}

bool Encoder::Append(const void* data, size_t size) {
  const auto* from = static_cast<const std::byte*>(data);
  while (size > 0) {
    const std::span<std::byte> space = Space();
    if (space.empty()) return false;
    const size_t n = std::min(size, space.size());
    std::memcpy(space.data(), from, n);
    Commit(n);
    from += n;
    size -= n;
  }
  return true;
}

Result<Unit> Encoder::Finish() {
  if (format_ == Format::kTar) return Unit{};
  Submit(true);
  WriteUntil(0);
  if (failed_) return Errno{"compress", ENOMEM};
  const std::string tail = frame_->Tail();
  out_.Append(reinterpret_cast<const std::byte*>(tail.data()), tail.size());
  return Unit{};
}

void Encoder::Submit(bool last) {
  std::unique_ptr<Chunk> next;
  if (!idle_.empty()) {
    next = std::move(idle_.back());
    idle_.pop_back();
  } else {
    next = std::make_unique<Chunk>();
  }
  const size_t window = std::min(filling_->size, kWindowBytes);
  next->before.assign(
      reinterpret_cast<const char*>(filling_->content.get() + filling_->size - window), window);
  next->size = 0;
  next->is_packed = false;
  filling_->last = last;
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(filling_.get());
    queued_.notify_one();
  }
  in_order_.push_back(std::move(filling_));
  filling_ = std::move(next);
  WriteUntil(limit_);
}

// Waits for the oldest chunks and writes them, until few enough are under way.
void Encoder::WriteUntil(size_t chunks_left) {
  while (in_order_.size() > chunks_left) {
    Chunk& chunk = *in_order_.front();
    {
      std::unique_lock lock(mutex_);
      packed_.wait(lock, [&chunk] { return chunk.is_packed; });
    }
    frame_->Add({chunk.content.get(), chunk.size}, chunk.checksum);
    const auto* packed = reinterpret_cast<const std::byte*>(chunk.packed.data());
    if (chunk.failed || !out_.Append(packed, chunk.packed.size())) failed_ = true;
    idle_.push_back(std::move(in_order_.front()));
    in_order_.pop_front();
  }
}

void Encoder::Work() {
  const std::unique_ptr<ChunkCodec> codec = MakeChunkCodec(format_, level_);
  std::unique_lock lock(mutex_);
  while (true) {
    queued_.wait(lock, [this] { return !queue_.empty() || closing_; });
    if (closing_) return;
    Chunk& chunk = *queue_.front();
    queue_.pop_front();
    lock.unlock();
    chunk.packed.clear();
    const Bytes before = std::as_bytes(std::span(chunk.before));
    chunk.failed = !codec->Pack({chunk.content.get(), chunk.size}, before, chunk.last, chunk.packed,
                                chunk.checksum);
    lock.lock();
    chunk.is_packed = true;
    packed_.notify_one();
  }
}

}  // namespace cedana
