#include "shim/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

namespace cedana::shim {
namespace {

constexpr char kOomScoreAdj[] = "/proc/self/oom_score_adj";

// Linux 6.13 (the ioctl) and 6.15 (the exit status); older headers have neither.
struct PidfdInfo {
  uint64_t mask;
  uint64_t cgroup;
  uint32_t ids[11];
  int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr uint64_t kInfoExit = 1U << 3;
constexpr unsigned long kGetInfo = _IOWR(0xFF, 11, PidfdInfo);
constexpr int kReapPatienceMs = 100;
constexpr int kExitCodeField = 52;

struct Trouble {
  const char* step;  // a literal: the same address in parent and child
  int code;
};

bool WriteText(const char* path, const std::string& text) {
  const UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
  return fd.valid() &&
         write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

void ResetSignals() {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void Abort(int trouble, const char* step) {
  const Trouble message = {step, errno};
  if (write(trouble, &message, sizeof message) < 0) _exit(126);
  _exit(127);
}

// Without root one may not set one's groups, not even to what they are. The main group counts as
// one of them, listed or not.
bool HasGroups(const Ids& ids) {
  if (geteuid() == 0) return false;
  std::vector<gid_t> own(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
  if (getgroups(static_cast<int>(own.size()), own.data()) < 0) return false;
  std::set<gid_t> have(own.begin(), own.end());
  std::set<gid_t> wanted(ids.groups.begin(), ids.groups.end());
  have.insert(getegid());
  wanted.insert(ids.gid);
  return have == wanted;
}

[[noreturn]] void RunChild(const ChildSpec& spec, const std::string& oom_score_adj, int go,
                           int trouble) {
  if (spec.new_session && setsid() < 0) Abort(trouble, "setup");
  if (spec.terminal >= 0 && ioctl(spec.terminal, TIOCSCTTY, 0) < 0) Abort(trouble, "tty");
  if (!oom_score_adj.empty()) WriteText(kOomScoreAdj, oom_score_adj);  // as best we can
  int scratch = 0;
  for (const auto& [from, to] : spec.fds) scratch = std::max(scratch, to + 1);
  go = fcntl(go, F_DUPFD_CLOEXEC, scratch);
  trouble = fcntl(trouble, F_DUPFD_CLOEXEC, scratch);
  if (go < 0 || trouble < 0) _exit(126);
  // In two passes: a number that is to be given away may be in use by one still to be moved.
  std::vector<std::pair<int, int>> moved;
  for (const auto& [from, to] : spec.fds) {
    const int copy = fcntl(from, F_DUPFD_CLOEXEC, scratch);
    if (copy < 0) Abort(trouble, "setup");
    moved.emplace_back(copy, to);
  }
  for (const auto& [from, to] : moved) {
    if (dup2(from, to) < 0) Abort(trouble, "setup");
  }
  if (spec.ids != nullptr) {
    const Ids& ids = *spec.ids;
    if (!HasGroups(ids) && setgroups(ids.groups.size(), ids.groups.data()) < 0)
      Abort(trouble, "ids");
    if (setresgid(ids.gid, ids.gid, ids.gid) < 0) Abort(trouble, "ids");
    if (setresuid(ids.uid, ids.uid, ids.uid) < 0) Abort(trouble, "ids");
  }
  if (chdir(spec.working_directory) < 0) Abort(trouble, "cwd");
  char byte = 0;
  if (read(go, &byte, 1) != 1) _exit(126);  // the shim is gone
  ResetSignals();
  // execvp would hand a file that is no program to /bin/sh.
  if (strchr(spec.argv[0], '/') != nullptr)
    execv(spec.argv[0], spec.argv);
  else
    execvp(spec.argv[0], spec.argv);
  Abort(trouble, "exec");
}

// A number of /proc/PID/stat, 0 when there is no such process.
unsigned long long StatField(pid_t pid, int number) {
  const std::string stat = ReadText(("/proc/" + std::to_string(pid) + "/stat").c_str());
  size_t at = stat.rfind(')');
  if (at == std::string::npos) return 0;
  for (int field = 2; field < number; ++field) {
    at = stat.find(' ', at + 1);
    if (at == std::string::npos) return 0;
  }
  return strtoull(stat.c_str() + at + 1, nullptr, 10);
}

std::vector<pid_t> ChildrenOf(pid_t parent) {
  std::vector<pid_t> children;
  const std::string tasks = "/proc/" + std::to_string(parent) + "/task/";
  DIR* threads = opendir(tasks.c_str());
  if (threads == nullptr) return children;
  while (const dirent* thread = readdir(threads)) {
    const std::string text = ReadText((tasks + thread->d_name + "/children").c_str());
    const char* at = text.c_str();
    for (char* end = nullptr;; at = end) {
      const long pid = strtol(at, &end, 10);
      if (end == at) break;
      children.push_back(static_cast<pid_t>(pid));
    }
  }
  closedir(threads);
  return children;
}

// Who made comes before what it made.
void CollectBelow(pid_t parent, std::vector<UniqueFd>* found) {
  for (const pid_t pid : ChildrenOf(parent)) {
    // It may not be ours to reap, and its number have become another's since.
    UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    if (!process.valid() || StatField(pid, 4) != static_cast<unsigned long long>(parent)) continue;
    found->push_back(std::move(process));
    CollectBelow(pid, found);
  }
}

}  // namespace

Result<Child> Child::Fork(const ChildSpec& spec, const std::string& oom_score_adj) {
  int go[2], trouble[2];
  if (pipe2(go, O_CLOEXEC) < 0) return Errno::Last("pipe2");
  const UniqueFd go_read(go[0]);
  UniqueFd go_write(go[1]);
  if (pipe2(trouble, O_CLOEXEC) < 0) return Errno::Last("pipe2");
  UniqueFd trouble_read(trouble[0]);
  const UniqueFd trouble_write(trouble[1]);
  Child child;
  child.pid_ = fork();
  if (child.pid_ < 0) return Errno::Last("fork");
  if (child.pid_ == 0) {
    go_write.Reset();  // else it would never see the shim's end
    RunChild(spec, oom_score_adj, go[0], trouble[1]);
  }
  child.go_ = std::move(go_write);
  child.trouble_ = std::move(trouble_read);
  return child;
}

bool Child::Go(Failure* failure) {
  const char byte = 1;
  [[maybe_unused]] const ssize_t sent =
      write(go_.get(), &byte, 1);  // fails when the child did already
  go_.Reset();
  Trouble message = {};
  const ssize_t size = read(trouble_.get(), &message, sizeof message);
  trouble_.Reset();
  if (size == 0) return true;
  *failure = size == sizeof message ? Failure{message.step, Errno{message.step, message.code}}
                                    : Failure{"setup", Errno::Last("read")};
  waitpid(pid_, nullptr, 0);
  return false;
}

std::string ProtectSelf(bool new_session) {
  // Blocked, not ignored: a child would inherit ignoring, and a blocked SIGPIPE is as good.
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (new_session) setsid();  // refused when the caller has done it for us
  std::string before = ReadText(kOomScoreAdj);
  if (!WriteText(kOomScoreAdj, "-999")) before.clear();  // needs CAP_SYS_RESOURCE
  return before;
}

bool Foreign::Hold(pid_t pid, unsigned long long start_ticks) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.valid() || StartTicks(pid) != start_ticks) return false;
  pid_ = pid;
  fd_ = std::move(fd);
  return true;
}

std::optional<int> Foreign::Status() const {
  std::optional<int> zombie;
  if (!fd_.valid()) return zombie;
  const std::string stat = ReadText(("/proc/" + std::to_string(pid_) + "/stat").c_str());
  const auto status = static_cast<int>(StatField(pid_, kExitCodeField));
  const size_t name_end = stat.rfind(')');
  const bool is_zombie = name_end != std::string::npos && stat.compare(name_end, 3, ") Z") == 0;
  pollfd polled = {fd_.get(), 0, 0};
  // Not reaped up to now, so the PID was not anybody else's.
  if (is_zombie && poll(&polled, 1, 0) == 0) zombie = status;
  poll(&polled, 1, kReapPatienceMs);
  PidfdInfo info = {};
  info.mask = kInfoExit;
  if (ioctl(fd_.get(), kGetInfo, &info) == 0 && (info.mask & kInfoExit) != 0) return info.exit_code;
  return zombie;
}

unsigned long long StartTicks(pid_t pid) { return StatField(pid, 22); }

std::string BootId() { return ReadText("/proc/sys/kernel/random/boot_id"); }

std::vector<pid_t> Children() { return ChildrenOf(getpid()); }

void KillBelowChildren() {
  std::vector<UniqueFd> found;
  for (const pid_t pid : Children()) CollectBelow(pid, &found);
  for (const UniqueFd& process : found)
    syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
}

void KillDescendants() {
  do {
    for (const pid_t pid : Children()) kill(pid, SIGKILL);
  } while (waitpid(-1, nullptr, 0) > 0);
}

std::string ReadText(const char* path) {
  const UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
  std::string text;
  char buffer[1024];
  ssize_t size = 0;
  while (fd.valid() && (size = read(fd.get(), buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(size));
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace cedana::shim
