#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "stream/source.h"

namespace cedana {

constexpr size_t kTarBlock = 512;
using TarBlock = std::array<char, kTarBlock>;

// The header of a regular file, or of a directory, whose name ends with a slash; `name` of at most
// 100 bytes.
TarBlock TarHeader(const std::string& name, uint64_t size, int64_t modified);

// The regular files of a tar, strictly: every byte that is not content has to be what the format
// says.
class TarReader {
 public:
  struct Member {
    std::string name;
    uint64_t size;
  };
  enum class Files { kImages, kAll };

  explicit TarReader(Source& source, Files files = Files::kImages)
      : source_(source), files_(files) {}

  // The next regular file; none after the last, with the end of the stream checked too. Content
  // that was not read is skipped. Unless all files are wanted, directories, devices and files in
  // directories are passed over, but for those in checkpoint/, where archives of containers have
  // CRIU's images: they come without it. Links and names that lead out of a directory are refused.
  Result<std::optional<Member>> Next();
  // Reads content into all of `out`, which is no longer than left().
  std::optional<Errno> Read(std::span<std::byte> out);
  // Passes content over, of at most left().
  std::optional<Errno> Skip(uint64_t size);
  [[nodiscard]] uint64_t left() const { return left_; }

 private:
  std::optional<Errno> SkipContent();
  std::optional<Errno> ExpectEnd();
  std::optional<Errno> ReadBlock(TarBlock& block);
  [[nodiscard]] std::optional<Errno> CheckExtension();

  Source& source_;
  const Files files_;
  uint64_t left_ = 0;     // content of the member
  uint64_t padding_ = 0;  // zeros behind it
};

}  // namespace cedana
