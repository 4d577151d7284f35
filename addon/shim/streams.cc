#include "shim/streams.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "shim/protocol.h"

namespace cedana::shim {
namespace {

constexpr size_t kMaxWords = 512;
constexpr size_t kPipeSize = 64 << 10;
constexpr unsigned short kUsualRows = 24;
constexpr unsigned short kUsualColumns = 80;

// File system ids of somebody else for a while; the capabilities to pass over permissions go with
// them.
class AsUser {
 public:
  explicit AsUser(const Ids* ids) : active_(ids != nullptr) {
    if (!active_) return;
    own_groups_.resize(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
    getgroups(static_cast<int>(own_groups_.size()), own_groups_.data());
    setgroups(ids->groups.size(), ids->groups.data());
    setfsgid(ids->gid);
    setfsuid(ids->uid);
  }
  ~AsUser() {
    if (!active_) return;
    setfsuid(geteuid());
    setfsgid(getegid());
    setgroups(own_groups_.size(), own_groups_.data());
  }
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;

 private:
  bool active_;
  std::vector<gid_t> own_groups_;
};

Result<UniqueFd> OpenLog(const Options& options, Streams* streams) {
  // Not to wait for the reader of a FIFO, nor to get a controlling terminal.
  constexpr int kFlags = O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
  const Ids* ids = options.log_as_user ? &options.ids : nullptr;
  const AsUser as_user(ids);
  const mode_t mask = umask(0);
  UniqueFd fd(open(options.log, kFlags | O_NOFOLLOW | O_CREAT | O_EXCL, 0644));
  const bool created = fd.valid();
  if (!created && errno == EEXIST) fd.Reset(open(options.log, kFlags | O_NOFOLLOW));
  // A flag that stays with the descriptor: CRIU, which opens files by names below /proc/self/fd,
  // could not restore it.
  if (fd.valid()) fd.Reset(open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), kFlags));
  const Errno error = Errno::Last(std::string("open ") + options.log);
  umask(mask);
  if (!fd.valid()) return error;
  if (created) {
    streams->created_log = options.log;
    streams->log_ids = ids;
    // Only a file that we made is given away: an existing one is its owner's business.
    if (ids == nullptr && options.has_ids &&
        fchown(fd.get(), options.ids.uid, options.ids.gid) < 0) {
      return Errno::Last(std::string("chown ") + options.log);
    }
  }
  return fd;
}

bool OpenPipe(const Options& options, const char* fact, int job_end, UniqueFd* job, UniqueFd* ours,
              Streams* streams) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return false;
  job->Reset(ends[job_end]);
  ours->Reset(ends[1 - job_end]);
  struct stat facts = {};
  if (fcntl(ours->get(), F_SETFL, O_NONBLOCK) < 0 || fstat(job->get(), &facts) < 0) return false;
  // Else the job cannot reopen its own /dev/stdout.
  if (options.has_ids && fchown(job->get(), options.ids.uid, options.ids.gid) < 0) return false;
  streams->facts += std::string(fact) + " " + std::to_string(facts.st_ino) + "\n";
  return true;
}

bool OpenPipes(const Options& options, Streams* streams) {
  if (!OpenPipe(options, "stdin_inode", 0, &streams->job[0], &streams->stdin_write, streams))
    return false;
  if (!OpenPipe(options, "stdout_inode", 1, &streams->job[1], &streams->stdout_read, streams))
    return false;
  if (!OpenPipe(options, "stderr_inode", 1, &streams->job[2], &streams->stderr_read, streams))
    return false;
  streams->stdin_peek.Reset(fcntl(streams->job[0].get(), F_DUPFD_CLOEXEC, 3));
  return streams->stdin_peek.valid();
}

bool OpenTty(const Options& options, Streams* streams) {
  if (!streams->TakeTerminal(UniqueFd(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)), options))
    return false;
  const int slave = streams->slave.get();
  // What is written to one that stands in for another's is for that to make sense of.
  termios settings = {};
  if (options.foreign) {
    if (tcgetattr(slave, &settings) < 0) return false;
    cfmakeraw(&settings);
    if (tcsetattr(slave, TCSANOW, &settings) < 0) return false;
  }
  if (options.has_ids && fchown(slave, options.ids.uid, static_cast<gid_t>(-1)) < 0) return false;
  for (UniqueFd& end : streams->job) end.Reset(fcntl(slave, F_DUPFD_CLOEXEC, 3));
  return streams->job[0].valid() && streams->job[1].valid() && streams->job[2].valid();
}

bool DuplicateTo(Streams* streams, int in, int out, int err) {
  const int from[] = {in, out, err};
  for (int number = 0; number < 3; ++number) {
    streams->job[number].Reset(fcntl(from[number], F_DUPFD_CLOEXEC, 3));
    if (!streams->job[number].valid()) return false;
  }
  return true;
}

