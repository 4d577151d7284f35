#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace cedana {

struct ImageFile {
  UniqueFd fd;
  uint64_t size;
};
// A regular file, not through a link.
Result<ImageFile> OpenImage(int directory_fd, const std::string& name);
// Some bytes, at least one.
Result<size_t> ReadImage(int fd, const std::string& name, std::span<std::byte> out,
                         uint64_t offset);

// A directory of images that exists only while somebody has it open: a tmpfs that is mounted
// nowhere. Its files are in memory up to a limit; each of the others is a link to a nameless file
// on disk that we hold open. Other processes (root's) reach it as /proc/PID/fd/FD.
class ImageDirectory {
 public:
  static Result<std::shared_ptr<ImageDirectory>> Make(uint64_t memory_bytes,
                                                      std::string spill_directory);
  ImageDirectory(const ImageDirectory&) = delete;
  ImageDirectory& operator=(const ImageDirectory&) = delete;

  [[nodiscard]] int fd() const { return root_.get(); }
  // A new file of that size, all zeros, open for writing. On any thread.
  Result<UniqueFd> Create(const std::string& name, uint64_t size);
  // Writes all that is not zero.
  static std::optional<Errno> Write(int fd, std::span<const std::byte> data, uint64_t offset);
  // Removes all files, by whomever they were made.
  std::optional<Errno> Clear();
  // Closes it for us; who has opened files of it keeps them.
  void Close();

 private:
  ImageDirectory(UniqueFd mount, UniqueFd root, uint64_t memory_bytes, std::string spill_directory);

  UniqueFd mount_;
  UniqueFd root_;
  const std::string spill_directory_;
  const uint64_t memory_bytes_;
  std::mutex mutex_;
  uint64_t memory_left_;

  std::vector<UniqueFd> spilled_;
};

}  // namespace cedana
