#include "shim/record.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <ctime>

namespace cedana::shim {
namespace {

constexpr char kState[] = "state";
constexpr char kExit[] = "exit";
constexpr char kSocket[] = "shim.sock";
constexpr char kLog[] = "shim.log";
constexpr int kBacklog = 16;

std::string NowMs() {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return std::to_string(static_cast<long long>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000);
}

std::string Line(const char* key, const std::string& value) {
  return std::string(key) + " " + value + "\n";
}

}  // namespace

Result<Record> Record::Open(const char* directory) {
  Record record;
  record.directory_.Reset(open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!record.directory_.valid()) return Errno::Last(std::string("open ") + directory);
  return record;
}

Result<Unit> Record::WriteState(const Options& options, pid_t pid, unsigned long long start_ticks,
                                const std::string& facts) {
  state_ = Line("pid", std::to_string(pid)) + Line("start_ticks", std::to_string(start_ticks)) +
           Line("boot_id", BootId()) + Line("shim_pid", std::to_string(getpid())) +
           Line("shim_start_ticks", std::to_string(StartTicks(getpid()))) +
           Line("stdio", NameOf(options.stdio));
  if (options.log != nullptr) state_ += Line("log", options.log);
  state_ += Line("started_at", NowMs()) + facts;
  return WriteDurably(kState, state_);
}

void Record::WriteExit(pid_t pid, std::optional<int> status) {
  code_ = status && WIFEXITED(*status) ? WEXITSTATUS(*status) : -1;
  signal_ = status && WIFSIGNALED(*status) ? WTERMSIG(*status) : 0;
  exit_ = Line("pid", std::to_string(pid)) + Line("code", std::to_string(code_)) +
          Line("signal", std::to_string(signal_)) + Line("exited_at", NowMs());
  const Result<Unit> written = WriteDurably(kExit, exit_);
  if (!written.ok()) Complain("exit: " + written.error().op, written.error().code);
}

Result<Unit> Record::WriteDurably(const char* name, const std::string& text) const {
  const int directory = directory_.get();
  const std::string temporary = std::string(".") + name;
  const UniqueFd fd(openat(directory, temporary.c_str(),
                           O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return Errno::Last("open");
  if (write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return Errno::Last("write");
  if (fsync(fd.get()) < 0) return Errno::Last("fsync");
  if (renameat(directory, temporary.c_str(), directory, name) < 0) return Errno::Last("rename");
  const UniqueFd names(openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!names.valid() || fsync(names.get()) < 0) return Errno::Last("fsync of the directory");
  return Unit{};
}

void Record::Complain(const std::string& what, int error) const {
  const UniqueFd fd(
      openat(directory_.get(), kLog, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  dprintf(fd.get(), "%s %s: %s\n", NowMs().c_str(), what.c_str(), strerror(error));
}

void Record::RemoveSocket() const { unlinkat(directory_.get(), kSocket, 0); }

void Record::RemoveAll() const {
  for (const char* name : {kState, kExit, kSocket, kLog, ".state", ".exit"})
    unlinkat(directory_.get(), name, 0);
}

Result<UniqueFd> Record::Listen() const {
  UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener.valid()) return Errno::Last("socket");
  // A socket's name has 107 bytes at most; through the descriptor it is short.
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  snprintf(name.sun_path, sizeof name.sun_path, "/proc/self/fd/%d/%s", directory_.get(), kSocket);
  RemoveSocket();
  const mode_t mask = umask(0177);
  const int bound = bind(listener.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name);
  const Errno error = Errno::Last("bind");
  umask(mask);
  if (bound < 0) return error;
  if (listen(listener.get(), kBacklog) < 0) return Errno::Last("listen");
  return listener;
}

}  // namespace cedana::shim
