#pragma once

#include <array>
#include <optional>
#include <string_view>

namespace cedana {

// How an archive is packed: a tar, as it is or as one standard stream that the usual tools read.
enum class Format { kTar, kGzip, kLz4, kZlib, kZstd };

struct FormatTraits {
  std::string_view name;
  int default_level;
  int min_level;
  int max_level;
};

constexpr std::array<FormatTraits, 5> kFormats = {{
    {"tar", 0, 0, 0},
    {"gzip", 6, 0, 9},
    {"lz4", 1, -100, 12},
    {"zlib", 6, 0, 9},
    {"zstd", 3, -100, 22},
}};

constexpr const FormatTraits& TraitsOf(Format format) {
  return kFormats[static_cast<size_t>(format)];
}

// Images that may be large and are never looked into.
constexpr bool IsBulk(std::string_view name) {
  return name.starts_with("pages-") || name.starts_with("ghost-file-");
}

constexpr std::optional<Format> FormatOf(std::string_view name) {
  for (size_t i = 0; i < kFormats.size(); i++) {
    if (kFormats[i].name == name) return static_cast<Format>(i);
  }
  return std::nullopt;
}

}  // namespace cedana
