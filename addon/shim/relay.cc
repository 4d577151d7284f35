#include "shim/relay.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <ctime>

#include "shim/protocol.h"

namespace cedana::shim {
namespace {

constexpr size_t kReadSize = 64 << 10;
constexpr size_t kMaxInput = 64 << 10;

int64_t NowMs() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

UniqueFd ChildSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  return UniqueFd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

// All of it, unless the disk refuses.
bool WriteAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    data += written;
    size -= static_cast<size_t>(written);
  }
  return true;
}

}  // namespace

Relay::Relay(const Options& options, Streams* streams, Record* record, UniqueFd listener)
    : stdio_(options.stdio),
      is_foreign_(options.foreign),
      streams_(streams),
      record_(record),
      listener_(std::move(listener)),
      signals_(ChildSignals()) {
  if (streams->stdout_read.valid())
    sources_.push_back({std::move(streams->stdout_read), Frame::kStdout});
  if (streams->stderr_read.valid())
    sources_.push_back({std::move(streams->stderr_read), Frame::kStderr});
  if (streams->master.valid()) {
    sources_.push_back(
        {UniqueFd(fcntl(streams->master.get(), F_DUPFD_CLOEXEC, 3)), Frame::kStdout});
  }
  if (options.wait_attach && !sources_.empty()) hold_until_ms_ = NowMs() + kWaitAttachMs;
}

void Relay::SetInput(const std::string& input, bool ends) {
  input_.Append(input.data(), input.size());
  if (!input.empty()) last_input_ = input.back();
  if (ends) EndInput();
}

void Relay::Run(Root root) {
  root_ = std::move(root);
  Reap();  // what ended before the signal was watched
  // Another's child that had ended before it could be held.
  if (is_foreign_ && root_.foreign.fd() < 0) RootExited(std::nullopt);
  AnnounceExit();
  while (!JobIsOver() || !clients_.empty()) Poll();
}

bool Relay::JobIsOver() const {
  return children_gone_ && exit_announced_ &&
         std::all_of(sources_.begin(), sources_.end(),
                     [](const Source& source) { return !source.fd.valid(); });
}

bool Relay::ReadsOutput() const {
  return hold_until_ms_ == 0 &&
         std::none_of(clients_.begin(), clients_.end(),
                      [](const Client& client) { return client.attached && client.full(); });
}

bool Relay::TakesInput() const {
  return input_.size() < kMaxInput || input_ended_ || input_fd() < 0;
}

int Relay::input_fd() const {
  return stdio_ == Stdio::kTty ? streams_->master.get() : streams_->stdin_write.get();
}

// Milliseconds to the next thing that is due; -1 when nothing is.
int Relay::Timeout() const {
  int64_t due = hold_until_ms_ == 0 ? INT64_MAX : hold_until_ms_;
  for (const Client& client : clients_) due = std::min(due, client.Deadline().value_or(INT64_MAX));
  if (due == INT64_MAX) return -1;
  return static_cast<int>(std::max<int64_t>(due - NowMs(), 0));
}

