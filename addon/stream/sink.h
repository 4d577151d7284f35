#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "stream/writer.h"

namespace cedana {

// Where the images of a dump go. Files are filled one after the other, by one thread.
class ImageSink {
 public:
  ImageSink() = default;
  ImageSink(const ImageSink&) = delete;
  ImageSink& operator=(const ImageSink&) = delete;
  virtual ~ImageSink() = default;

  virtual Result<OutputFile*> CreatePages(const std::string& name) = 0;
  virtual Result<OutputFile*> CreateImage(const std::string& name) = 0;
  // As of a BlockWriter.
  virtual void Prepare(uint64_t bytes) = 0;
  virtual void Go() = 0;
  [[nodiscard]] virtual BlockPool& blocks() = 0;
  // Waits until all files are where they go. Those since the last time, in their order.
  virtual Result<std::vector<FileDigest>> Drain() = 0;
  virtual void Fail(Errno error) = 0;
  // As of a BlockWriter.
  virtual void OnFailure(std::function<void()> callback) = 0;
  [[nodiscard]] virtual std::optional<Errno> error() = 0;
  [[nodiscard]] virtual uint64_t written() const = 0;
};

}  // namespace cedana