bool OpenAll(const Options& options, Streams* streams, Failure* failure) {
  *failure = {"setup", {}};
  const auto failed = [failure](const char* step, const char* call) {
    *failure = {step, Errno::Last(call)};
    return false;
  };
  streams->null.Reset(open("/dev/null", O_RDWR | O_CLOEXEC));
  const int null = streams->null.get();
  if (null < 0) return failed("setup", "open /dev/null");
  UniqueFd log;
  if (options.log != nullptr) {
    Result<UniqueFd> opened = OpenLog(options, streams);
    if (!opened.ok()) {
      *failure = {"log", opened.error()};
      return false;
    }
    log = std::move(opened.value());
  }
  switch (options.stdio) {
    case Stdio::kLog:
      if (fcntl(log.get(), F_SETFL, O_APPEND) < 0) return failed("log", "fcntl");
      return DuplicateTo(streams, null, log.get(), log.get()) || failed("setup", "dup");
    case Stdio::kPipe:
      streams->log = std::move(log);
      return OpenPipes(options, streams) || failed("setup", "pipe");
    case Stdio::kTty:
      streams->log = std::move(log);
      if (options.console_socket != nullptr) {
        streams->words.Reset(memfd_create("words", MFD_CLOEXEC));
        const int words = streams->words.get();
        return DuplicateTo(streams, null, words, words) || failed("setup", "memfd_create");
      }
      return OpenTty(options, streams) || failed("tty", "open a terminal");
    case Stdio::kInherit:
      return DuplicateTo(streams, 0, 1, 2) || failed("setup", "standard streams");
    case Stdio::kNone:
      return DuplicateTo(streams, null, null, null) || failed("setup", "dup");
  }
  return false;
}

}  // namespace

bool Streams::TakeTerminal(UniqueFd terminal, const Options& options) {
  const int fd = terminal.get();
  unsigned number = 0;
  struct stat slave_facts = {};
  winsize size = {};
  if (fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || unlockpt(fd) < 0) return false;
  // Not by its name: that is one of the mount namespace in which the terminal was made.
  UniqueFd peer(ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!peer.valid() || fstat(peer.get(), &slave_facts) < 0) return false;
  if (ioctl(fd, TIOCGPTN, &number) < 0 || ioctl(fd, TIOCGWINSZ, &size) < 0) return false;
  if (size.ws_row == 0 && size.ws_col == 0) {
    size.ws_row = options.rows != 0 ? options.rows : kUsualRows;
    size.ws_col = options.columns != 0 ? options.columns : kUsualColumns;
    if (ioctl(fd, TIOCSWINSZ, &size) < 0) return false;
  }
  facts = "tty /dev/pts/" + std::to_string(number) + "\ntty_rdev " +
          std::to_string(slave_facts.st_rdev) + "\ntty_dev " + std::to_string(slave_facts.st_dev) +
          "\n";
  master = std::move(terminal);
  slave = std::move(peer);
  return true;
}

std::string Streams::LastWords() const {
  struct stat facts = {};
  if (words.valid() && fstat(words.get(), &facts) == 0)
    lseek(words.get(), std::max<off_t>(0, facts.st_size - kPipeSize), SEEK_SET);
  const int from = words.valid() ? words.get() : stderr_read.get();
  std::string said;
  char buffer[4096];
  ssize_t size = 0;
  // No more than was there: what is about to be killed may still be writing.
  while (said.size() < kPipeSize && (size = read(from, buffer, sizeof buffer)) > 0)
    said.append(buffer, static_cast<size_t>(size));
  said.resize(said.find_last_not_of("\r\n ") + 1);
  return said.substr(said.find_last_of("\r\n") + 1, kMaxWords);
}

void Streams::Undo() const {
  if (created_log.empty()) return;
  const AsUser as_user(log_ids);
  struct stat facts = {};
  if (lstat(created_log.c_str(), &facts) == 0 && S_ISREG(facts.st_mode) && facts.st_size == 0)
    unlink(created_log.c_str());
}

bool OpenStreams(const Options& options, Streams* streams, Failure* failure) {
  if (OpenAll(options, streams, failure)) return true;
  streams->Undo();
  return false;
}

std::vector<std::pair<int, int>> JobDescriptors(const Streams& streams) {
  return {{streams.job[0].get(), 0}, {streams.job[1].get(), 1}, {streams.job[2].get(), 2}};
}

std::vector<std::pair<int, int>> CriuDescriptors(Stdio stdio, const Streams& streams) {
  const int null = streams.null.get();
  std::vector<std::pair<int, int>> fds = {{null, kSlotNull}};
  for (int number = 0; number < 3; ++number) {
    fds.emplace_back(stdio == Stdio::kInherit ? streams.job[number].get() : null, number);
  }
  switch (stdio) {
    case Stdio::kPipe:
    case Stdio::kInherit:
      fds.emplace_back(streams.job[0].get(), kSlotStdin);
      fds.emplace_back(streams.job[1].get(), kSlotStdout);
      fds.emplace_back(streams.job[2].get(), kSlotStderr);
      break;
    case Stdio::kTty:
      fds.emplace_back(streams.slave.get(), kSlotTty);
      fds.emplace_back(streams.slave.get(), kSlotTtyCopy);
      break;
    case Stdio::kLog:
      fds.emplace_back(streams.job[1].get(), kSlotLog);
      fds.emplace_back(streams.job[1].get(), kSlotLogCopy);
      break;
    case Stdio::kNone:
      break;
  }
  return fds;
}

}  // namespace cedana::shim
