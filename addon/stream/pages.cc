#include "stream/pages.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/async.h"
#include "base/handle.h"
#include "base/values.h"
#include "stream/pack.h"

namespace cedana {

namespace {

// Commands; the upper half of the word carries flags.
constexpr uint32_t kAdd = 1;
constexpr uint32_t kOpen = 3;
constexpr uint32_t kOpenAnswered = 4;  // wants to know whether there is a parent image
constexpr uint32_t kHasParent = 5;
constexpr uint32_t kAddFlags = 6;
constexpr uint32_t kClose = 0x1023;
constexpr uint32_t kForceClose = 0x1024;

constexpr uint32_t kPresent = 4;  // flag of a run of pages: their content follows

// Low byte of a target: what its number names.
constexpr uint64_t kProcess = 1;
constexpr uint64_t kSharedMemory = 2;
constexpr uint64_t kNobody = 0;

constexpr int kSocketBytes = 8 << 20;
constexpr int kStorers = 2;
constexpr int kUrgent = -20;
constexpr size_t kSpareBlocks = 16;  // that are not for what is read ahead
constexpr size_t kFewBlocks = 4;     // without which nothing can be put in order

const size_t kPageBytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));

template <typename T>
T Field(const std::byte* header, size_t offset) {
  T value;
  std::memcpy(&value, header + offset, sizeof value);
  return value;
}

// The images as files of a directory.
class DirectorySink final : public ImageSink {
 public:
  DirectorySink(UniqueFd directory, std::unique_ptr<BlockWriter> writer)
      : directory_(std::move(directory)), writer_(std::move(writer)) {}

  Result<OutputFile*> CreatePages(const std::string& name) override {
    return writer_->Create(directory_.get(), name, {.direct = true, .durable = true});
  }
  Result<OutputFile*> CreateImage(const std::string& name) override {
    return writer_->Create(directory_.get(), name, {.durable = true});
  }
  void Prepare(uint64_t bytes) override { writer_->Prepare(bytes); }
  void Go() override {}
  [[nodiscard]] BlockPool& blocks() override { return writer_->blocks(); }
  Result<std::vector<FileDigest>> Drain() override { return writer_->Drain(); }
  void Fail(Errno error) override { writer_->Fail(std::move(error)); }
  void OnFailure(std::function<void()> callback) override {
    writer_->OnFailure(std::move(callback));
  }
  [[nodiscard]] std::optional<Errno> error() override { return writer_->error(); }
  [[nodiscard]] uint64_t written() const override { return writer_->written(); }

 private:
  const UniqueFd directory_;
  const std::unique_ptr<BlockWriter> writer_;
};

bool IsZero(const std::byte* page) {
  for (size_t i = 0; i < kPageBytes; i += 64) {
    uint64_t words[8];
    std::memcpy(words, page + i, sizeof words);
    if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) !=
        0)
      return false;
  }
  return true;
}

}  // namespace

Result<std::shared_ptr<PageServer>> PageServer::Open(Options options, UniqueFd socket) {
  std::shared_ptr<PageServer> server(new PageServer(std::move(options), std::move(socket)));
  server->sink_->OnFailure([socket = server->socket_.get()] { socket->Shutdown(); });
  const auto started = server->reader_.Start([raw = server.get()] {
    ::setpriority(PRIO_PROCESS, 0, kUrgent);  // of this thread: a target stands still
    if (auto error = raw->Serve()) raw->sink_->Fail(*std::move(error));
    raw->DropCaptured();
  });
  if (!started.ok()) return started.error();
  return server;
}

PageServer::PageServer(Options options, UniqueFd socket)
    : options_(std::move(options)),
      socket_(std::make_unique<PageSocket>(std::move(socket))),
      sink_(std::move(options_.sink)),
      header_bytes_(options_.criu_version >= 40200 ? 32 : 24) {}

PageServer::~PageServer() { Abort(); }

void PageServer::Prepare(uint64_t bytes) {
  std::shared_ptr<ImageSink> sink;
  {
    const std::lock_guard lock(sink_mutex_);
    sink = sink_;
  }
  if (!sink) return;
  ThreadGroup helper;
  static_cast<void>(helper.Start([&] { sink->Prepare(bytes); }));  // only quicker
  sink->Prepare(bytes);
}

