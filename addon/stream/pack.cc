#include "stream/pack.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <ctime>

#include "base/async.h"
#include "base/handle.h"
#include "base/values.h"
#include "stream/images.h"

namespace cedana {

namespace {

constexpr int kStorers = 2;
constexpr size_t kFewBlocks = 2;                   // without which nothing moves
constexpr size_t kStoringBytes = 6 * kBlockBytes;  // more does not help
constexpr int kBackground = 10;
constexpr size_t kMaxName = 100;
constexpr size_t kMaxOffset = 20;  // of a piece, behind its name

Bytes BytesOf(const TarBlock& block) { return std::as_bytes(std::span(block)); }

}  // namespace

// A member of an archive, or a file that goes to the shards in pieces.
class Packer::Image final : public OutputFile {
 public:
  Image(Packer& packer, std::string name, bool is_bulk)
      : OutputFile(*packer.packing_, std::move(name)), packer_(packer), is_bulk_(is_bulk) {}

 private:
  std::optional<Errno> Store(const Part& part) override {
    auto tools = packer_.TakeTools();
    auto error = packer_.options_.sharded ? StorePiece(part, *tools) : StoreNext(part, *tools);
    packer_.GiveTools(std::move(tools));
    return error;
  }

  std::optional<Errno> StorePiece(const Part& part, Tools& tools) {
    if (part.size == 0 && part.offset > 0) return std::nullopt;
    char offset[kMaxOffset];
    std::snprintf(offset, sizeof offset, "@%" PRIx64, part.offset);
    const TarBlock header = TarHeader(name_ + offset, part.size, std::time(nullptr));
    Keep(BytesOf(header), *tools.codec, tools.packed);
    if (auto error = packer_.Pack(Padded(part), tools)) return error;
    if (!packer_.AppendToShard(tools.packed, is_bulk_)) return packer_.Stuck();
    return std::nullopt;
  }

  std::optional<Errno> StoreNext(const Part& part, Tools& tools) {
    auto error = packer_.Pack(Padded(part), tools);
    if (!packer_.AwaitTurn(part.ticket)) return packer_.Stuck();
    if (part.offset == 0) header_ = packer_.ReserveHeader(*tools.codec);
    if (!error && !packer_.Append(packer_.outputs_[0], tools.packed)) error = packer_.Stuck();
    packer_.EndTurn();
    return error;
  }

  std::optional<Errno> Complete() override {
    if (!packer_.options_.sharded)
      packer_.KeepHeader(header_, TarHeader(name_, size_, std::time(nullptr)));
    return std::nullopt;
  }

  // Only the end of a file is no multiple of a block of tar; there its block has room.
  static Bytes Padded(const Part& part) {
    const size_t size = (part.size + kTarBlock - 1) / kTarBlock * kTarBlock;
    if (size > part.size) std::fill(part.block + part.size, part.block + size, std::byte{0});
    return {part.block, size};
  }

