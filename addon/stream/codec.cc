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

constexpr uint32_t kLz4Magic = 0x184d2204;
constexpr uint32_t kLz4Stored = 0x80000000;  // of the size of a block: it is as it was

void PutLittle(std::string& out, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(value >> shift & 0xff);
}

void PutBig(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xff);
}

uint32_t GetLittle(Bytes in) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; i++) value |= std::to_integer<uint32_t>(in[i]) << (8 * i);
  return value;
}

const Bytef* Zbytes(Bytes bytes) { return reinterpret_cast<const Bytef*>(bytes.data()); }
const char* Chars(Bytes bytes) { return reinterpret_cast<const char*>(bytes.data()); }

// `pack` gets room for so many bytes and answers how many it has made. Not by resize, which writes
// zeros first.
template <typename Pack>
size_t AppendPacked(std::string& out, size_t most, Pack pack) {
  const size_t start = out.size();
  out.resize_and_overwrite(
      start + most, [&](char* data, size_t) { return start + std::min(pack(data + start), most); });
  return out.size() - start;
}

Chunk Summed(Format format, Bytes bytes) {
  if (format == Format::kGzip)
    return {bytes.size(), static_cast<uint32_t>(crc32_z(0, Zbytes(bytes), bytes.size()))};
  if (format == Format::kZlib)
    return {bytes.size(), static_cast<uint32_t>(adler32_z(1, Zbytes(bytes), bytes.size()))};
  return {bytes.size(), 0};
}

class PlainCodec final : public ChunkCodec {
 public:
  std::optional<Chunk> Pack(Bytes chunk, std::string& out) override { return Keep(chunk, out); }
  Chunk Keep(Bytes chunk, std::string& out) override {
    out.append(Chars(chunk), chunk.size());
    return {chunk.size(), 0};
  }
};

// gzip and zlib: pieces of one raw deflate stream, each ending on a byte.
class DeflateCodec final : public ChunkCodec {
 public:
  DeflateCodec(Format format, int level) : format_(format) {
    ready_ = deflateInit2(&stream_, level, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK;
  }
  ~DeflateCodec() override {
    if (ready_) deflateEnd(&stream_);
  }

  std::optional<Chunk> Pack(Bytes chunk, std::string& out) override {
    if (!ready_ || deflateReset(&stream_) != Z_OK) return std::nullopt;
    const auto size = static_cast<uInt>(chunk.size());
    const auto most = static_cast<uInt>(deflateBound(&stream_, size) + 64);  // and the flush marker
    int status = Z_OK;
    AppendPacked(out, most, [&](char* to) -> size_t {
      stream_.next_in = const_cast<Bytef*>(Zbytes(chunk));
      stream_.avail_in = size;
      stream_.next_out = reinterpret_cast<Bytef*>(to);
      stream_.avail_out = most;
      status = deflate(&stream_, Z_SYNC_FLUSH);
      return most - stream_.avail_out;
    });
    if (status != Z_OK || stream_.avail_in != 0 || stream_.avail_out == 0) return std::nullopt;
    return Summed(format_, chunk);
  }

  Chunk Keep(Bytes chunk, std::string& out) override {
    const auto size = static_cast<uint16_t>(chunk.size());
    out += '\0';  // a stored block
    for (const uint16_t length : {size, static_cast<uint16_t>(~size)}) {
      out += static_cast<char>(length & 0xff);
      out += static_cast<char>(length >> 8);
    }
    out.append(Chars(chunk), chunk.size());
    return Summed(format_, chunk);
  }

 private:
  const Format format_;
  bool ready_ = false;
  z_stream stream_{};
};

// A frame of its own for each chunk, of one block, with content size and checksum: readers take
// frames in a row as one (`lz4` 1.9.4 only where blocks have no checksums).
class Lz4Codec final : public ChunkCodec {
 public:
  explicit Lz4Codec(int level) : level_(level) {}

