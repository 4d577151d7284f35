#include "proc/connector.h"

#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/async.h"
#include "base/fd.h"
#include "base/handle.h"
#include "base/thread.h"
#include "base/values.h"

namespace cedana {

namespace {

using Clock = std::chrono::steady_clock;

// struct proc_input of Linux 6.6, which filters in the kernel; older headers do not have it.
struct ProcInput {
  uint32_t operation;
  uint32_t events;
};

// The kernel acknowledges while we send; a machine may be slow, though.
constexpr auto kAcknowledge = std::chrono::milliseconds(100);

struct Exec {
  pid_t pid;
  uint64_t time_ns;  // CLOCK_MONOTONIC
};

struct Batch {
  std::vector<Exec> execs;
  bool overrun = false;
};

struct Received {
  uint32_t acknowledges;  // number of the question, plus one
  proc_event event;
};

template <typename Payload>
Result<Unit> Send(int socket, uint32_t number, const Payload& payload) {
  std::array<char, NLMSG_SPACE(sizeof(cn_msg) + sizeof(Payload))> buffer{};
  nlmsghdr header{};
  header.nlmsg_len = NLMSG_LENGTH(sizeof(cn_msg) + sizeof payload);
  header.nlmsg_type = NLMSG_DONE;
  cn_msg message{};
  message.id = {CN_IDX_PROC, CN_VAL_PROC};
  message.ack = number;
  message.len = sizeof payload;
  std::memcpy(buffer.data(), &header, sizeof header);
  std::memcpy(buffer.data() + NLMSG_HDRLEN, &message, sizeof message);
  std::memcpy(buffer.data() + NLMSG_HDRLEN + sizeof message, &payload, sizeof payload);
  if (::send(socket, buffer.data(), header.nlmsg_len, 0) < 0) return Errno::Last("proc connector");
  return Unit{};
}

// The next event; an Errno with EAGAIN when there is none, with ENOBUFS when some were lost.
Result<Received> Receive(int socket) {
  for (;;) {
    std::array<char, 4096> buffer;
    sockaddr_nl from{};
    socklen_t length = sizeof from;
    const ssize_t size = ::recvfrom(socket, buffer.data(), buffer.size(), MSG_DONTWAIT,
                                    reinterpret_cast<sockaddr*>(&from), &length);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return Errno::Last("proc connector");
    // Other processes may send to us too; kernels before or after ours, shorter or longer events.
    constexpr size_t kHead = NLMSG_HDRLEN + sizeof(cn_msg);
    constexpr size_t kUsed = offsetof(proc_event, event_data) + sizeof(proc_event::event_data.exec);
    if (from.nl_pid != 0 || static_cast<size_t>(size) < kHead + kUsed) continue;
    cn_msg message{};
    std::memcpy(&message, buffer.data() + NLMSG_HDRLEN, sizeof message);
    Received received{message.ack, {}};
    std::memcpy(&received.event, buffer.data() + kHead,
                std::min(sizeof received.event, static_cast<size_t>(size) - kHead));
    return received;
  }
}

// Events of the group, and acknowledgements of others, arrive too where somebody else subscribes.
Result<Unit> AwaitAcknowledgement(int socket, uint32_t number) {
  const auto until = Clock::now() + kAcknowledge;
  while (Clock::now() < until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
    pollfd poll{socket, POLLIN, 0};
    ::poll(&poll, 1, static_cast<int>(left.count()));
    const auto received = Receive(socket);
    if (!received.ok()) {
      const int code = received.error().code;
      if (code != EAGAIN && code != ENOBUFS) return received.error();
      continue;
    }
    const auto& event = received.value().event;
    if (event.what != proc_event::PROC_EVENT_NONE || received.value().acknowledges != number + 1)
      continue;
    if (const auto error = static_cast<int>(event.event_data.ack.err); error != 0)
      return Errno{"proc connector", error};
    return Unit{};
  }
  return Errno{"proc connector", EPERM};
}

Result<UniqueFd> Subscribe(int receive_bytes) {
  UniqueFd socket(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR));
  if (!socket.valid()) return Errno::Last("proc connector");
  // Without CAP_NET_ADMIN the buffer has the usual size.
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof receive_bytes);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = CN_IDX_PROC;
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return Errno::Last("proc connector");
  // Without a filter first: only then an acknowledgement comes, which tells whether we may. Outside
  // of the first PID and user namespaces there is no answer at all.
  const auto number = static_cast<uint32_t>(Clock::now().time_since_epoch().count());
  const auto sent = Send(socket.get(), number, uint32_t{PROC_CN_MCAST_LISTEN});
  if (!sent.ok()) return sent.error();
  const auto acknowledged = AwaitAcknowledgement(socket.get(), number);
  if (!acknowledged.ok()) return acknowledged.error();
  // Kernels before 6.6 ignore this one, and go on sending everything.
  const auto filtered =
      Send(socket.get(), number, ProcInput{PROC_CN_MCAST_LISTEN, proc_event::PROC_EVENT_EXEC});
  if (!filtered.ok()) return filtered.error();
  return socket;
}

// The execs of all processes arrive; those of watched ones leave. The thread only sorts.
class Connector {
 public:
  using Done = std::function<void(Result<Batch>)>;

  Connector(UniqueFd socket, UniqueFd wake) : socket_(std::move(socket)), wake_(std::move(wake)) {}

  static Result<std::shared_ptr<Connector>> Open(int receive_bytes) {
    auto socket = Subscribe(receive_bytes);
    if (!socket.ok()) return socket.error();
    UniqueFd wake(::eventfd(0, EFD_CLOEXEC));
    if (!wake.valid()) return Errno::Last("eventfd");
    auto connector = std::make_shared<Connector>(std::move(socket.value()), std::move(wake));
    const auto started = StartThread([connector] {
      connector->Run();
      connector->Release();
    });
    if (!started.ok()) return started.error();
    return connector;
  }

