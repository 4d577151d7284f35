#include "stream/codec.h"

#define XXH_INLINE_ALL
#include <lz4.h>
#include <lz4frame.h>
#include <lz4hc.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>

namespace cedana {

namespace {

void PutLittle(std::string& out, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(value >> shift & 0xff);
}

void PutBig(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xff);
}

const Bytef* Zbytes(Bytes bytes) { return reinterpret_cast<const Bytef*>(bytes.data()); }
const char* Chars(Bytes bytes) { return reinterpret_cast<const char*>(bytes.data()); }

// gzip and zlib: pieces of one raw deflate stream, each ending on a byte. The window of the piece
// before is given as dictionary, so that packing in pieces costs hardly any size.
class DeflateCodec final : public ChunkCodec {
 public:
  DeflateCodec(Format format, int level) : gzip_(format == Format::kGzip) {
    ready_ = deflateInit2(&stream_, level, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK;
  }
  ~DeflateCodec() override {
    if (ready_) deflateEnd(&stream_);
  }

  bool Pack(Bytes chunk, Bytes before, bool last, std::string& out, uint32_t& checksum) override {
    if (!ready_ || deflateReset(&stream_) != Z_OK) return false;
    if (!before.empty())
      deflateSetDictionary(&stream_, Zbytes(before), static_cast<uInt>(before.size()));
    const auto size = static_cast<uInt>(chunk.size());
    const size_t start = out.size();
    out.resize(start + deflateBound(&stream_, size) + 64);  // room for the flush marker
    stream_.next_in = const_cast<Bytef*>(Zbytes(chunk));
    stream_.avail_in = size;
    stream_.next_out = reinterpret_cast<Bytef*>(out.data() + start);
    stream_.avail_out = static_cast<uInt>(out.size() - start);
    const int status = deflate(&stream_, last ? Z_FINISH : Z_SYNC_FLUSH);
    if (status != (last ? Z_STREAM_END : Z_OK) || stream_.avail_in != 0 || stream_.avail_out == 0)
      return false;
    out.resize(out.size() - stream_.avail_out);
    checksum = static_cast<uint32_t>(gzip_ ? crc32_z(0, Zbytes(chunk), chunk.size())
                                           : adler32_z(1, Zbytes(chunk), chunk.size()));
    return true;
  }

 private:
  const bool gzip_;
  bool ready_ = false;
  z_stream stream_{};
};

class GzipFrame final : public StreamFrame {
 public:
  std::string Head() override { return {"\x1f\x8b\x08\0\0\0\0\0\0\xff", 10}; }
  void Add(Bytes chunk, uint32_t checksum) override {
    crc_ = static_cast<uint32_t>(crc32_combine(crc_, checksum, static_cast<z_off_t>(chunk.size())));
    size_ += static_cast<uint32_t>(chunk.size());
  }
  std::string Tail() override {
    std::string tail;
    PutLittle(tail, crc_);
    PutLittle(tail, size_);
    return tail;
  }

 private:
  uint32_t crc_ = 0;
  uint32_t size_ = 0;  // modulo 2^32, as the format has it
};

class ZlibFrame final : public StreamFrame {
 public:
  std::string Head() override { return "\x78\x9c"; }
  void Add(Bytes chunk, uint32_t checksum) override {
    adler_ = static_cast<uint32_t>(
        adler32_combine(adler_, checksum, static_cast<z_off_t>(chunk.size())));
  }
  std::string Tail() override {
    std::string tail;
    PutBig(tail, adler_);
    return tail;
  }

 private:
  uint32_t adler_ = 1;
};

// Blocks of one LZ4 frame, independent of each other.
class Lz4Codec final : public ChunkCodec {
 public:
  explicit Lz4Codec(int level) : level_(level) {}

  bool Pack(Bytes chunk, Bytes /*before*/, bool /*last*/, std::string& out,
            uint32_t& /*checksum*/) override {
    if (chunk.empty()) return true;  // a block of size 0 would be the end mark
    const size_t start = out.size() + 4;
    const auto size = static_cast<int>(chunk.size());
    out.resize(start + static_cast<size_t>(LZ4_compressBound(size)));
    char* to = out.data() + start;
    const auto room = static_cast<int>(out.size() - start);
    const int packed = level_ >= LZ4HC_CLEVEL_MIN
                           ? LZ4_compress_HC(Chars(chunk), to, size, room, level_)
                           : LZ4_compress_fast(Chars(chunk), to, size, room, std::max(1, -level_));
    if (packed <= 0) return false;
    uint32_t header = static_cast<uint32_t>(packed);
    if (packed >= size) {
      header = static_cast<uint32_t>(size) | 0x80000000u;  // stored
      out.replace(start, std::string::npos, Chars(chunk), chunk.size());
    } else {
      out.resize(start + static_cast<size_t>(packed));
    }
    std::string prefix;
    PutLittle(prefix, header);
    out.replace(start - 4, 4, prefix);
    return true;
  }

 private:
  const int level_;
};

class Lz4Frame final : public StreamFrame {
 public:
  Lz4Frame() { XXH32_reset(&hash_, 0); }
  std::string Head() override {
    // Version 1, independent blocks, content checksum; blocks of at most 1 MiB.
    constexpr char kDescriptor[2] = {0x64, 0x60};
    std::string head;
    PutLittle(head, 0x184d2204);
    head.append(kDescriptor, 2);
    head += static_cast<char>(XXH32(kDescriptor, 2, 0) >> 8 & 0xff);
    return head;
  }
  void Add(Bytes chunk, uint32_t /*checksum*/) override {
    XXH32_update(&hash_, chunk.data(), chunk.size());
  }
  std::string Tail() override {
    std::string tail;
    PutLittle(tail, 0);  // end mark
    PutLittle(tail, XXH32_digest(&hash_));
    return tail;
  }