  std::optional<Chunk> Pack(Bytes chunk, std::string& out) override {
    if (chunk.empty()) return Chunk{};
    const size_t start = out.size();
    Open(out, chunk.size());
    const size_t block = out.size();
    PutLittle(out, 0);  // its size, once it is known
    const auto size = static_cast<int>(chunk.size());
    const int room = LZ4_compressBound(size);
    const size_t packed = AppendPacked(out, static_cast<size_t>(room), [&](char* to) {
      const int made = level_ >= LZ4HC_CLEVEL_MIN
                           ? LZ4_compress_HC(Chars(chunk), to, size, room, level_)
                           : LZ4_compress_fast(Chars(chunk), to, size, room, std::max(1, -level_));
      return static_cast<size_t>(std::max(made, 0));
    });
    if (packed == 0) return std::nullopt;
    if (packed >= chunk.size()) {
      out.resize(start);
      return Keep(chunk, out);
    }
    std::string prefix;
    PutLittle(prefix, static_cast<uint32_t>(packed));
    out.replace(block, prefix.size(), prefix);
    Close(out, chunk);
    return Chunk{chunk.size(), 0};
  }

  Chunk Keep(Bytes chunk, std::string& out) override {
    Open(out, chunk.size());
    PutLittle(out, static_cast<uint32_t>(chunk.size()) | kLz4Stored);
    out.append(Chars(chunk), chunk.size());
    Close(out, chunk);
    return {chunk.size(), 0};
  }

 private:
  static void Open(std::string& out, uint64_t size) {
    PutLittle(out, kLz4Magic);
    const size_t descriptor = out.size();
    out += '\x6c';  // version 1, independent blocks, content size and checksum
    out += '\x60';  // blocks of at most 1 MiB
    PutLittle(out, static_cast<uint32_t>(size));
    PutLittle(out, static_cast<uint32_t>(size >> 32));
    const uint32_t sum = XXH32(out.data() + descriptor, out.size() - descriptor, 0);
    out += static_cast<char>(sum >> 8 & 0xff);
  }
  static void Close(std::string& out, Bytes chunk) {
    PutLittle(out, 0);  // end mark
    PutLittle(out, XXH32(chunk.data(), chunk.size(), 0));
  }

  const int level_;
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

  std::optional<Chunk> Pack(Bytes chunk, std::string& out) override {
    if (!context_) return std::nullopt;
    const size_t room = ZSTD_compressBound(chunk.size());
    const size_t packed = AppendPacked(out, room, [&](char* to) {
      const size_t made = ZSTD_compress2(context_.get(), to, room, chunk.data(), chunk.size());
      return ZSTD_isError(made) ? 0 : made;
    });
    if (packed == 0) return std::nullopt;
    return Chunk{chunk.size(), 0};
  }

  Chunk Keep(Bytes chunk, std::string& out) override {
    const auto size = static_cast<uint32_t>(chunk.size());
    PutLittle(out, ZSTD_MAGICNUMBER);
    out += '\xa4';  // one segment, its size in four bytes, a checksum
    PutLittle(out, size);
    const uint32_t header = size << 3 | 1;  // the last block, raw
    for (int shift = 0; shift < 24; shift += 8) out += static_cast<char>(header >> shift & 0xff);
    out.append(Chars(chunk), chunk.size());
    PutLittle(out, static_cast<uint32_t>(XXH64(chunk.data(), chunk.size(), 0)));
    return {chunk.size(), 0};
  }

 private:
  std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context_;
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
    case Format::kTar:
      return std::make_unique<PlainCodec>();
    case Format::kLz4:
      return std::make_unique<Lz4Codec>(level);
    case Format::kZstd:
      return std::make_unique<ZstdCodec>(level);
    default:
      return std::make_unique<DeflateCodec>(format, level);
  }
}

std::string StreamHead(Format format) {
  switch (format) {
    case Format::kGzip:
      return {"\x1f\x8b\x08\0\0\0\0\0\0\xff", 10};
    case Format::kZlib:
      return "\x78\x9c";
    default:
      return {};
  }
}