void Relay::Poll() {
  // Made anew each time from what each descriptor is wanted for, so nothing can go stale. One that
  // is wanted for nothing is left out: its POLLHUP would wake us for ever.
  std::vector<pollfd> polled = {{signals_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
  polled.push_back({input_.empty() ? -1 : input_fd(), POLLOUT, 0});
  polled.push_back({root_exited_ ? -1 : root_.foreign.fd(), POLLIN, 0});
  const size_t first_source = polled.size();
  const bool reads = ReadsOutput();
  for (const Source& source : sources_) polled.push_back({reads ? source.fd.get() : -1, POLLIN, 0});
  const size_t first_client = polled.size();
  for (const Client& client : clients_) {
    short events = client.pending() > 0 ? POLLOUT : 0;
    const bool listens = !client.waits_for_job && !client.full() && !client.finishing();
    if (listens || client.leaving()) events |= POLLIN;
    polled.push_back({events == 0 ? -1 : client.fd(), events, 0});
  }
  if (poll(polled.data(), polled.size(), Timeout()) < 0 && errno != EINTR)
    record_->Complain("poll", errno);

  if (hold_until_ms_ != 0 && NowMs() >= hold_until_ms_) hold_until_ms_ = 0;
  // Exits last: output that is there already is then seen as from before.
  if (polled[2].revents != 0) WriteInput();
  for (size_t index = 0; index < sources_.size(); ++index) {
    if (polled[first_source + index].revents != 0) ReadOutput(&sources_[index]);
  }
  auto client = clients_.begin();
  for (size_t index = first_client; index < polled.size(); ++index, ++client) {
    if ((polled[index].events & POLLIN) != 0 && (polled[index].revents & ~POLLOUT) != 0)
      client->Receive();
  }
  for (Client& each : clients_) Serve(&each);
  if (polled[1].revents != 0) Accept();
  if (polled[0].revents != 0) Reap();
  if (polled[3].revents != 0) RootExited(root_.foreign.Status());
  AnnounceExit();

  const int64_t now = NowMs();
  const bool over = JobIsOver();
  for (Client& each : clients_) {
    if (over) each.Finish();
    if (!each.gone()) each.Flush(now);
  }
  DropStuck(now);
  clients_.remove_if([](const Client& each) { return each.gone(); });
}

void Relay::Reap() {
  signalfd_siginfo ignored[4];
  while (read(signals_.get(), ignored, sizeof ignored) > 0) {
  }
  int status = 0;
  pid_t pid = 0;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (pid == root_.pid && !is_foreign_ && !root_exited_) RootExited(status);
  }
  children_gone_ = pid < 0 && errno == ECHILD;
}

void Relay::RootExited(std::optional<int> status) {
  root_exited_ = true;
  record_->WriteExit(root_.pid, status);
  for (Client& client : clients_) {
    if (client.watches_exit) SendExit(&client);
  }
  streams_->slave.Reset();  // now the master comes to its end when the others let go
  if (stdio_ == Stdio::kPipe) EndInput();
  for (Source& source : sources_) {
    int size = 0;
    // A terminal tells by EAGAIN or its end; a pipe may be written on by others without a pause.
    if (source.fd.valid() && ioctl(source.fd.get(), FIONREAD, &size) == 0)
      source.before_exit = static_cast<size_t>(size);
  }
}

// Once everything that the root had written is on its way to the attachers.
void Relay::AnnounceExit() {
  if (!root_exited_ || exit_announced_ || hold_until_ms_ != 0) return;
  for (Source& source : sources_) {
    while (source.fd.valid() && (source.before_exit > 0 || stdio_ == Stdio::kTty)) {
      if (!ReadsOutput()) return;
      if (!ReadOutput(&source)) break;
    }
  }
  exit_announced_ = true;
  for (Client& client : clients_) {
    if (client.attached) SendExit(&client);
  }
}

// False when nothing was there (any more).
bool Relay::ReadOutput(Source* source) {
  static char buffer[kReadSize];
  const ssize_t size = read(source->fd.get(), buffer, sizeof buffer);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
    source->before_exit = 0;
    return false;
  }
  if (size <= 0) {  // a terminal ends with EIO
    source->before_exit = 0;
    source->fd.Reset();
    return false;
  }
  const auto count = static_cast<size_t>(size);
  source->before_exit -= std::min(count, source->before_exit);
  if (streams_->log.valid() && !WriteAll(streams_->log.get(), buffer, count)) {
    if (!log_failed_) record_->Complain("copy of the output", errno);
    log_failed_ = true;
  }
  replay_.Add(source->stream, buffer, count);
  if (exit_announced_) return true;
  for (Client& client : clients_) {
    if (client.attached) client.Send(source->stream, {buffer, count});
  }
  return true;
}

void Relay::WriteInput() {
  while (!input_.empty()) {
    const ssize_t size = write(input_fd(), input_.data(), input_.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return;
    if (size < 0) {
      input_.Clear();  // nobody will ever read it
      break;
    }
    input_.Drop(static_cast<size_t>(size));
  }
  if (input_ended_) streams_->stdin_write.Reset();
}

void Relay::EndInput() {
  if (stdio_ == Stdio::kTty) {
    // The first VEOF ends an unfinished line, the next the input.
    termios settings = {};
    if (tcgetattr(streams_->master.get(), &settings) < 0) return;
    const char end = static_cast<char>(settings.c_cc[VEOF]);
    if (last_input_ != '\n') input_.Append(&end, 1);
    input_.Append(&end, 1);
    last_input_ = '\n';
    return;
  }
  input_ended_ = true;
  if (input_.empty()) streams_->stdin_write.Reset();
}

void Relay::Accept() {
  UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket.valid()) clients_.emplace_back(std::move(socket));
}

