#include "stream/pagemap.h"

#include <unistd.h>

#include <limits>

namespace cedana {

namespace {

constexpr uint32_t kImageMagic = 0x54564319;  // every image of criu
constexpr uint32_t kPagemapMagic = 0x56084025;

void PutFixed(std::string& out, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(value >> shift & 0xff);
}

void PutVarint(std::string& out, unsigned field, uint64_t value) {
  out += static_cast<char>(field << 3);
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value & 0x7f) + '\x80';
  out += static_cast<char>(value);
}

void PutRecord(std::string& out, const std::string& record) {
  PutFixed(out, static_cast<uint32_t>(record.size()));
  out += record;
}

}  // namespace

Pagemap::Pagemap(uint32_t pages_id, unsigned criu_version) : wide_(criu_version >= 40200) {
  PutFixed(image_, kImageMagic);
  PutFixed(image_, kPagemapMagic);
  std::string head;
  PutVarint(head, 1, pages_id);
  PutRecord(image_, head);
}

void Pagemap::Add(uint64_t address, uint64_t pages, uint32_t flags) {
  static const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const bool fits = pages_ + pages <= std::numeric_limits<uint32_t>::max();
  if (pages_ > 0 && flags == flags_ && fits && address == address_ + pages_ * page_bytes) {
    pages_ += pages;
    return;
  }
  Flush();
  address_ = address;
  pages_ = pages;
  flags_ = flags;
}

std::string Pagemap::Finish() {
  Flush();
  return std::move(image_);
}

void Pagemap::Flush() {
  if (pages_ == 0) return;
  std::string entry;
  PutVarint(entry, 1, address_);
  PutVarint(entry, 2, pages_);  // 4.2 keeps the old field for older readers
  PutVarint(entry, 4, flags_);
  if (wide_) PutVarint(entry, 5, pages_);
  PutRecord(image_, entry);
  pages_ = 0;
}

}  // namespace cedana
