#include "proc/mounts.h"

#include <algorithm>

#include "proc/procfs.h"

namespace cedana {

namespace {

// The kernel writes blanks, newlines and backslashes in names as \ooo.
std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>(Number<unsigned char>(text.substr(i + 1, 3), 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::vector<MountFacts> ReadMounts(int dir) {
  std::vector<MountFacts> mounts;
  const auto text = ReadProcFile(dir, "mountinfo");
  if (!text) return mounts;
  for (const auto line : SplitLines(*text)) {
    // id parent device root path options [optional fields…] - filesystem source super-options
    const auto fields = SplitFields(line);
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (dash - fields.begin() < 6 || fields.end() - dash < 3) continue;
    mounts.push_back(MountFacts{
        .id = Number<int>(fields[0]),
        .parent_id = Number<int>(fields[1]),
        .device = std::string(fields[2]),
        .root = Unescape(fields[3]),
        .path = Unescape(fields[4]),
        .options = std::string(fields[5]),
        .filesystem = std::string(dash[1]),
        .source = fields.end() - dash > 3 ? Unescape(dash[2]) : "",  // it may be empty
    });
  }
  return mounts;
}

}  // namespace cedana
