#include "shim/options.h"

#include <getopt.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "shim/protocol.h"

namespace cedana::shim {
namespace {

constexpr Stdio kModes[] = {Stdio::kLog, Stdio::kPipe, Stdio::kTty, Stdio::kInherit, Stdio::kNone};

enum Option : int {
  kDir,
  kStdio,
  kRestore,
  kLog,
  kLogAsUser,
  kUid,
  kGid,
  kGroups,
  kCwd,
  kRows,
  kColumns,
  kWaitAttach,
  kForeground,
  kPreserve,
  kStdinFile,
  kStdinEof,
  kOpen,
  kPidFile,
  kForeign,
  kConsoleSocket
};

constexpr option kOptions[] = {
    {"dir", required_argument, nullptr, kDir},
    {"stdio", required_argument, nullptr, kStdio},
    {"restore", no_argument, nullptr, kRestore},
    {"log", required_argument, nullptr, kLog},
    {"log-as-user", no_argument, nullptr, kLogAsUser},
    {"uid", required_argument, nullptr, kUid},
    {"gid", required_argument, nullptr, kGid},
    {"groups", required_argument, nullptr, kGroups},
    {"cwd", required_argument, nullptr, kCwd},
    {"rows", required_argument, nullptr, kRows},
    {"columns", required_argument, nullptr, kColumns},
    {"wait-attach", no_argument, nullptr, kWaitAttach},
    {"foreground", no_argument, nullptr, kForeground},
    {"preserve", required_argument, nullptr, kPreserve},
    {"stdin-file", required_argument, nullptr, kStdinFile},
    {"stdin-eof", no_argument, nullptr, kStdinEof},
    {"open", required_argument, nullptr, kOpen},
    {"pid-file", required_argument, nullptr, kPidFile},
    {"foreign", no_argument, nullptr, kForeign},
    {"console-socket", required_argument, nullptr, kConsoleSocket},
    {nullptr, 0, nullptr, 0},
};

// A decimal number up to `max` that ends at `end`; false for anything else.
template <typename T>
bool ParseNumber(const char* text, char end, unsigned long max, T* value, const char** rest) {
  if (*text < '0' || *text > '9') return false;
  char* stop = nullptr;
  errno = 0;
  const unsigned long number = strtoul(text, &stop, 10);
  if (errno != 0 || *stop != end || number > max) return false;
  *value = static_cast<T>(number);
  if (rest != nullptr) *rest = stop + 1;
  return true;
}

template <typename T>
bool ParseNumber(const char* text, unsigned long max, T* value) {
  return ParseNumber(text, '\0', max, value, nullptr);
}

bool ParseStdio(const char* text, Stdio* stdio) {
  for (const Stdio mode : kModes) {
    if (strcmp(text, NameOf(mode)) != 0) continue;
    *stdio = mode;
    return true;
  }
  return false;
}

bool ParseGroups(const char* text, std::vector<gid_t>* groups) {
  while (*text != '\0') {
    const char end = strchr(text, ',') != nullptr ? ',' : '\0';
    gid_t group = 0;
    const char* rest = nullptr;
    if (!ParseNumber(text, end, 0xfffffffe, &group, &rest)) return false;
    groups->push_back(group);
    if (end == '\0') return true;
    text = rest;
  }
  return true;
}

bool ParseOpen(const char* text, std::vector<OpenRequest>* requests) {
  OpenRequest request;
  const char* rest = text;
  if (!ParseNumber(rest, ':', 1023, &request.fd, &rest)) return false;
  if (!ParseNumber(rest, ':', 0x7fffffff, &request.flags, &rest)) return false;
  if (request.fd < kFirstOpenFd || *rest == '\0') return false;
  request.path = rest;
  requests->push_back(request);
  return true;
}

Errno Invalid(const std::string& what) { return Errno{what, EINVAL}; }

}  // namespace

const char* NameOf(Stdio stdio) {
  switch (stdio) {
    case Stdio::kLog:
      return "log";
    case Stdio::kPipe:
      return "pipe";
    case Stdio::kTty:
      return "tty";
    case Stdio::kInherit:
      return "inherit";
    case Stdio::kNone:
      return "none";
  }
  return "none";
}

Result<Options> ParseOptions(int argc, char** argv) {
  constexpr unsigned long kMaxId = 0xfffffffe;
  Options options;
  bool has_stdio = false, has_uid = false, has_gid = false, has_groups = false;
  opterr = 0;
  int index = 0;
  int found = 0;
  while ((found = getopt_long(argc, argv, "+", kOptions, &index)) != -1) {
    bool good = true;
    switch (found) {
      case kDir:
        options.directory = optarg;
        break;
      case kStdio:
        good = has_stdio = ParseStdio(optarg, &options.stdio);
        break;
      case kRestore:
        options.restore = true;
        break;
      case kLog:
        good = strchr(optarg, '\n') == nullptr;
        options.log = optarg;
        break;
      case kLogAsUser:
        options.log_as_user = true;
        break;
      case kUid:
        good = has_uid = ParseNumber(optarg, kMaxId, &options.ids.uid);
        break;
      case kGid:
        good = has_gid = ParseNumber(optarg, kMaxId, &options.ids.gid);
        break;
      case kGroups:
        good = has_groups = ParseGroups(optarg, &options.ids.groups);
        break;
      case kCwd:
        options.working_directory = optarg;
        break;
      case kRows:
        good = ParseNumber(optarg, 65535, &options.rows);
        break;
      case kColumns:
        good = ParseNumber(optarg, 65535, &options.columns);
        break;
      case kWaitAttach:
        options.wait_attach = true;
        break;
      case kForeground:
        options.foreground = true;
        break;
      case kPreserve:
        good = ParseNumber(optarg, kLastPassedFd - STDERR_FILENO, &options.preserve);
        break;
      case kStdinFile:
        options.stdin_file = optarg;
        break;
      case kStdinEof:
        options.stdin_eof = true;
        break;
      case kOpen:
        good = ParseOpen(optarg, &options.open);
        break;
      case kPidFile:
        options.pid_file = optarg;
        break;
      case kForeign:
        options.foreign = true;
        break;
      case kConsoleSocket:
        options.console_socket = optarg;
        break;
      default:
        return Invalid(std::string("option ") + argv[optind - 1]);
    }
    if (!good) return Invalid(std::string("--") + kOptions[index].name + " " + optarg);
  }
  options.argv = argv + optind;
  options.has_ids = has_uid;
  if (options.directory == nullptr || !has_stdio) return Invalid("--dir and --stdio are needed");
  if (*options.argv == nullptr) return Invalid("no program given");
  if (has_uid != has_gid || has_uid != has_groups)
    return Invalid("--uid --gid --groups go together");
  if (options.log_as_user && !has_uid) return Invalid("--log-as-user needs ids");
  if (options.stdio == Stdio::kLog && options.log == nullptr)
    return Invalid("--stdio log needs --log");
  if (options.foreground && options.stdio != Stdio::kInherit)
    return Invalid("--foreground needs --stdio inherit");
  if (options.preserve > 0 && (options.restore || options.pid_file != nullptr))
    return Invalid("--preserve is for a program");
  if (!options.open.empty() && !options.restore) return Invalid("--open needs --restore");
  if (options.pid_file != nullptr && options.restore)
    return Invalid("--pid-file and --restore exclude each other");
  if (options.console_socket != nullptr &&
      (options.pid_file == nullptr || options.stdio != Stdio::kTty))
    return Invalid("--console-socket needs --pid-file and --stdio tty");
  if (options.foreign && (options.pid_file == nullptr || options.console_socket != nullptr))
    return Invalid("--foreign needs --pid-file and no --console-socket");
  return options;
}

}  // namespace cedana::shim