void PageServer::ReadAhead() {
  const std::lock_guard lock(sink_mutex_);
  const std::lock_guard reader_lock(reader_mutex_);
  if (!sink_ || is_served_ || memory_reader_ || options_.root_pid <= 0) return;
  memory_reader_ = MemoryReader::Start(options_.root_pid, sink_->blocks(), kSpareBlocks);
}

Result<PageServer::Outcome> PageServer::Finish() {
  reader_.Join();
  const std::lock_guard ending(ending_mutex_);
  if (!sink_) return Errno{"page server", ECANCELED};
  auto files = sink_->Drain();
  Release();
  if (!files.ok()) return files.error();
  return Outcome{std::move(files.value()), received_, zero_, ahead_};
}

void PageServer::Abort() {
  {
    const std::lock_guard lock(sink_mutex_);
    if (sink_) sink_->Fail(Errno{"page server", ECANCELED});
  }
  reader_.Join();
  const std::lock_guard ending(ending_mutex_);
  Release();
}

void PageServer::Release() {
  const std::lock_guard lock(sink_mutex_);
  if (!sink_) return;
  written_ = sink_->written();
  sink_->OnFailure({});
  sink_.reset();
  socket_.reset();
}

// Blocks go back to the sink while there is one.
void PageServer::DropCaptured() {
  capturing_.reset();
  streams_.clear();
  const std::lock_guard lock(reader_mutex_);
  is_served_ = true;
  memory_reader_.reset();
}

PageServer::Progress PageServer::progress() const {
  const std::lock_guard lock(sink_mutex_);
  return {received_, sink_ ? sink_->written() : written_, zero_};
}

// 24 bytes up to 4.1: u32 command, u32 pages, u64 address, u64 target. From 4.2: 32 bytes, u64
// pages.
Result<PageServer::Command> PageServer::NextCommand() {
  std::byte header[32];
  if (auto error = socket_->ReadHeader({header, header_bytes_})) return *std::move(error);
  const auto word = Field<uint32_t>(header, 0);
  const bool wide = header_bytes_ == 32;
  return Command{
      .code = word & 0xffff,
      .flags = word >> 16,
      .pages = wide ? Field<uint64_t>(header, 8) : Field<uint32_t>(header, 4),
      .address = Field<uint64_t>(header, header_bytes_ - 16),
      .target = Field<uint64_t>(header, header_bytes_ - 8),
  };
}

std::optional<Errno> PageServer::Serve() {
  while (true) {
    auto next = NextCommand();
    if (!next.ok()) return next.error();
    Command& command = next.value();
    std::optional<Errno> error;
    switch (command.code) {
      case kOpen:
      case kOpenAnswered: {
        error = OpenStream(command);
        constexpr char kNoParent = 0;
        if (!error && command.code == kOpenAnswered)
          error = socket_->Send(&kNoParent, sizeof kNoParent);
        break;
      }
      case kHasParent: {
        constexpr int32_t kNoParent = 0;
        error = socket_->Send(&kNoParent, sizeof kNoParent);
        break;
      }
      case kAdd:
        command.flags = kPresent;
        [[fallthrough]];
      case kAddFlags:
        error = TakePages(command);
        break;
      case kClose:
      case kForceClose: {
        constexpr int32_t kTaken = 0;
        if ((error = CloseStream())) return error;
        if (is_waiting_ && (error = memory_reader_->Finish())) return error;
        if ((error = socket_->Send(&kTaken, sizeof kTaken))) return error;
        ::setpriority(PRIO_PROCESS, 0, 0);  // what follows is off the target's clock
        if ((error = Settle())) return error;
        sink_->Go();
        return std::nullopt;
      }
      default:  // pages that are in a parent image, or asked back: nothing we could serve
        return Errno{"page server command " + std::to_string(command.code), EPROTO};
    }
    if (error) return error;
  }
}

