#pragma once

#include <napi.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "stream/checksum.h"
#include "stream/format.h"
#include "stream/images.h"
#include "stream/memory-writer.h"
#include "stream/source.h"

namespace cedana {

// Tells how far it got, at most every 50 ms, on the thread that works; and whether to go on.
class Progress {
 public:
  using Callback = std::function<void(uint64_t read)>;
  Progress(Callback callback, std::shared_ptr<std::atomic<bool>> cancelled)
      : callback_(std::move(callback)), cancelled_(std::move(cancelled)) {}
  std::optional<Errno> Report(uint64_t bytes);  // more

 private:
  const Callback callback_;                             // may be empty
  const std::shared_ptr<std::atomic<bool>> cancelled_;  // may be null
  std::mutex mutex_;
  uint64_t bytes_ = 0;
  std::chrono::steady_clock::time_point last_{};
};

struct ArchivedFile {
  std::string name;
  uint64_t size;
  std::string content;  // as much as was asked for
};

struct ImageSize {
  std::string name;
  uint64_t size;
};

struct Unpacked {
  std::vector<FileDigest> files;
  std::vector<FileDigest> shards;  // as they are stored
};

// What goes into `directory`; without one, everything is read and digested, and goes nowhere.
Result<Unpacked> UnpackArchive(UniqueFd archive, Format format, Range range,
                               ImageDirectory* directory, Progress& progress);
// The same of these images, all that there are, with a writer: with a directory, only what that
// does not write goes there; without one, only what it writes is looked at, by all cores, and goes
// into memory.
Result<Unpacked> UnpackDirect(UniqueFd archive, Format format, Range range,
                              const std::vector<ImageSize>& images, ImageDirectory* directory,
                              MemoryWriter& writer, Progress& progress);
// All shards, in any order; together they have to hold exactly these images. A `writer`,
// or null, as above.
Result<Unpacked> UnpackShards(std::vector<UniqueFd> shards, Format format,
                              const std::vector<ImageSize>& images, ImageDirectory* directory,
                              MemoryWriter* writer, Progress& progress);
// Plain files of a directory. With a `writer`, without what it writes.
Result<Unpacked> CopyImages(int from_fd, const std::vector<std::string>& names,
                            ImageDirectory& directory, MemoryWriter* writer, Progress& progress);
// What the writer writes of plain files of a directory, all of which are digested.
Result<Unpacked> WritePages(int from_fd, const std::vector<std::string>& names,
                            MemoryWriter& writer, Progress& progress);

// The beginning of each named member, or of all but pages and ghost files, of which then only the
// size is told. Stops as soon as all names were seen. Of a shard, the pieces that it has are put
// together.
Result<std::vector<ArchivedFile>> ReadArchive(UniqueFd archive, Format format, Range range,
                                              bool is_shard,
                                              const std::optional<std::vector<std::string>>& names,
                                              uint64_t max_bytes);

// Whether parts of it are passed over without being unpacked, as far as its beginning tells.
Result<bool> CanSkip(int archive, Format format, Range range);

struct ArchivedPart {
  std::string name;
  Range range;  // where in the file its content is
};
// All files of a plain tar, those in directories too.
Result<std::vector<ArchivedPart>> ListArchive(UniqueFd archive);

void InitUnpack(Napi::Env env, Napi::Object exports);

}  // namespace cedana
