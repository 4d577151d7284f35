#pragma once

#include <napi.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "stream/checksum.h"
#include "stream/format.h"

namespace cedana {

// Tells how far it got, at most every 50 ms, on the thread that works.
class Progress {
 public:
  using Callback = std::function<void(uint64_t read, uint64_t written)>;
  explicit Progress(Callback callback) : callback_(std::move(callback)) {}
  void Report(uint64_t read, uint64_t written);

 private:
  const Callback callback_;  // may be empty
  std::chrono::steady_clock::time_point last_{};
};

struct Packing {
  Format format;
  int level;
  int threads;
};

struct ArchivedFile {
  std::string name;
  uint64_t size;
  std::string content;  // as much as was asked for
};

// Packs regular files of a directory, in the given order, into an open file, which is made durable.
Result<FileDigest> CreateArchive(int directory_fd, const std::vector<std::string>& names,
                                 UniqueFd output, const Packing& packing, Progress progress);

// Unpacks into a directory; files that exist are an error. Not synced: a restore reads them at
// once.
Result<std::vector<FileDigest>> ExtractArchive(UniqueFd archive, Format format, int directory_fd,
                                               Progress progress);

// The beginning of each named member, or of all. Stops as soon as all names were seen.
Result<std::vector<ArchivedFile>> ReadArchive(UniqueFd archive, Format format,
                                              const std::optional<std::vector<std::string>>& names,
                                              uint64_t max_bytes);

void InitArchive(Napi::Env env, Napi::Object exports);

}  // namespace cedana
