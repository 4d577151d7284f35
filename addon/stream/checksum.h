#pragma once

#include <napi.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "stream/blocks.h"

namespace cedana {

// The digest of a file or of bytes, everywhere in the product, 32 hex digits:
//   up to 4 MiB: XXH3-128 of the content (what `xxh128sum` prints);
//   longer:      XXH3-128 of the XXH3-128 digests of its leaves of 4 MiB each (the last may be
//                shorter), in order, 16 bytes each, high half first.
// Leaves let several threads work on one file, and let each block be digested by whoever writes it.
constexpr size_t kLeafBytes = kBlockBytes;
using LeafDigest = std::array<std::byte, 16>;

LeafDigest DigestLeaf(const std::byte* data, size_t size);
// The same, bit by bit: what is digested is still in the cache for whatever is done with it next.
class LeafHasher {
 public:
  LeafHasher();
  LeafHasher(const LeafHasher&) = delete;
  LeafHasher& operator=(const LeafHasher&) = delete;
  ~LeafHasher();
  void Update(std::span<const std::byte> bytes);
  // Begins a new one.
  LeafDigest Finish();

 private:
  struct State;
  const std::unique_ptr<State> state_;
};
// Of the leaves of one file in order; none is the empty file.
std::string CombineLeaves(const std::vector<LeafDigest>& leaves);
std::string DigestBytes(const std::byte* data, size_t size);

// The digest of what comes bit by bit.
class FileHasher {
 public:
  FileHasher();
  FileHasher(const FileHasher&) = delete;
  FileHasher& operator=(const FileHasher&) = delete;
  ~FileHasher();
  void Update(std::span<const std::byte> bytes);
  std::string Finish();

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

struct FileDigest {
  std::string name;
  uint64_t size = 0;
  std::string digest;
};

// Files of a directory, in the order of `names`, read by as many threads as there are cores (up to
// four). `beside`: beside something that waits for nothing else than its core, which is left to it.
// `take` gets each part on the thread that has digested it, while it is in the cache.
using TakePart = std::function<std::optional<Errno>(const std::string& name, uint64_t offset,
                                                    std::span<const std::byte> part)>;
Result<std::vector<FileDigest>> DigestFiles(int directory_fd, const std::vector<std::string>& names,
                                            bool beside, const TakePart& take = {});

// SHA-256 of a part of a file, 64 hex digits: what OCI names blobs by. One thread.
Result<std::string> Sha256(int fd, uint64_t offset, uint64_t size);

Napi::Object FileDigestToJs(Napi::Env env, const FileDigest& file);
void InitChecksum(Napi::Env env, Napi::Object exports);

}  // namespace cedana