std::optional<Errno> PageServer::OpenStream(const Command& command) {
  if (auto error = CloseStream()) return error;
  // CRIU sends shared memory first.
  if (const std::lock_guard lock(reader_mutex_); memory_reader_) memory_reader_->AwaitPlan();
  const uint64_t kind = command.target & 0xff;
  const uint64_t number = command.target >> 8;
  if (kind != kProcess && kind != kSharedMemory)
    return Errno{"page server target " + std::to_string(kind), EPROTO};
  const uint32_t pages_id = ++opened_;
  const auto pages = sink_->CreatePages("pages-" + std::to_string(pages_id) + ".img");
  if (!pages.ok()) return pages.error();
  const bool drop = options_.drop_zero_pages && options_.root_pid > 0 && kind == kProcess;
  Stream stream{
      .pagemap_name =
          (kind == kProcess ? "pagemap-" : "pagemap-shmem-") + std::to_string(number) + ".img",
      .pagemap = Pagemap(pages_id, options_.criu_version),
      .pages = pages.value(),
      .droppable = drop ? AnonymousMemory::Of(options_.root_pid, number) : AnonymousMemory(),
      .target = command.target,
  };
  if (const std::lock_guard lock(reader_mutex_); kind == kProcess && memory_reader_)
    stream.ahead = memory_reader_->Take(number);
  streams_.push_back(std::move(stream));
  return std::nullopt;
}

std::optional<Errno> PageServer::CloseStream() {
  if (streams_.empty()) return std::nullopt;
  Stream& stream = streams_.back();
  stream.ahead.clear();
  stream.target = kNobody;
  if (is_waiting_) return std::nullopt;
  auto error = WritePagemap(stream);
  streams_.pop_back();
  return error;
}

std::optional<Errno> PageServer::WritePagemap(Stream& stream) {
  stream.pages->Close();
  const auto file = sink_->CreateImage(stream.pagemap_name);
  if (!file.ok()) return file.error();
  const std::string image = stream.pagemap.Finish();
  file.value()->Append(image.data(), image.size());
  file.value()->Close();
  return std::nullopt;
}

std::optional<Errno> PageServer::TakePages(const Command& command) {
  if (streams_.empty() || command.target != streams_.back().target)
    return Errno{"page server target", EPROTO};
  if ((command.flags & kPresent) == 0)
    return Errno{"page server flags " + std::to_string(command.flags), EPROTO};
  Stream& stream = streams_.back();
  uint64_t address = command.address;
  uint64_t left = command.pages;
  while (left > 0) {
    auto& next = stream.next_ahead;
    while (next < stream.ahead.size() && stream.ahead[next].end() <= address)
      stream.ahead[next++].block.reset();
    const MemoryReader::Span* ahead = next < stream.ahead.size() ? &stream.ahead[next] : nullptr;
    uint64_t pages = left;
    std::optional<Errno> error;
    if (ahead != nullptr && ahead->address <= address) {
      pages = std::min(left, (ahead->end() - address) / kPageBytes);
      error = Skip({address, pages, ahead->data + (address - ahead->address), ahead->block},
                   command.flags);
    } else {
      if (ahead != nullptr) pages = std::min(left, (ahead->address - address) / kPageBytes);
      error = is_waiting_ ? Capture(address, pages, command.flags)
                          : Store(address, pages, command.flags);
    }
    if (error) return error;
    received_ += pages * kPageBytes;
    address += pages * kPageBytes;
    left -= pages;
  }
  return std::nullopt;
}

// We have these pages, or will have them.
std::optional<Errno> PageServer::Skip(MemoryReader::Span span, uint32_t flags) {
  is_waiting_ = true;
  const size_t bytes = span.pages * kPageBytes;
  ahead_ += bytes;
  streams_.back().captured.push_back({std::move(span), flags});
  return socket_->Discard(bytes);
}

