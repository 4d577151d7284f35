#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cedana {

// Flags of a run of pages.
constexpr uint32_t kPageInParent = 1;
constexpr uint32_t kPagePresent = 4;  // its content is in the pages file
constexpr unsigned kWidePagesSince = 40200;

// The pagemap-*.img of one memory image in CRIU's format: which addresses the pages of a
// pages-*.img belong to, in order.
class Pagemap {
 public:
  // The number of the pages file, and the CRIU version (40201), which decides the fields.
  Pagemap(uint32_t pages_id, unsigned criu_version);

  // Adjacent runs with the same flags become one.
  void Add(uint64_t address, uint64_t pages, uint32_t flags);
  // The whole file.
  std::string Finish();

 private:
  void Flush();

  const bool wide_;  // 4.2 on: 64-bit page counts
  std::string image_;
  uint64_t address_ = 0;
  uint64_t pages_ = 0;
  uint32_t flags_ = 0;
};

struct PagemapEntry {
  uint64_t address = 0;
  uint64_t pages = 0;
  uint32_t flags = 0;
};

struct PagemapImage {
  uint32_t pages_id = 0;
  unsigned criu_version = 0;  // of whoever wrote it, as far as that decides the fields
  std::vector<PagemapEntry> entries;
};

// Nothing unless all of it is understood.
std::optional<PagemapImage> ReadPagemap(std::string_view image);

}  // namespace cedana
