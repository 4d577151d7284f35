#include "stream/pagemap.h"

#include <unistd.h>

#include <limits>

namespace cedana {

namespace {

constexpr uint32_t kImageMagic = 0x54564319;  // every image of criu
constexpr uint32_t kPagemapMagic = 0x56084025;
// Fields of the head, and of an entry.
constexpr uint64_t kPagesId = 1;
constexpr uint64_t kAddress = 1;
constexpr uint64_t kPages = 2;
constexpr uint64_t kInParent = 3;
constexpr uint64_t kFlags = 4;
constexpr uint64_t kWidePages = 5;

void PutFixed(std::string& out, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(value >> shift & 0xff);
}

void PutVarint(std::string& out, uint64_t field, uint64_t value) {
  out += static_cast<char>(field << 3);
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value & 0x7f) + '\x80';
  out += static_cast<char>(value);
}

void PutRecord(std::string& out, const std::string& record) {
  PutFixed(out, static_cast<uint32_t>(record.size()));
  out += record;
}

std::optional<uint32_t> TakeFixed(std::string_view& in) {
  if (in.size() < 4) return std::nullopt;
  uint32_t value = 0;
  for (size_t i = 0; i < 4; i++) value |= uint32_t{static_cast<unsigned char>(in[i])} << (8 * i);
  in.remove_prefix(4);
  return value;
}

std::optional<uint64_t> TakeVarint(std::string_view& in) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(in[0]);
    in.remove_prefix(1);
    value |= uint64_t{byte & 0x7fU} << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

// Calls `take(field, value)` for each field of a record, all of them integers, until it is false.
template <typename Take>
bool TakeRecord(std::string_view& in, const Take& take) {
  const auto size = TakeFixed(in);
  if (!size || *size > in.size()) return false;
  std::string_view record = in.substr(0, *size);
  in.remove_prefix(*size);
  while (!record.empty()) {
    const auto tag = TakeVarint(record);
    if (!tag || (*tag & 7) != 0) return false;
    const auto value = TakeVarint(record);
    if (!value || !take(*tag >> 3, *value)) return false;
  }
  return true;
}

}  // namespace

Pagemap::Pagemap(uint32_t pages_id, unsigned criu_version)
    : wide_(criu_version >= kWidePagesSince) {
  PutFixed(image_, kImageMagic);
  PutFixed(image_, kPagemapMagic);
  std::string head;
  PutVarint(head, kPagesId, pages_id);
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
  PutVarint(entry, kAddress, address_);
  PutVarint(entry, kPages, pages_);  // 4.2 keeps the old field for older readers
  PutVarint(entry, kFlags, flags_);
  if (wide_) PutVarint(entry, kWidePages, pages_);
  PutRecord(image_, entry);
  pages_ = 0;
}

std::optional<PagemapImage> ReadPagemap(std::string_view image) {
  if (TakeFixed(image) != kImageMagic || TakeFixed(image) != kPagemapMagic) return std::nullopt;
  PagemapImage read;
  const bool has_head = TakeRecord(image, [&](uint64_t field, uint64_t value) {
    read.pages_id = static_cast<uint32_t>(value);
    return field == kPagesId;
  });
  if (!has_head) return std::nullopt;
  while (!image.empty()) {
    PagemapEntry entry;
    std::optional<uint64_t> flags;
    bool in_parent = false;
    const bool is_known = TakeRecord(image, [&](uint64_t field, uint64_t value) {
      if (field == kAddress) entry.address = value;
      if (field == kPages && entry.pages == 0) entry.pages = value;
      if (field == kInParent) in_parent = value != 0;
      if (field == kFlags) flags = value;
      if (field == kWidePages) {
        entry.pages = value;
        read.criu_version = kWidePagesSince;
      }
      return field >= kAddress && field <= kWidePages;
    });
    if (!is_known) return std::nullopt;
    // CRIU 2 knew only whether pages are in the parent.
    entry.flags = static_cast<uint32_t>(flags.value_or(in_parent ? kPageInParent : kPagePresent));
    read.entries.push_back(entry);
  }
  return read;
}

}  // namespace cedana