// Behind what waits.
std::optional<Errno> PageServer::Capture(uint64_t address, uint64_t pages, uint32_t flags) {
  while (pages > 0) {
    if (capturing_filled_ == kBlockBytes) {
      BlockPool& pool = sink_->blocks();
      std::byte* block = pool.available() > kFewBlocks ? pool.TryAcquire() : nullptr;
      if (block == nullptr) {  // then the target has to wait
        if (auto error = memory_reader_->Finish()) return error;
        if (auto error = Settle()) return error;
        return Store(address, pages, flags);
      }
      capturing_ = std::make_shared<HeldBlock>(pool, block);
      capturing_filled_ = 0;
    }
    const auto step = std::min<uint64_t>(pages, (kBlockBytes - capturing_filled_) / kPageBytes);
    const std::span data{capturing_->data() + capturing_filled_, step * kPageBytes};
    if (auto error = socket_->Read(data)) return error;
    streams_.back().captured.push_back({{address, step, data.data(), capturing_}, flags});
    capturing_filled_ += data.size();
    address += data.size();
    pages -= step;
  }
  return std::nullopt;
}

std::optional<Errno> PageServer::Store(uint64_t address, uint64_t pages, uint32_t flags) {
  Stream& stream = streams_.back();
  while (pages > 0) {
    const std::span<std::byte> space = stream.pages->Space();
    if (space.empty())
      return Errno{"page server", ECANCELED};  // the sink has failed and keeps the reason
    const auto step = std::min<uint64_t>(pages, space.size() / kPageBytes);
    const std::span<std::byte> data = space.first(step * kPageBytes);
    if (auto error = socket_->Read(data)) return error;
    KeepPages(stream, address, data, flags);
    address += data.size();
    pages -= step;
  }
  return std::nullopt;
}

// Puts what waits where it belongs; all of it has been read.
std::optional<Errno> PageServer::Settle() {
  if (!is_waiting_) return std::nullopt;
  capturing_.reset();
  capturing_filled_ = kBlockBytes;
  while (!streams_.empty()) {
    Stream& stream = streams_.front();
    if (auto error = SettleStream(stream)) return error;
    if (stream.target != kNobody) break;
    if (auto error = WritePagemap(stream)) return error;
    streams_.pop_front();
  }
  is_waiting_ = false;
  return std::nullopt;
}

std::optional<Errno> PageServer::SettleStream(Stream& stream) {
  for (; !stream.captured.empty(); stream.captured.pop_front()) {
    const auto& [span, flags] = stream.captured.front();
    for (size_t done = 0; done < span.pages * kPageBytes;) {
      const std::span<std::byte> space = stream.pages->Space();
      if (space.empty()) return Errno{"page server", ECANCELED};
      const auto data = space.first(std::min(space.size(), span.pages * kPageBytes - done));
      std::memcpy(data.data(), span.data + done, data.size());
      KeepPages(stream, span.address + done, data, flags);
      done += data.size();
    }
  }
  return std::nullopt;
}

// Moves the pages to be stored together and commits them.
void PageServer::KeepPages(Stream& stream, uint64_t address, std::span<std::byte> data,
                           uint32_t flags) {
  const auto is_dropped = [&](size_t at) {
    return IsZero(data.data() + at) && stream.droppable.Contains(address + at, kPageBytes);
  };
  size_t kept = 0;
  for (size_t at = 0; at < data.size();) {
    size_t end = at;
    if (!options_.drop_zero_pages) {
      end = data.size();
    } else {
      while (end < data.size() && !is_dropped(end)) end += kPageBytes;
    }
    if (end > at) {
      if (kept < at) std::memmove(data.data() + kept, data.data() + at, end - at);
      stream.pagemap.Add(address + at, (end - at) / kPageBytes, flags);
      kept += end - at;
    }
    at = end;
    if (at < data.size()) {
      zero_ += kPageBytes;
      at += kPageBytes;
    }
  }
  stream.pages->Commit(kept);
}

namespace {

Napi::Value SocketJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
    return Throw(env, Errno::Last("socketpair"));
  for (const int fd : fds) {
    // Only faster: CRIU then runs ahead of us by more.
    static_cast<void>(
        ::setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBytes, sizeof kSocketBytes));
    static_cast<void>(
        ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kSocketBytes, sizeof kSocketBytes));
  }
  const auto result = Napi::Object::New(env);
  result.Set("socketFd", fds[0]);
  result.Set("peerFd", fds[1]);
  return result;
}