 private:
  XXH32_state_t hash_;
};

// A frame of its own for each chunk, with content size and checksum: readers take frames in a row
// as one.
class ZstdCodec final : public ChunkCodec {
 public:
  explicit ZstdCodec(int level) : context_(ZSTD_createCCtx(), ZSTD_freeCCtx) {
    if (!context_) return;
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  }

  bool Pack(Bytes chunk, Bytes /*before*/, bool /*last*/, std::string& out,
            uint32_t& /*checksum*/) override {
    if (!context_) return false;
    const size_t start = out.size();
    out.resize(start + ZSTD_compressBound(chunk.size()));
    const size_t packed = ZSTD_compress2(context_.get(), out.data() + start, out.size() - start,
                                         chunk.data(), chunk.size());
    if (ZSTD_isError(packed)) return false;
    out.resize(start + packed);
    return true;
  }

 private:
  std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context_;
};

class NoFrame final : public StreamFrame {
 public:
  std::string Head() override { return {}; }
  void Add(Bytes /*chunk*/, uint32_t /*checksum*/) override {}
  std::string Tail() override { return {}; }
};

class InflateDecoder final : public StreamDecoder {
 public:
  explicit InflateDecoder(Format format) : gzip_(format == Format::kGzip) {
    ready_ = inflateInit2(&stream_, gzip_ ? 16 + MAX_WBITS : MAX_WBITS) == Z_OK;
  }
  ~InflateDecoder() override {
    if (ready_) inflateEnd(&stream_);
  }

  Step Decode(Bytes in, std::span<std::byte> out) override {
    if (!ready_) return {.bad = true};
    if (ended_) {
      // Members of gzip may follow each other; zlib is one stream.
      if (!gzip_ || inflateReset(&stream_) != Z_OK) return {.bad = true};
      ended_ = false;
    }
    stream_.next_in = const_cast<Bytef*>(Zbytes(in));
    stream_.avail_in = static_cast<uInt>(in.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    const int status = inflate(&stream_, Z_NO_FLUSH);
    ended_ = status == Z_STREAM_END;
    return {.consumed = in.size() - stream_.avail_in,
            .produced = out.size() - stream_.avail_out,
            .bad = status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR};
  }
  [[nodiscard]] bool AtBoundary() const override { return ended_; }

 private:
  const bool gzip_;
  bool ready_ = false;
  bool ended_ = false;
  z_stream stream_{};
};

class Lz4Decoder final : public StreamDecoder {
 public:
  Lz4Decoder() {
    if (LZ4F_isError(LZ4F_createDecompressionContext(&context_, LZ4F_VERSION))) context_ = nullptr;
  }
  ~Lz4Decoder() override { LZ4F_freeDecompressionContext(context_); }

  Step Decode(Bytes in, std::span<std::byte> out) override {
    if (context_ == nullptr) return {.bad = true};
    size_t consumed = in.size();
    size_t produced = out.size();
    const size_t status =
        LZ4F_decompress(context_, out.data(), &produced, in.data(), &consumed, nullptr);
    if (LZ4F_isError(status)) return {.bad = true};
    ended_ = status == 0;
    return {consumed, produced, false};
  }
  [[nodiscard]] bool AtBoundary() const override { return ended_; }

 private:
  LZ4F_dctx* context_ = nullptr;
  bool ended_ = false;
};

class ZstdDecoder final : public StreamDecoder {
 public:
  Step Decode(Bytes in, std::span<std::byte> out) override {
    if (!context_) return {.bad = true};
    ZSTD_inBuffer from{in.data(), in.size(), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    const size_t status = ZSTD_decompressStream(context_.get(), &to, &from);
    ended_ = status == 0;
    return {from.pos, to.pos, ZSTD_isError(status) != 0};
  }
  [[nodiscard]] bool AtBoundary() const override { return ended_; }

 private:
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context_{ZSTD_createDCtx(), ZSTD_freeDCtx};
  bool ended_ = false;
};

class PlainDecoder final : public StreamDecoder {
 public:
  Step Decode(Bytes in, std::span<std::byte> out) override {
    const size_t n = std::min(in.size(), out.size());
    std::copy_n(in.data(), n, out.data());
    return {n, n, false};
  }
  [[nodiscard]] bool AtBoundary() const override {
    return true;
  }  // the tar itself tells where it ends
};

}  // namespace

std::unique_ptr<ChunkCodec> MakeChunkCodec(Format format, int level) {
  switch (format) {
    case Format::kLz4:
      return std::make_unique<Lz4Codec>(level);
    case Format::kZstd:
      return std::make_unique<ZstdCodec>(level);
    default:
      return std::make_unique<DeflateCodec>(format, level);
  }
}

std::unique_ptr<StreamFrame> MakeStreamFrame(Format format) {
  switch (format) {
    case Format::kGzip:
      return std::make_unique<GzipFrame>();
    case Format::kZlib:
      return std::make_unique<ZlibFrame>();
    case Format::kLz4:
      return std::make_unique<Lz4Frame>();
    default:
      return std::make_unique<NoFrame>();
  }
}

std::unique_ptr<StreamDecoder> MakeStreamDecoder(Format format) {
  switch (format) {
    case Format::kTar:
      return std::make_unique<PlainDecoder>();
    case Format::kLz4:
      return std::make_unique<Lz4Decoder>();
    case Format::kZstd:
      return std::make_unique<ZstdDecoder>();
    default:
      return std::make_unique<InflateDecoder>(format);
  }
}

}  // namespace cedana
