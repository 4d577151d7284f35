#include "proc/procfs.h"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/fd.h"

namespace cedana {

namespace {

constexpr std::string_view kBlanks = " \t";

}  // namespace

std::optional<std::string> ReadProcFile(int dir, const std::string& path) {
  const UniqueFd fd(::openat(dir, path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return std::nullopt;
  std::string text;
  size_t used = 0;
  for (;;) {
    // Most files of /proc give one page at most per read, and all there is for a small one at once.
    if (text.size() - used < 4096) text.resize(std::max<size_t>(4096, text.size() * 2));
    const ssize_t got = ::read(fd.get(), text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  text.resize(used);
  return text;
}

std::optional<std::string> ReadProcLink(int dir, const std::string& path) {
  std::string target(4096, '\0');  // PATH_MAX: the kernel's limit for links of /proc
  const ssize_t length = ::readlinkat(dir, path.c_str(), target.data(), target.size());
  if (length < 0) return std::nullopt;
  target.resize(static_cast<size_t>(length));
  return target;
}

std::vector<std::string> ListProcDir(int dir, const std::string& path) {
  std::vector<std::string> names;
  UniqueFd fd(::openat(dir, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return names;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd.get()), ::closedir);
  if (!stream) return names;
  static_cast<void>(fd.Release());  // closedir closes it
  while (const dirent* entry = ::readdir(stream.get())) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  return names;
}

std::optional<ProcStat> ParseStat(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  // The name may hold anything, also blanks and parentheses.
  const size_t open = text->find('(');
  const size_t close = text->rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return std::nullopt;
  const auto rest = SplitFields(std::string_view(*text).substr(close + 1));
  if (rest.size() < 50) return std::nullopt;
  const auto field = [&rest](size_t number) { return rest[number - 3]; };
  return ProcStat{
      .pid = Number<pid_t>(*text),
      .name = text->substr(open + 1, close - open - 1),
      .state = field(3)[0],
      .parent = Number<pid_t>(field(4)),
      .group = Number<pid_t>(field(5)),
      .session = Number<pid_t>(field(6)),
      .terminal = Number<int>(field(7)),
      .start_ticks = std::string(field(22)),
      .exit_code = Number<int>(field(52)),
  };
}

std::vector<std::string_view> SplitLines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::vector<std::string_view> SplitFields(std::string_view line) {
  std::vector<std::string_view> fields;
  for (size_t at = line.find_first_not_of(" \t\n"); at != std::string_view::npos;) {
    const size_t end = std::min(line.find_first_of(" \t\n", at), line.size());
    fields.push_back(line.substr(at, end - at));
    at = line.find_first_not_of(" \t\n", end);
  }
  return fields;
}

std::vector<std::string> SplitArguments(std::string_view text) {
  std::vector<std::string> arguments;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\0'), text.size());
    arguments.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return arguments;
}

std::string_view FieldOf(std::string_view text, std::string_view key) {
  size_t at = 0;
  while (text.substr(at, key.size()) != key) {
    at = text.find('\n', at);
    if (at == std::string_view::npos) return {};
    at++;
  }
  std::string_view rest = text.substr(at + key.size());
  rest = rest.substr(0, rest.find('\n'));
  const size_t first = rest.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return rest.substr(first, rest.find_last_not_of(kBlanks) - first + 1);
}

}  // namespace cedana