Napi::Value OpenJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto given = info[0].As<Napi::Object>();
  const Napi::Value root_pid = given.Get("rootPid");
  UniqueFd socket(Int(given.Get("socketFd")));
  std::shared_ptr<ImageSink> sink;
  if (const Napi::Value packer = given.Get("packer"); !packer.IsNull()) {
    sink = HandleOf<Packer>(packer);
  } else {
    UniqueFd directory(::fcntl(Int(given.Get("directoryFd")), F_DUPFD_CLOEXEC, 3));
    if (!directory.valid()) return Throw(env, Errno::Last("dup directory"));
    const int64_t memory_bytes = given.Get("memoryBytes").As<Napi::Number>().Int64Value();
    auto writer = BlockWriter::Start(
        {.memory_bytes = static_cast<size_t>(memory_bytes), .threads = kStorers});
    if (!writer.ok()) return Throw(env, writer.error());
    sink = std::make_shared<DirectorySink>(std::move(directory), std::move(writer.value()));
  }
  PageServer::Options options{
      .sink = std::move(sink),
      .criu_version = Uint(given.Get("criuVersion")),
      .drop_zero_pages = given.Get("dropZeroPages").As<Napi::Boolean>().Value(),
      .root_pid = root_pid.IsNull() ? 0 : Int(root_pid),
  };
  auto server = PageServer::Open(std::move(options), std::move(socket));
  if (!server.ok()) return Throw(env, server.error());
  return MakeHandle(env, std::move(server.value()));
}

Napi::Value ProgressJs(const Napi::CallbackInfo& info) {
  const auto progress = HandleOf<PageServer>(info[0])->progress();
  const auto result = Napi::Object::New(info.Env());
  result.Set("receivedBytes", static_cast<double>(progress.received));
  result.Set("writtenBytes", static_cast<double>(progress.written));
  result.Set("zeroBytes", static_cast<double>(progress.zero));
  return result;
}

Napi::Value PrepareJs(const Napi::CallbackInfo& info) {
  return RunAsync(
      info.Env(), Where::kThread,
      [server = HandleOf<PageServer>(info[0]),
       bytes = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value())]() -> Result<Unit> {
        server->Prepare(bytes);
        return Unit{};
      },
      [](Napi::Env env, Unit&) { return env.Undefined(); });
}

void ReadAheadJs(const Napi::CallbackInfo& info) { HandleOf<PageServer>(info[0])->ReadAhead(); }

Napi::Value FinishJs(const Napi::CallbackInfo& info) {
  return RunAsync(
      info.Env(), Where::kThread,
      [server = HandleOf<PageServer>(info[0])] { return server->Finish(); },
      [](Napi::Env env, const PageServer::Outcome& outcome) -> Napi::Value {
        const auto result = Napi::Object::New(env);
        result.Set("files", ArrayOf(env, outcome.files, [env](const FileDigest& file) {
                     return FileDigestToJs(env, file);
                   }));
        result.Set("receivedBytes", static_cast<double>(outcome.received));
        result.Set("zeroBytes", static_cast<double>(outcome.zero));
        result.Set("aheadBytes", static_cast<double>(outcome.ahead));
        return result;
      });
}

Napi::Value AbortJs(const Napi::CallbackInfo& info) {
  // Undoing must not need a thread that the machine may not have.
  return RunAsync(
      info.Env(), Where::kPool,
      [server = HandleOf<PageServer>(info[0])]() -> Result<Unit> {
        server->Abort();
        return Unit{};
      },
      [](Napi::Env env, Unit&) { return env.Undefined(); });
}

}  // namespace

void InitPages(Napi::Env env, Napi::Object exports) {
  exports.Set("pageSocket", Napi::Function::New(env, SocketJs));
  exports.Set("pageServerOpen", Napi::Function::New(env, OpenJs));
  exports.Set("pageServerPrepare", Napi::Function::New(env, PrepareJs));
  exports.Set("pageServerReadAhead", Napi::Function::New(env, ReadAheadJs));
  exports.Set("pageServerProgress", Napi::Function::New(env, ProgressJs));
  exports.Set("pageServerFinish", Napi::Function::New(env, FinishJs));
  exports.Set("pageServerAbort", Napi::Function::New(env, AbortJs));
}

}  // namespace cedana