void Relay::Serve(Client* client) {
  client->waits_for_job = false;
  while (!client->finishing()) {
    const auto frame = client->Next();
    if (!frame) return;
    if (frame->type == Frame::kStdin && !TakesInput()) {
      client->waits_for_job = true;
      return;
    }
    Handle(client, *frame);
    client->Consume(*frame);
  }
}

void Relay::Handle(Client* client, const Client::Incoming& frame) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(frame.payload.data());
  switch (frame.type) {
    case Frame::kAttach:
      if (frame.payload.size() == 1) return Attach(client, bytes[0]);
      break;
    case Frame::kStatus:
      return client->Send(Frame::kStatus, record_->Text());
    case Frame::kPendingStdin:
      return SendPendingInput(client);
    case Frame::kStdin:
      if (input_ended_ || input_fd() < 0 || frame.payload.empty()) return;
      input_.Append(frame.payload.data(), frame.payload.size());
      last_input_ = frame.payload.back();
      return WriteInput();
    case Frame::kStdinEof:
      EndInput();
      return WriteInput();
    case Frame::kWindowSize:
      if (frame.payload.size() == 4) {
        winsize size = {};
        size.ws_row = static_cast<unsigned short>(bytes[0] | bytes[1] << 8);
        size.ws_col = static_cast<unsigned short>(bytes[2] | bytes[3] << 8);
        if (streams_->master.valid()) ioctl(streams_->master.get(), TIOCSWINSZ, &size);
        return;
      }
      break;
    case Frame::kStdout:
    case Frame::kStderr:
    case Frame::kExit:
      break;
  }
  client->Close();  // it does not speak this protocol
}

void Relay::Attach(Client* client, unsigned char flags) {
  client->Send(Frame::kStatus, record_->Text());
  if ((flags & kAttachExitOnly) != 0) {
    client->watches_exit = true;
    if (root_exited_) SendExit(client);
    return;
  }
  client->attached = true;
  hold_until_ms_ = 0;
  if ((flags & kAttachReplay) != 0) {
    replay_.ForEach([client](Frame stream, const char* data, size_t size) {
      client->Send(stream, {data, size});
    });
  }
  if (exit_announced_) SendExit(client);
}

void Relay::SendExit(Client* client) {
  const uint32_t numbers[] = {htole32(static_cast<uint32_t>(record_->code())),
                              htole32(static_cast<uint32_t>(record_->signal()))};
  client->Send(Frame::kExit, {reinterpret_cast<const char*>(numbers), sizeof numbers});
  client->Finish();
}

void Relay::SendPendingInput(Client* client) {
  const std::string pending =
      (input_ended_ ? '\1' : '\0') + PeekInput() + std::string(input_.view());
  for (size_t at = 0;; at += kMaxFrame) {
    const std::string_view part = std::string_view(pending).substr(at, kMaxFrame);
    client->Send(Frame::kPendingStdin, part);
    if (part.size() < kMaxFrame) return;
  }
}

// What is in the stdin pipe, without taking it out.
std::string Relay::PeekInput() const {
  std::string bytes;
  const int pipe = streams_->stdin_peek.get();
  int ends[2];
  if (pipe < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return bytes;
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  // tee(2) copies buffer by buffer: as many must fit, however little is in each.
  fcntl(writer.get(), F_SETPIPE_SZ, fcntl(pipe, F_GETPIPE_SZ));
  if (tee(pipe, writer.get(), INT_MAX, SPLICE_F_NONBLOCK) <= 0) return bytes;
  char buffer[4096];
  ssize_t size = 0;
  while ((size = read(reader.get(), buffer, sizeof buffer)) > 0)
    bytes.append(buffer, static_cast<size_t>(size));
  return bytes;
}

void Relay::DropStuck(int64_t now_ms) {
  for (Client& client : clients_) {
    const auto deadline = client.Deadline();
    if (deadline && now_ms >= *deadline) client.Close();
  }
}

}  // namespace cedana::shim