std::string StreamTail(Format format, const std::vector<Chunk>& chunks) {
  const std::string last_block("\x03\0", 2);  // of deflate, empty
  std::string tail;
  switch (format) {
    case Format::kGzip: {
      uint32_t crc = 0;
      uint64_t size = 0;
      for (const Chunk& chunk : chunks) {
        crc = static_cast<uint32_t>(
            crc32_combine(crc, chunk.checksum, static_cast<z_off_t>(chunk.size)));
        size += chunk.size;
      }
      tail = last_block;
      PutLittle(tail, crc);
      PutLittle(tail, static_cast<uint32_t>(size));  // modulo 2^32, as the format has it
      return tail;
    }
    case Format::kZlib: {
      uint32_t adler = 1;
      for (const Chunk& chunk : chunks)
        adler = static_cast<uint32_t>(
            adler32_combine(adler, chunk.checksum, static_cast<z_off_t>(chunk.size)));
      tail = last_block;
      PutBig(tail, adler);
      return tail;
    }
    default:
      return tail;
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

// RFC 8878. Frames of ours, and of others who know beforehand what they write, tell their size.
static std::optional<FrameHead> ReadZstdHead(Bytes in) {
  const unsigned long long content = ZSTD_getFrameContentSize(in.data(), in.size());
  if (content == ZSTD_CONTENTSIZE_UNKNOWN || content == ZSTD_CONTENTSIZE_ERROR) return std::nullopt;
  const auto descriptor = std::to_integer<unsigned>(in[4]);
  const bool is_single = (descriptor & 0x20) != 0;
  constexpr size_t kDictionary[] = {0, 1, 2, 4};
  const size_t content_field =
      descriptor >> 6 == 0 ? (is_single ? 1 : 0) : size_t{1} << (descriptor >> 6);
  return FrameHead{
      .size = 5 + (is_single ? 0 : 1) + kDictionary[descriptor & 3] + content_field,
      .content = content,
      .block_head = 3,
      .block_tail = 0,
      .tail = (descriptor & 4) != 0 ? size_t{4} : size_t{0},
  };
}

// LZ4 Frame Format Description 1.6. Of ours that were made before they had it, and of others, few
// tell their size.
static std::optional<FrameHead> ReadLz4Head(Bytes in) {
  const auto flags = std::to_integer<unsigned>(in[4]);
  const bool has_size = (flags & 0x08) != 0;
  const bool has_dictionary = (flags & 0x01) != 0;
  if (GetLittle(in) != kLz4Magic || flags >> 6 != 1 || !has_size || has_dictionary)
    return std::nullopt;
  return FrameHead{
      .size = 15,
      .content = GetLittle(in.subspan(6)) | uint64_t{GetLittle(in.subspan(10))} << 32,
      .block_head = 4,
      .block_tail = (flags & 0x10) != 0 ? size_t{4} : size_t{0},
      .tail = (flags & 0x04) != 0 ? size_t{4} : size_t{0},
  };
}

std::optional<FrameHead> ReadFrameHead(Format format, Bytes in) {
  if (in.size() < kMaxFrameHead) return std::nullopt;
  if (format == Format::kZstd) return ReadZstdHead(in);
  if (format == Format::kLz4) return ReadLz4Head(in);
  return std::nullopt;
}

BlockHead ReadBlockHead(Format format, Bytes in) {
  if (format == Format::kLz4) {
    const uint32_t size = GetLittle(in) & ~kLz4Stored;
    return {size, size == 0};
  }
  const unsigned head = std::to_integer<unsigned>(in[0]) | std::to_integer<unsigned>(in[1]) << 8 |
                        std::to_integer<unsigned>(in[2]) << 16;
  constexpr unsigned kRepeated = 1;  // one byte, so many times
  return {(head >> 1 & 3) == kRepeated ? 1 : head >> 3, (head & 1) != 0};
}

}  // namespace cedana
