// cedana-shim: holds one job's standard streams, log and exit status, so that the job can outlive
// the daemon. What it is told and what it tells: protocol.h.

#include <fcntl.h>
#include <linux/close_range.h>
#include <malloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "shim/options.h"
#include "shim/process.h"
#include "shim/protocol.h"
#include "shim/record.h"
#include "shim/relay.h"
#include "shim/start.h"
#include "shim/streams.h"

namespace cedana::shim {
namespace {

void Report(const std::string& line) {
  UniqueFd report(kReportFd);
  [[maybe_unused]] const ssize_t written =
      write(report.get(), line.data(), line.size());  // perhaps nobody is there
}

int ReportFailure(const Failure& failure) {
  std::string text = failure.error.op;
  for (char& byte : text) {
    if (static_cast<unsigned char>(byte) < ' ') byte = ' ';
  }
  Report(std::string("failed ") + failure.step + " " + std::to_string(failure.error.code) + " " +
         text + "\n");
  return 1;
}

// 0, 1, 2 are open, nothing that we were given reaches a child by itself, nothing else is open.
// Answers what CRIU, or a program, is to get of it: up to `last`.
std::vector<std::pair<int, int>> TidyDescriptors(int last) {
  while (true) {
    const int fd = open("/dev/null", O_RDWR);
    if (fd > STDERR_FILENO) close(fd);
    if (fd < 0 || fd > STDERR_FILENO) break;
  }
  std::vector<std::pair<int, int>> passed;
  for (int fd = kRpcFd; fd <= kLastPassedFd; ++fd) {
    if (fd > last) {
      close(fd);
    } else if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) {
      passed.emplace_back(fd, fd);
    }
  }
  fcntl(kReportFd, F_SETFD, FD_CLOEXEC);
  syscall(SYS_close_range, kReportFd + 1, ~0U, 0);
  return passed;
}

// The shim itself must not keep anybody's terminal or pipe open.
void LetGoOfCaller(int null) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) dup2(null, fd);
}

bool ReadInput(const Options& options, std::string* input, Failure* failure) {
  if (options.stdin_file == nullptr) return true;
  const UniqueFd fd(open(options.stdin_file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) {
    *failure = {"setup", Errno::Last(std::string("open ") + options.stdin_file)};
    return false;
  }
  char buffer[4096];
  ssize_t size = 0;
  while ((size = read(fd.get(), buffer, sizeof buffer)) > 0)
    input->append(buffer, static_cast<size_t>(size));
  unlink(options.stdin_file);
  return true;
}

int Main(int argc, char** argv) {
  Result<Options> parsed = ParseOptions(argc, argv);
  const std::vector<std::pair<int, int>> passed =
      TidyDescriptors(!parsed.ok()             ? STDERR_FILENO
                      : parsed.value().restore ? kLastPassedFd
                                               : STDERR_FILENO + parsed.value().preserve);
  if (!parsed.ok()) return ReportFailure({"setup", parsed.error()});
  const Options& options = parsed.value();
  // Buffers of a busy moment go back to the kernel: there may be a thousand of us.
  mallopt(M_MMAP_THRESHOLD, 64 << 10);
  mallopt(M_TRIM_THRESHOLD, 64 << 10);
  const std::string oom_score_adj = ProtectSelf(!options.foreground);

  Failure failure;
  Streams streams;
  std::string input;
  Result<Record> record = Record::Open(options.directory);
  if (!record.ok()) return ReportFailure({"setup", record.error()});
  if (!ReadInput(options, &input, &failure) || !OpenStreams(options, &streams, &failure))
    return ReportFailure(failure);
  Result<UniqueFd> listener = record.value().Listen();
  const Start start = {options, &streams, &record.value(), oom_score_adj, passed, &failure};
  Root root;
  if (!listener.ok()) {
    failure = {"setup", {"shim.sock: " + listener.error().op, listener.error().code}};
  } else {
    root = StartJob(start);
  }
  if (root.pid < 0) {
    KillDescendants();
    record.value().RemoveAll();
    streams.Undo();
    return ReportFailure(failure);
  }
  for (UniqueFd& end : streams.job) end.Reset();
  LetGoOfCaller(streams.null.get());
  streams.null.Reset();
  [[maybe_unused]] const int moved = chdir("/");  // so that no file system is kept busy
  const auto identity = [](pid_t pid, unsigned long long start_ticks) {
    return std::to_string(pid) + " " + std::to_string(start_ticks) + " ";
  };
  Report("started " + identity(root.pid, root.start_ticks) +
         identity(getpid(), StartTicks(getpid())) + BootId() + "\n");

  static Relay relay(options, &streams, &record.value(), std::move(listener.value()));
  relay.SetInput(input, options.stdin_eof);
  relay.Run(std::move(root));
  record.value().RemoveSocket();
  return 0;
}

}  // namespace
}  // namespace cedana::shim

int main(int argc, char** argv) { return cedana::shim::Main(argc, argv); }
