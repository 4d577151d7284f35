#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace cedana::shim {

enum class Stdio { kLog, kPipe, kTty, kInherit, kNone };
const char* NameOf(Stdio stdio);

struct Ids {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

struct OpenRequest {
  int fd = -1;
  int flags = 0;
  const char* path = nullptr;
};

// The command line, as protocol.h describes it.
struct Options {
  const char* directory = nullptr;
  Stdio stdio = Stdio::kNone;
  bool restore = false;
  const char* log = nullptr;
  bool log_as_user = false;
  bool has_ids = false;
  Ids ids;
  const char* working_directory = "/";
  unsigned short rows = 0;  // 0: not told
  unsigned short columns = 0;
  bool wait_attach = false;
  bool foreground = false;
  int preserve = 0;
  const char* stdin_file = nullptr;
  bool stdin_eof = false;
  std::vector<OpenRequest> open;
  const char* pid_file = nullptr;
  bool foreign = false;
  const char* console_socket = nullptr;
  char** argv = nullptr;
};

Result<Options> ParseOptions(int argc, char** argv);

}  // namespace cedana::shim