  Packer& packer_;
  const bool is_bulk_;
  Slot header_{};
};

Result<std::shared_ptr<Packer>> Packer::Open(Options options, std::vector<UniqueFd> outputs) {
  const int threads = options.threads;
  const size_t memory = options.memory_bytes;
  const bool background = options.background;
  const int niceness = background ? kBackground : 0;
  const uint64_t offset = options.offset;
  UniqueFd spill = std::move(options.spill);
  std::shared_ptr<Packer> packer(new Packer(std::move(options)));
  // What is packed waits in strings and in blocks to be written, each output has a block that is
  // being filled, and what was spilled is read back into blocks of the threads. The rest is for
  // what comes.
  const size_t per_thread = kBlockBytes + (spill.valid() ? kBlockBytes : 0);
  const size_t least =
      (outputs.size() + 2 * kFewBlocks) * kBlockBytes + static_cast<size_t>(threads) * per_thread;
  const size_t spare = memory > least ? memory - least : 0;
  const size_t for_storing = std::min(spare / 8, kStoringBytes);
  const size_t storing_bytes = (outputs.size() + kFewBlocks) * kBlockBytes + for_storing;
  const size_t packing_bytes = kFewBlocks * kBlockBytes + spare - for_storing;
  auto storing = BlockWriter::Start({.memory_bytes = storing_bytes, .threads = kStorers});
  if (!storing.ok()) return storing.error();
  packer->storing_ = std::move(storing.value());
  for (UniqueFd& fd : outputs) {
    auto file = std::make_unique<DiskFile>(
        *packer->storing_, std::move(fd), "checkpoint",
        DiskFile::Options{.direct = true, .durable = true, .offset = offset});
    DiskFile* raw = file.get();
    packer->storing_->Add(std::move(file));
    Output& output = packer->outputs_.emplace_back();
    output.file = raw;
    const std::string head = StreamHead(packer->options_.format);
    if (!raw->Append(head.data(), head.size())) return packer->Stuck();
    output.size = head.size();
  }
  auto packing = BlockWriter::Start({.memory_bytes = packing_bytes,
                                     .threads = threads,
                                     .niceness = niceness,
                                     .patient = background,
                                     .spill = std::move(spill)});
  if (!packing.ok()) return packing.error();
  packer->packing_ = std::move(packing.value());
  packer->storing_->OnFailure([raw = packer.get()] { raw->Fail(raw->Stuck()); });
  packer->packing_->OnFailure([raw = packer.get()] {
    {
      const std::lock_guard lock(raw->turn_mutex_);
      raw->turned_.notify_all();
    }
    raw->storing_->Fail(Errno{"pack", ECANCELED});
    const std::lock_guard lock(raw->failure_mutex_);
    if (raw->on_failure_) raw->on_failure_();
  });
  return packer;
}

Packer::Packer(Options options) : options_(std::move(options)) {}

Packer::~Packer() {
  if (packing_) Fail(Errno{"pack", ECANCELED});
  if (storing_) storing_->OnFailure({});
}

Result<OutputFile*> Packer::CreatePages(const std::string& name) { return Create(name, true, ""); }
Result<OutputFile*> Packer::CreateImage(const std::string& name) { return Create(name, false, ""); }

Result<OutputFile*> Packer::Create(const std::string& name, bool is_bulk,
                                   const std::string& folder) {
  const size_t limit = options_.sharded ? kMaxName - kMaxOffset : kMaxName;
  if (folder.size() + name.size() > limit || name.find('/') != std::string::npos)
    return Errno{"pack " + name, ENAMETOOLONG};
  return packing_->Add(std::make_unique<Image>(*this, folder + name, is_bulk));
}

std::optional<Errno> Packer::AddFile(int directory_fd, const std::string& name,
                                     const std::string& folder) {
  const auto file = Create(name, IsBulk(name), folder);
  if (!file.ok()) return file.error();
  const auto image = OpenImage(directory_fd, name);
  if (!image.ok()) return image.error();
  const UniqueFd& fd = image.value().fd;
  static_cast<void>(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL));
  while (true) {
    const std::span<std::byte> space = file.value()->Space();
    if (space.empty()) return Stuck();
    const ssize_t n = ::read(fd.get(), space.data(), std::min(space.size(), kChunkBytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Errno::Last("read " + name);
    if (n == 0) break;
    file.value()->Commit(static_cast<size_t>(n));
  }
  file.value()->Close();
  return std::nullopt;
}

std::optional<Errno> Packer::AddFolder(const std::string& folder) {
  const auto file = Create("", false, folder);
  if (!file.ok()) return file.error();
  file.value()->Close();
  return std::nullopt;
}

Result<std::vector<FileDigest>> Packer::Drain() { return packing_->Drain(); }

Result<std::vector<FileDigest>> Packer::Finish() {
  if (auto rest = packing_->Finish(); !rest.ok()) return rest.error();
  constexpr std::array<TarBlock, 2> kEnd{};
  for (auto& [slot, packed] : headers_) {
    outputs_[0].chunks[slot.chunk] = packed.chunks[0];
    outputs_[0].file->Patch(slot.offset, std::move(packed.bytes));
  }
  auto tools = TakeTools();
  for (const TarBlock& block : kEnd) Keep(BytesOf(block), *tools->codec, tools->packed);
  for (Output& output : outputs_) {
    if (!Append(output, tools->packed)) return Stuck();
    const std::string tail = StreamTail(options_.format, output.chunks);
    if (!output.file->Append(tail.data(), tail.size())) return Stuck();
    output.file->Close();
  }
  auto files = storing_->Finish();
  // Headers went into the archive behind the digest's back.
  if (files.ok() && !options_.sharded) files.value()[0].digest.clear();
  return files;
}

void Packer::Abort() {
  Fail(Errno{"pack", ECANCELED});
  static_cast<void>(packing_->Finish());
  static_cast<void>(storing_->Finish());
}

void Packer::Fail(Errno error) { packing_->Fail(std::move(error)); }

void Packer::OnFailure(std::function<void()> callback) {
  const std::lock_guard lock(failure_mutex_);
  on_failure_ = std::move(callback);
  if (packing_->failed() && on_failure_) on_failure_();
}

std::optional<Errno> Packer::error() { return packing_->error(); }

Packer::Progress Packer::progress() const {
  return {packing_->written(), storing_->written(), packing_->spilled()};
}

std::unique_ptr<Packer::Tools> Packer::TakeTools() {
  {
    const std::lock_guard lock(tools_mutex_);
    if (!idle_tools_.empty()) {
      auto tools = std::move(idle_tools_.back());
      idle_tools_.pop_back();
      return tools;
    }
  }
  auto tools = std::make_unique<Tools>();
  tools->codec = MakeChunkCodec(options_.format, options_.level);
  tools->packed.bytes.reserve(kBlockBytes + kBlockBytes / 32);  // what cannot be packed grows a bit
  return tools;
}

void Packer::GiveTools(std::unique_ptr<Tools> tools) {
  tools->packed.bytes.clear();
  tools->packed.chunks.clear();
  const std::lock_guard lock(tools_mutex_);
  idle_tools_.push_back(std::move(tools));
}

std::optional<Errno> Packer::Pack(Bytes content, Tools& tools) {
  for (size_t at = 0; at < content.size() && !packing_->failed(); at += kChunkBytes) {
    const Bytes part = content.subspan(at, std::min(kChunkBytes, content.size() - at));
    const auto chunk = tools.codec->Pack(part, tools.packed.bytes);
    if (!chunk) return Errno{"compress", ENOMEM};
    tools.packed.chunks.push_back(*chunk);
  }
  return std::nullopt;
}

void Packer::Keep(Bytes content, ChunkCodec& codec, Packed& packed) {
  packed.chunks.push_back(codec.Keep(content, packed.bytes));
}

// By one thread at a time for each output.
bool Packer::Append(Output& output, const Packed& packed) {
  output.chunks.insert(output.chunks.end(), packed.chunks.begin(), packed.chunks.end());
  output.size += packed.bytes.size();
  return output.file->Append(packed.bytes.data(), packed.bytes.size());
}

// Pages go where least is, among the shards that nobody is busy with.
bool Packer::AppendToShard(const Packed& packed, bool is_bulk) {
  Output* chosen = &outputs_[0];
  std::unique_lock<std::mutex> held;
  if (is_bulk) {
    uint64_t least = UINT64_MAX;
    for (Output& output : outputs_) {
      std::unique_lock lock(output.mutex, std::try_to_lock);
      if (!lock.owns_lock() || output.size >= least) continue;
      least = output.size;
      chosen = &output;
      held = std::move(lock);
    }
  }
  if (!held.owns_lock()) held = std::unique_lock(chosen->mutex);
  return Append(*chosen, packed);
}

bool Packer::AwaitTurn(uint64_t ticket) {
  std::unique_lock lock(turn_mutex_);
  turned_.wait(lock, [&] { return turn_ == ticket || packing_->failed(); });
  return !packing_->failed();
}

void Packer::EndTurn() {
  const std::lock_guard lock(turn_mutex_);
  turn_++;
  turned_.notify_all();
}

Packer::Slot Packer::ReserveHeader(ChunkCodec& codec) {
  Output& output = outputs_[0];
  const Slot slot{output.size, output.chunks.size()};
  Packed packed;
  Keep(BytesOf(TarBlock{}), codec, packed);
  Append(output, packed);
  return slot;
}

// Goes to its place at the end: until then the output is whose turn it is.
void Packer::KeepHeader(Slot slot, const TarBlock& header) {
  auto tools = TakeTools();
  Packed packed;
  Keep(BytesOf(header), *tools->codec, packed);
  GiveTools(std::move(tools));
  const std::lock_guard lock(turn_mutex_);
  headers_.emplace_back(slot, std::move(packed));
}

// No room, or no turn: something failed.
Errno Packer::Stuck() {
  if (packing_) {
    if (auto error = packing_->error()) return *std::move(error);
  }
  return storing_->error().value_or(Errno{"pack", ECANCELED});
}

namespace {

Napi::Value OpenJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto given = info[0].As<Napi::Object>();
  const auto format = FormatOf(Text(given.Get("format")));
  if (!format) return Throw(env, Errno{"archive format", EINVAL});
  const FormatTraits& traits = TraitsOf(*format);
  const Napi::Value asked = given.Get("level");
  const int level = asked.IsNull() ? traits.default_level : Int(asked);
  if (level < traits.min_level || level > traits.max_level)
    return Throw(env, Errno{"compression level", EINVAL});
  const auto duplicate = [](const Napi::Value& fd) { return ::fcntl(Int(fd), F_DUPFD_CLOEXEC, 3); };
  std::vector<UniqueFd> outputs;
  for (const int fd : List<int>(given.Get("outputFds"), duplicate)) outputs.emplace_back(fd);
  const Napi::Value spill = given.Get("spillFd");
  UniqueFd spill_fd(spill.IsNull() ? -1 : duplicate(spill));
  const bool lacks =
      std::any_of(outputs.begin(), outputs.end(), [](const UniqueFd& fd) { return !fd.valid(); });
  if (lacks || (!spill.IsNull() && !spill_fd.valid())) return Throw(env, Errno::Last("dup output"));
  auto packer = Packer::Open(
      {
          .format = *format,
          .level = level,
          .threads = std::max(Int(given.Get("threads")), 1),
          .memory_bytes =
              static_cast<size_t>(given.Get("memoryBytes").As<Napi::Number>().Int64Value()),
          .background = given.Get("background").As<Napi::Boolean>().Value(),
          .spill = std::move(spill_fd),
          .sharded = given.Get("sharded").As<Napi::Boolean>().Value(),
          .offset = static_cast<uint64_t>(given.Get("offset").As<Napi::Number>().Int64Value()),
      },
      std::move(outputs));
  if (!packer.ok()) return Throw(env, packer.error());
  return MakeHandle<Packer>(env, std::move(packer.value()));
}

Napi::Value DigestsToJs(Napi::Env env, const std::vector<FileDigest>& files) {
  return ArrayOf(env, files, [env](const FileDigest& file) { return FileDigestToJs(env, file); });
}

Napi::Value AddJs(const Napi::CallbackInfo& info) {
  return RunAsync(
      info.Env(), Where::kThread,
      [packer = HandleOf<Packer>(info[0]), directory_fd = Int(info[1]), names = Texts(info[2]),
       folder = Text(info[3])]() -> Result<std::vector<FileDigest>> {
        auto error = folder.empty() ? std::nullopt : packer->AddFolder(folder);
        for (size_t i = 0; i < names.size() && !error; i++)
          error = packer->AddFile(directory_fd, names[i], folder);
        if (!error) return packer->Drain();
        packer->Fail(*error);
        return *std::move(error);
      },
      [](Napi::Env env, const std::vector<FileDigest>& files) { return DigestsToJs(env, files); });
}

Napi::Value ProgressJs(const Napi::CallbackInfo& info) {
  const auto progress = HandleOf<Packer>(info[0])->progress();
  const auto result = Napi::Object::New(info.Env());
  result.Set("packedBytes", static_cast<double>(progress.packed));
  result.Set("writtenBytes", static_cast<double>(progress.written));
  result.Set("spilledBytes", static_cast<double>(progress.spilled));
  return result;
}

Napi::Value FinishJs(const Napi::CallbackInfo& info) {
  return RunAsync(
      info.Env(), Where::kThread, [packer = HandleOf<Packer>(info[0])] { return packer->Finish(); },
      [](Napi::Env env, const std::vector<FileDigest>& outputs) {
        return DigestsToJs(env, outputs);
      });
}

Napi::Value AbortJs(const Napi::CallbackInfo& info) {
  auto packer = HandleOf<Packer>(info[0]);
  packer->Fail(Errno{"pack", ECANCELED});  // at once
  // Undoing must not need a thread that the machine may not have.
  return RunAsync(
      info.Env(), Where::kPool,
      [packer = std::move(packer)]() -> Result<Unit> {
        packer->Abort();
        return Unit{};
      },
      [](Napi::Env env, Unit&) { return env.Undefined(); });
}

}  // namespace

void InitPack(Napi::Env env, Napi::Object exports) {
  exports.Set("packOpen", Napi::Function::New(env, OpenJs));
  exports.Set("packAdd", Napi::Function::New(env, AddJs));
  exports.Set("packProgress", Napi::Function::New(env, ProgressJs));
  exports.Set("packFinish", Napi::Function::New(env, FinishJs));
  exports.Set("packAbort", Napi::Function::New(env, AbortJs));
}

}  // namespace cedana