  void Watch(pid_t pid, bool is_wanted) {
    const std::lock_guard lock(mutex_);
    if (is_wanted)
      watched_.insert(pid);
    else
      watched_.erase(pid);
  }

  void Next(Done done) {
    std::optional<Result<Batch>> answer;
    {
      const std::lock_guard lock(mutex_);
      if (waiting_)
        answer.emplace(Errno{"connectorNext", EBUSY});
      else if (failure_)
        answer.emplace(*failure_);
      else if (!batch_.execs.empty() || batch_.overrun)
        answer.emplace(std::exchange(batch_, {}));
      else
        waiting_ = std::move(done);
    }
    if (answer) done(std::move(*answer));
  }

  void Close() {
    Fail(Errno{"connectorNext", ECANCELED});
    const std::lock_guard lock(mutex_);
    const uint64_t one = 1;
    // The counter has room for more than is ever written.
    if (wake_.valid()) static_cast<void>(::write(wake_.get(), &one, sizeof one));
  }

 private:
  void Run() {
    for (;;) {
      std::array<pollfd, 2> polls = {pollfd{socket_.get(), POLLIN, 0},
                                     pollfd{wake_.get(), POLLIN, 0}};
      if (::poll(polls.data(), polls.size(), -1) < 0) continue;
      if (polls[1].revents != 0 || !Sort()) return;
    }
  }

  // The garbage collector may leave the handle alone for long.
  void Release() {
    const std::lock_guard lock(mutex_);
    socket_.Reset();
    wake_.Reset();
  }

  // Everything there is. False: the socket is of no use any more.
  bool Sort() {
    Batch seen;
    for (;;) {
      const auto received = Receive(socket_.get());
      if (received.ok()) {
        const auto& event = received.value().event;
        const pid_t pid = event.event_data.exec.process_tgid;
        if (event.what == proc_event::PROC_EVENT_EXEC && IsWatched(pid))
          seen.execs.push_back({pid, event.timestamp_ns});
      } else if (received.error().code == ENOBUFS) {
        seen.overrun = true;
      } else if (received.error().code == EAGAIN) {
        Tell(std::move(seen));
        return true;
      } else {
        Fail(received.error());
        return false;
      }
    }
  }

  bool IsWatched(pid_t pid) {
    const std::lock_guard lock(mutex_);
    return watched_.contains(pid);
  }

  void Tell(Batch seen) {
    if (seen.execs.empty() && !seen.overrun) return;
    Done done;
    {
      const std::lock_guard lock(mutex_);
      batch_.execs.insert(batch_.execs.end(), seen.execs.begin(), seen.execs.end());
      batch_.overrun = batch_.overrun || seen.overrun;
      if (!waiting_) return;
      done = std::exchange(waiting_, nullptr);
      seen = std::exchange(batch_, {});
    }
    done(std::move(seen));
  }

  void Fail(Errno error) {
    Done done;
    {
      const std::lock_guard lock(mutex_);
      failure_ = error;
      done = std::exchange(waiting_, nullptr);
    }
    if (done) done(std::move(error));
  }

  UniqueFd socket_;
  UniqueFd wake_;
  std::mutex mutex_;
  std::set<pid_t> watched_;
  Batch batch_;
  Done waiting_;
  std::optional<Errno> failure_;
};

Napi::Value BatchToJs(Napi::Env env, const Batch& batch) {
  auto out = Napi::Object::New(env);
  out.Set("execs", ArrayOf(env, batch.execs, [env](const Exec& exec) {
            auto one = Napi::Object::New(env);
            one.Set("pid", Napi::Number::New(env, exec.pid));
            one.Set("timeNs", Napi::Number::New(env, static_cast<double>(exec.time_ns)));
            return one;
          }));
  out.Set("overrun", Napi::Boolean::New(env, batch.overrun));
  return out;
}

Napi::Value ConnectorOpen(const Napi::CallbackInfo& info) {
  return RunAsync(
      info.Env(), Where::kThread, [bytes = Int(info[0])] { return Connector::Open(bytes); },
      [](Napi::Env env, std::shared_ptr<Connector>& connector) {
        return MakeHandle(env, std::move(connector));
      });
}

void ConnectorWatch(const Napi::CallbackInfo& info) {
  HandleOf<Connector>(info[0])->Watch(Int(info[1]), info[2].As<Napi::Boolean>().Value());
}

Napi::Value ConnectorNext(const Napi::CallbackInfo& info) {
  auto to_js = [](Napi::Env env, Batch& batch) { return BatchToJs(env, batch); };
  auto completion = std::make_shared<Completion<Batch, decltype(to_js)>>(info.Env(), to_js);
  HandleOf<Connector>(info[0])->Next(
      [completion](Result<Batch> batch) { completion->Finish(std::move(batch)); });
  return completion->promise();
}

void ConnectorClose(const Napi::CallbackInfo& info) { HandleOf<Connector>(info[0])->Close(); }

}  // namespace

void InitConnector(Napi::Env env, Napi::Object exports) {
  exports.Set("connectorOpen", Napi::Function::New(env, ConnectorOpen));
  exports.Set("connectorWatch", Napi::Function::New(env, ConnectorWatch));
  exports.Set("connectorNext", Napi::Function::New(env, ConnectorNext));
  exports.Set("connectorClose", Napi::Function::New(env, ConnectorClose));
}

}  // namespace cedana
