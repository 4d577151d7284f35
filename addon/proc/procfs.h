#pragma once

#include <sys/types.h>

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cedana {

// Reading and parsing of /proc. Absence (a process that ended, a field of a newer kernel) is
// nullopt. `dir` is a descriptor of /proc/PID: such a one never shows another process that got the
// same PID.

std::optional<std::string> ReadProcFile(int dir, const std::string& path);
std::optional<std::string> ReadProcLink(int dir, const std::string& path);
// The names in a directory, without "." and "..".
std::vector<std::string> ListProcDir(int dir, const std::string& path);

// The fields of /proc/PID/stat that we use; number of the field as in proc(5).
struct ProcStat {
  pid_t pid = 0;            // 1
  std::string name;         // 2
  char state = '?';         // 3
  pid_t parent = 0;         // 4
  pid_t group = 0;          // 5
  pid_t session = 0;        // 6
  int terminal = 0;         // 7
  std::string start_ticks;  // 22
  int exit_code = 0;        // 52
};
std::optional<ProcStat> ParseStat(const std::optional<std::string>& text);

std::vector<std::string_view> SplitLines(std::string_view text);
// Parts between runs of blanks.
std::vector<std::string_view> SplitFields(std::string_view line);
// The arguments in the text of /proc/PID/cmdline.
std::vector<std::string> SplitArguments(std::string_view text);
// The rest of the line that begins with `key` ("Uid:"), blanks around removed; empty when there is
// none.
std::string_view FieldOf(std::string_view text, std::string_view key);

// 0 when it is not a number.
template <typename T>
T Number(std::string_view text, int base = 10) {
  T value{};
  std::from_chars(text.data(), text.data() + text.size(), value, base);
  return value;
}

// Those between runs of blanks.
template <typename T>
std::vector<T> Numbers(std::string_view text) {
  std::vector<T> out;
  for (const auto field : SplitFields(text)) out.push_back(Number<T>(field));
  return out;
}

}  // namespace cedana
