#include "shim/start.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstring>

#include "shim/console.h"

namespace cedana::shim {
namespace {

// How long a launcher that is given up may take to undo what it did. CRIU has nothing to undo.
constexpr int kUndoMs = 5000;
constexpr int kUndoStepMs = 20;
constexpr int kKillAgainMs = 1000;
// How long after a launcher's end the root may take to become our child, and its terminal to come.
constexpr int kSettleMs = 2000;
constexpr int kSettleStepMs = 5;
// How long a root that is another's child waits for us to hold it, before it is started.
constexpr int kHoldStepMs = 2;

Root OwnRoot(pid_t pid) { return {pid, StartTicks(pid), {}}; }

Root StartProgram(const Start& start) {
  const Options& options = start.options;
  ChildSpec spec;
  spec.argv = options.argv;
  spec.fds = JobDescriptors(*start.streams);
  spec.fds.insert(spec.fds.end(), start.passed.begin(), start.passed.end());
  spec.new_session = !options.foreground;
  spec.terminal = start.streams->slave.get();
  spec.ids = options.has_ids ? &options.ids : nullptr;
  spec.working_directory = options.working_directory;
  Result<Child> child = Child::Fork(spec, start.oom_score_adj);
  if (!child.ok()) {
    *start.failure = {"setup", child.error()};
    return {};
  }
  const pid_t pid = child.value().pid();
  // Known durably before its first instruction: from then on it can have effects.
  const Result<Unit> written =
      start.record->WriteState(options, pid, StartTicks(pid), start.streams->facts);
  if (!written.ok()) {
    *start.failure = {"setup", {"state: " + written.error().op, written.error().code}};
    return {};
  }
  const bool runs = child.value().Go(start.failure);
  for (const auto& [fd, number] : start.passed) close(fd);
  return runs ? OwnRoot(pid) : Root{};
}

struct Made {
  int status = 0;
  bool given_up = false;
  [[nodiscard]] bool ok() const {
    return !given_up && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
};

// "PID START_TICKS", which is there as a whole or not at all. False when it is not.
bool ReadForeign(const char* path, Root* root) {
  const std::string text = ReadText(path);
  const char* const end = text.data() + text.size();
  const auto [blank, pid_error] = std::from_chars(text.data(), end, root->pid);
  if (pid_error != std::errc() || blank == end) return false;
  const auto [rest, ticks_error] = std::from_chars(blank + 1, end, root->start_ticks);
  return ticks_error == std::errc() && rest == end && root->pid > 0;
}

// Once its launcher has named it. That the file is gone tells the launcher that it is held, and may
// be started: however soon it ends, how it ended is known.
void TakeForeign(const Options& options, Root* root) {
  if (!options.foreign || root->pid > 0 || !ReadForeign(options.pid_file, root)) return;
  [[maybe_unused]] const bool held = root->foreign.Hold(root->pid, root->start_ticks);
  unlink(options.pid_file);
}

// Until what makes the job has ended. When SIGTERM tells to give it up, what it waits for is
// killed, and it itself unless it ends for that by `patience_ms`: a container runtime has cgroups
// to remove, and a directory. Nothing else is reaped meanwhile, so that the root is found among our
// children even when it has ended already.
Made WaitForMaker(pid_t maker, const Options& options, Console* console, Root* root,
                  int patience_ms) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGTERM);
  const UniqueFd signals(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  Made made;
  while (waitpid(maker, &made.status, WNOHANG) == 0) {
    pollfd polled[] = {{signals.get(), POLLIN, 0}, {console->fd(), POLLIN, 0}};
    const bool awaits_root = options.foreign && root->pid < 0;
    poll(polled, 2, made.given_up ? kUndoStepMs : awaits_root ? kHoldStepMs : -1);
    TakeForeign(options, root);
    if (polled[1].revents != 0) console->Receive();
    signalfd_siginfo info;
    while (read(signals.get(), &info, sizeof info) > 0) {
      made.given_up = made.given_up || info.ssi_signo == SIGTERM;
    }
    if (!made.given_up) continue;
    // What it waits for is not below us.
    if (options.foreign && patience_ms == kUndoMs) kill(maker, SIGTERM);
    // First where it has nothing to undo: it would see what it waits for fail, and might be
    // quicker.
    if (patience_ms <= 0) kill(maker, SIGKILL);
    // Again only when it has got over that: it may need others to undo what it did.
    if (patience_ms % kKillAgainMs == 0) KillBelowChildren();
    patience_ms -= kUndoStepMs;
  }
  return made;
}

std::string DescribeEnd(const Made& made) {
  const int status = made.status;
  if (WIFSIGNALED(status)) return "was killed by signal " + std::to_string(WTERMSIG(status));
  if (WEXITSTATUS(status) == 0) return "was given up";
  return "exited with code " + std::to_string(WEXITSTATUS(status));
}

// The root runs: losing it for a disk that is full would be worse than a daemon that has to look
// for it.
Root Recorded(const Start& start, Root root) {
  const Result<Unit> written =
      start.record->WriteState(start.options, root.pid, root.start_ticks, start.streams->facts);
  if (!written.ok()) start.record->Complain("state: " + written.error().op, written.error().code);
  return root;
}

// The restored root is our oldest child: whatever else is there came from it.
pid_t FindRoot() {
  pid_t root = -1;
  unsigned long long oldest = ~0ULL;
  for (const pid_t pid : Children()) {
    const unsigned long long ticks = StartTicks(pid);
    if (ticks >= oldest) continue;
    oldest = ticks;
    root = pid;
  }
  return root;
}

Root RestoreTree(const Start& start) {
  const Options& options = start.options;
  ChildSpec spec;
  spec.argv = options.argv;
  spec.fds = CriuDescriptors(options.stdio, *start.streams);
  spec.fds.insert(spec.fds.end(), start.passed.begin(), start.passed.end());
  std::vector<UniqueFd> opened;
  for (const OpenRequest& request : options.open) {
    opened.emplace_back(open(request.path, request.flags | O_NOCTTY | O_CLOEXEC, 0600));
    if (!opened.back().valid()) {
      *start.failure = {"open", Errno::Last(request.path)};
      return {};
    }
    spec.fds.emplace_back(opened.back().get(), request.fd);
  }
  // A child in our session: a leader could take the job's terminal for its own.
  Result<Child> child = Child::Fork(spec, start.oom_score_adj);
  if (!child.ok()) {
    *start.failure = {"setup", child.error()};
    return {};
  }
  if (!child.value().Go(start.failure)) {
    start.failure->step = "criu";
    return {};
  }
  for (const auto& [fd, number] : start.passed)
    close(fd);  // else nobody would see CRIU's end of the socket close
  Console none(options, start.streams);
  Root unnamed;
  const Made made = WaitForMaker(child.value().pid(), options, &none, &unnamed, 0);
  const pid_t root = made.ok() ? FindRoot() : -1;
  if (root < 0) {
    const std::string what = made.ok() ? "restored nothing" : DescribeEnd(made);
    *start.failure = {"criu", {"criu " + what, 0}};
    return {};
  }
  return Recorded(start, OwnRoot(root));
}

// -1 when there is none.
pid_t ReadPid(const char* path) {
  const std::string text = ReadText(path);
  pid_t pid = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  return error == std::errc() && end == text.data() + text.size() && pid > 0 ? pid : -1;
}

// A zombie is one still.
bool IsOurChild(pid_t pid) {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

// What is wrong with what a launcher has left; empty when nothing is.
std::string Settle(const Start& start, pid_t root, Console* console) {
  if (root < 0) return "wrote no PID to its pid file";
  bool is_ours = false;
  for (int waited = 0; waited < kSettleMs; waited += kSettleStepMs) {
    is_ours = is_ours || IsOurChild(root);
    if (is_ours && console->fd() < 0) break;
    if (!is_ours && kill(root, 0) < 0) break;  // it never will be
    pollfd polled = {console->fd(), POLLIN, 0};
    if (poll(&polled, 1, kSettleStepMs) > 0) console->Receive();
  }
  if (!is_ours) return "left no process " + std::to_string(root) + ", which its pid file names";
  if (start.options.console_socket != nullptr && !start.streams->master.valid())
    return "handed on no terminal";
  return {};
}

// A launcher may have handed its work on to another process, and that to undo it too.
void AwaitUndone(pid_t root) {
  if (root > 0 && IsOurChild(root)) kill(root, SIGKILL);
  for (int waited = 0; waited < kUndoMs && waitpid(-1, nullptr, WNOHANG) >= 0;
       waited += kUndoStepMs) {
    poll(nullptr, 0, kUndoStepMs);
  }
}

// A restored terminal has the size it had at the dump until now, and its processes believe in it:
// only a change that comes when they are all there reaches them.
void SetWindowSize(const Start& start) {
  winsize size = {};
  const int master = start.streams->master.get();
  if (master < 0 || ioctl(master, TIOCGWINSZ, &size) < 0) return;
  if (start.options.rows != 0) size.ws_row = start.options.rows;
  if (start.options.columns != 0) size.ws_col = start.options.columns;
  ioctl(master, TIOCSWINSZ, &size);  // unchanged, it does nothing
}

Root LaunchTree(const Start& start) {
  const Options& options = start.options;
  Console console(options, start.streams);
  const Result<Unit> listening = console.Listen();
  if (!listening.ok()) {
    *start.failure = {"tty", listening.error()};
    return {};
  }
  unlink(options.pid_file);
  std::vector<char*> argv;
  for (char** argument = options.argv; *argument != nullptr; ++argument) {
    const bool is_console =
        options.console_socket != nullptr && strcmp(*argument, options.console_socket) == 0;
    argv.push_back(is_console ? const_cast<char*>(console.path().c_str()) : *argument);
  }
  argv.push_back(nullptr);
  ChildSpec spec;
  spec.argv = argv.data();
  spec.fds = JobDescriptors(*start.streams);
  spec.ids = options.has_ids ? &options.ids : nullptr;
  spec.working_directory = options.working_directory;
  // A child in our session, as CRIU.
  Result<Child> child = Child::Fork(spec, start.oom_score_adj);
  if (!child.ok()) {
    *start.failure = {"setup", child.error()};
    return {};
  }
  if (!child.value().Go(start.failure)) return {};
  Root root;
  const Made made = WaitForMaker(child.value().pid(), options, &console, &root, kUndoMs);
  if (options.foreign)
    TakeForeign(options, &root);
  else
    root = OwnRoot(ReadPid(options.pid_file));
  unlink(options.pid_file);
  std::string wrong;
  if (!made.ok())
    wrong = DescribeEnd(made);
  else if (!options.foreign)
    wrong = Settle(start, root.pid, &console);
  else if (root.pid < 0)
    wrong = "wrote no PID to its pid file";
  if (wrong.empty()) {
    start.streams->words.Reset();
    SetWindowSize(start);
    return Recorded(start, std::move(root));
  }
  if (made.given_up) AwaitUndone(root.pid);
  const std::string words = start.streams->LastWords();
  if (!words.empty()) wrong += ": " + words;
  const int status = made.status;
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  *start.failure = {"launcher",
                    {std::to_string(code) + " " + std::to_string(signal) + " " + wrong, 0}};
  return {};
}

}  // namespace

Root StartJob(const Start& start) {
  if (start.options.restore) return RestoreTree(start);
  return start.options.pid_file == nullptr ? StartProgram(start) : LaunchTree(start);
}

}  // namespace cedana::shim
