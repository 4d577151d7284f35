#include "stream/tar.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace cedana {

namespace {

// ustar: offset and length of the fields used here.
struct Field {
  size_t at;
  size_t size;
};
constexpr Field kName{0, 100};
constexpr Field kMode{100, 8};
constexpr Field kUid{108, 8};
constexpr Field kGid{116, 8};
constexpr Field kSize{124, 12};
constexpr Field kTime{136, 12};
constexpr Field kChecksum{148, 8};
constexpr size_t kType = 156;
constexpr Field kMagic{257, 8};
constexpr Field kPrefix{345, 155};

constexpr uint64_t kOctalLimit = uint64_t{1} << 33;  // eleven digits
constexpr uint64_t kExtensionLimit = 1 << 20;
constexpr std::string_view kImageFolder = "checkpoint/";

std::string_view View(const TarBlock& block, Field field) {
  return {block.data() + field.at, field.size};
}
std::string Text(const TarBlock& block, Field field) {
  const auto view = View(block, field);
  return std::string(view.substr(0, view.find('\0')));
}

void PutOctal(TarBlock& block, Field field, uint64_t value) {
  std::snprintf(block.data() + field.at, field.size, "%0*llo", static_cast<int>(field.size - 1),
                static_cast<unsigned long long>(value));
}

// Octal, or base 256 with the top bit set, as GNU tar writes what does not fit.
void PutNumber(TarBlock& block, Field field, uint64_t value) {
  if (value < kOctalLimit) return PutOctal(block, field, value);
  for (size_t i = field.size - 1; i > 0; i--, value >>= 8)
    block[field.at + i] = static_cast<char>(value & 0xff);
  block[field.at] = '\x80';
}

std::optional<uint64_t> Number(const TarBlock& block, Field field) {
  auto digits = View(block, field);
  uint64_t value = 0;
  if (digits[0] == '\x80') {
    for (const char c : digits.substr(1)) {
      if (value >> 55 != 0) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(c);
    }
    return value;
  }
  digits.remove_prefix(std::min(digits.find_first_not_of(' '), digits.size()));
  const size_t end = std::min(digits.find_first_of(std::string_view(" \0", 2)), digits.size());
  if (digits.substr(end).find_first_not_of(std::string_view(" \0", 2)) != std::string_view::npos)
    return std::nullopt;
  for (const char c : digits.substr(0, end)) {
    if (c < '0' || c > '7') return std::nullopt;
    value = value << 3 | static_cast<uint64_t>(c - '0');
  }
  return value;
}

uint64_t Sum(const TarBlock& block) {
  uint64_t sum = 0;
  for (size_t i = 0; i < block.size(); i++) {
    const bool is_checksum = i >= kChecksum.at && i < kChecksum.at + kChecksum.size;
    sum += is_checksum ? ' ' : static_cast<unsigned char>(block[i]);
  }
  return sum;
}

bool IsZero(std::span<const char> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

Errno Bad(const std::string& what) { return {"tar: " + what, EBADMSG}; }

// Neither absolute nor with a part that is empty, "." or "..".
bool StaysInside(std::string_view name) {
  while (true) {
    const size_t end = name.find('/');
    const std::string_view part = name.substr(0, end);
    if (part.empty() || part == "." || part == "..") return false;
    if (end == std::string_view::npos) return true;
    name.remove_prefix(end + 1);
  }
}

}  // namespace

TarBlock TarHeader(const std::string& name, uint64_t size, int64_t modified) {
  TarBlock block{};
  std::copy_n(name.data(), std::min(name.size(), kName.size), block.data() + kName.at);
  const bool is_directory = name.ends_with('/');
  PutOctal(block, kMode, is_directory ? 0700 : 0600);
  PutOctal(block, kUid, 0);
  PutOctal(block, kGid, 0);
  PutNumber(block, kSize, size);
  PutOctal(block, kTime, modified > 0 ? static_cast<uint64_t>(modified) % kOctalLimit : 0);
  block[kType] = is_directory ? '5' : '0';
  std::memcpy(block.data() + kMagic.at, "ustar\00000", kMagic.size);
  std::snprintf(block.data() + kChecksum.at, kChecksum.size, "%06llo",
                static_cast<unsigned long long>(Sum(block)));
  block[kChecksum.at + 7] = ' ';
  return block;
}

Result<std::optional<TarReader::Member>> TarReader::Next() {
  while (true) {
    if (auto error = SkipContent()) return *error;
    TarBlock block;
    if (auto error = ReadBlock(block)) return *error;
    if (IsZero(block)) {
      if (auto error = ExpectEnd()) return *error;
      return std::optional<Member>();
    }
    const auto checksum = Number(block, kChecksum);
    const auto size = Number(block, kSize);
    if (View(block, kMagic).substr(0, 5) != "ustar" || !checksum || *checksum != Sum(block))
      return Bad("bad header");
    if (!size) return Bad("bad size");
    left_ = *size;
    padding_ = (kTarBlock - left_ % kTarBlock) % kTarBlock;
    std::string name = Text(block, kName);
    const bool is_gnu = View(block, kMagic)[5] == ' ';  // its prefix field holds other things
    if (!is_gnu && block[kPrefix.at] != 0) name = Text(block, kPrefix) + "/" + name;
    switch (block[kType]) {
      case '0':
      case '\0':
      case '7':
        break;
      case '1':
      case '2':
        return Bad("link " + name);
      case 'L':
      case 'K':
      case 'S':
        return Bad("unsupported entry of type " + std::string(1, block[kType]));
      case 'x':
      case 'g':
        if (auto error = CheckExtension()) return *error;
        continue;
      default:
        continue;
    }
    if (name.starts_with("./")) name.erase(0, 2);
    if (!StaysInside(name)) return Bad("refused name " + name);
    if (files_ == Files::kAll) return std::optional(Member{std::move(name), left_});
    if (name.starts_with(kImageFolder)) name.erase(0, kImageFolder.size());
    if (name.find('/') != std::string::npos) continue;
    return std::optional(Member{std::move(name), left_});
  }
}

std::optional<Errno> TarReader::Read(std::span<std::byte> out) {
  left_ -= out.size();
  return source_.ReadAll(out);
}

std::optional<Errno> TarReader::Skip(uint64_t size) {
  left_ -= size;
  return source_.Skip(size);
}

std::optional<Errno> TarReader::SkipContent() {
  if (auto error = Skip(left_)) return error;
  TarBlock zeros;
  const std::span<char> padding = std::span(zeros).first(padding_);
  if (auto error = source_.ReadAll(std::as_writable_bytes(padding))) return error;
  padding_ = 0;
  if (!IsZero(padding)) return Bad("bad padding");
  return std::nullopt;
}

// After the first block of zeros: a second one, then zeros only.
std::optional<Errno> TarReader::ExpectEnd() {
  TarBlock block;
  if (auto error = ReadBlock(block)) return error;
  while (true) {
    if (!IsZero(block)) return Bad("data after the end");
    const auto n = source_.Read(std::as_writable_bytes(std::span(block)));
    if (!n.ok()) return n.error();
    if (n.value() == 0) return std::nullopt;
    std::fill(block.begin() + static_cast<std::ptrdiff_t>(n.value()), block.end(), '\0');
  }
}

std::optional<Errno> TarReader::ReadBlock(TarBlock& block) {
  return source_.ReadAll(std::as_writable_bytes(std::span(block)));
}

// Extended headers mostly carry times; one that renames or resizes the next file we would get
// wrong.
std::optional<Errno> TarReader::CheckExtension() {
  if (left_ > kExtensionLimit) return Bad("bad extended header");
  std::string records(left_, '\0');
  if (auto error = Read(std::as_writable_bytes(std::span(records)))) return error;
  for (const char* key : {" path=", " size=", " linkpath=", " GNU.sparse"}) {
    if (records.find(key) != std::string::npos)
      return Bad(std::string("unsupported extended header") + key);
  }
  return std::nullopt;
}

}  // namespace cedana
