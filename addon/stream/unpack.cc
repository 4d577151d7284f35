#include "stream/unpack.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <map>
#include <set>
#include <span>
#include <thread>
#include <utility>

#include "base/async.h"
#include "base/handle.h"
#include "base/values.h"
#include "stream/source.h"
#include "stream/tar.h"
#include "stream/threads.h"
#include "stream/writer.h"

namespace cedana {

namespace {

constexpr size_t kMemoryBytes = size_t{32} << 20;
constexpr int kStorers = 2;
constexpr auto kReportEvery = std::chrono::milliseconds(50);

Errno Bad(const std::string& what) { return {"shard: " + what, EBADMSG}; }

// An image on its way into a directory, or only through the digest.
class Image final : public OutputFile {
 public:
  Image(BlockWriter& writer, UniqueFd fd, std::string name)
      : OutputFile(writer, std::move(name)), fd_(std::move(fd)) {}

 private:
  std::optional<Errno> Store(const Part& part) override {
    if (!fd_.valid()) return std::nullopt;
    return ImageDirectory::Write(fd_.get(), {part.block, part.size}, part.offset);
  }
  std::optional<Errno> Complete() override {
    fd_.Reset();
    return std::nullopt;
  }

  UniqueFd fd_;
};

Result<OutputFile*> AddImage(BlockWriter& writer, ImageDirectory* directory,
                             const std::string& name, uint64_t size) {
  UniqueFd fd;
  if (directory != nullptr) {
    auto created = directory->Create(name, size);
    if (!created.ok()) return created.error();
    fd = std::move(created.value());
  }
  return writer.Add(std::make_unique<Image>(writer, std::move(fd), name));
}

std::optional<Errno> UnpackMember(TarReader& tar, Source& source, OutputFile& file,
                                  Progress& progress) {
  while (tar.left() > 0) {
    const std::span<std::byte> space = file.Space();
    if (space.empty()) break;  // the writer keeps the reason
    const std::span<std::byte> part =
        space.first(std::min<uint64_t>({space.size(), tar.left(), kChunkBytes}));
    const uint64_t before = source.consumed();
    if (auto error = tar.Read(part)) return error;
    file.Commit(part.size());
    if (auto error = progress.Report(source.consumed() - before)) return error;
  }
  file.Close();
  return std::nullopt;
}

struct Piece {
  std::string name;
  uint64_t offset;
};

std::optional<Piece> ParsePiece(const std::string& member) {
  const size_t at = member.rfind('@');
  Piece piece{member.substr(0, at), 0};
  if (at == std::string::npos || at == 0) return std::nullopt;
  const char* end = member.data() + member.size();
  const auto [stopped, error] = std::from_chars(member.data() + at + 1, end, piece.offset, 16);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return piece;
}

// Puts pieces together, whichever thread has them.
class Merge {
 public:
  Merge(const std::vector<ImageSize>& images, ImageDirectory* directory, MemoryWriter* writer)
      : directory_(directory), writer_(writer) {
    for (const auto& [name, size] : images) {
      const MemoryPlan* plan = writer == nullptr ? nullptr : writer->Find(name);
      if (writer != nullptr && directory == nullptr && plan == nullptr) continue;
      File& file = files_[name];
      file.size = size;
      file.plan = plan;
      file.leaves.resize((size + kLeafBytes - 1) / kLeafBytes);
    }
  }

  std::optional<Errno> Create() {
    for (auto& [name, file] : files_) {
      if (file.plan != nullptr && file.plan->size != file.size)
        return Bad(name + " is not what its pagemap says");
      if (directory_ == nullptr) continue;
      auto created =
          directory_->Create(name, file.plan == nullptr ? file.size : file.plan->rest_size);
      if (!created.ok()) return created.error();
      file.fd = std::move(created.value());
    }
    return std::nullopt;
  }

  // Whether anything of that piece is looked at.
  [[nodiscard]] bool IsWanted(const Piece& piece, uint64_t size) const {
    const auto found = files_.find(piece.name);
    // What is unknown is an error, unless it is known not to concern anybody.
    if (found == files_.end()) return writer_ == nullptr || directory_ != nullptr;
    const MemoryPlan* plan = found->second.plan;
    if (plan == nullptr || directory_ == nullptr) return true;
    bool is_wanted = false;
    ForEachPart(plan->rest, piece.offset, size, [&](const auto&, uint64_t, uint64_t) {
      is_wanted = true;
      return false;
    });
    return is_wanted;
  }

  std::optional<Errno> Put(const Piece& piece, std::span<const std::byte> data) {
    const auto found = files_.find(piece.name);
    if (found == files_.end()) return Bad("unknown image " + piece.name);
    File& file = found->second;
    const uint64_t leaf = piece.offset / kLeafBytes;
    const bool fits = piece.offset % kLeafBytes == 0 && piece.offset <= file.size &&
                      data.size() == std::min<uint64_t>(kLeafBytes, file.size - piece.offset);
    if (!fits) return Bad("a piece of " + piece.name + " that does not fit");
    if (data.empty()) return std::nullopt;
    if (file.plan != nullptr && directory_ != nullptr) return KeepRest(file, piece.offset, data);
    const LeafDigest digest = DigestLeaf(data.data(), data.size());
    if (file.plan != nullptr) {
      if (auto error = writer_->Write(*file.plan, piece.offset, data)) return error;
    } else if (file.fd.valid()) {
      if (auto error = ImageDirectory::Write(file.fd.get(), data, piece.offset)) return error;
    }
    const std::lock_guard lock(mutex_);
    if (file.leaves[leaf]) return Bad("a piece of " + piece.name + " comes twice");
    file.leaves[leaf] = digest;
    return std::nullopt;
  }

  Result<std::vector<FileDigest>> Digests() {
    std::vector<FileDigest> digests;
    for (const auto& [name, file] : files_) {
      if (file.plan != nullptr && directory_ != nullptr) continue;
      std::vector<LeafDigest> leaves;
      for (const auto& leaf : file.leaves) {
        if (!leaf) return Bad("a piece of " + name + " is missing");
        leaves.push_back(*leaf);
      }
      digests.push_back({name, file.size, CombineLeaves(leaves)});
    }
    return digests;
  }

 private:
  struct File {
    uint64_t size = 0;
    const MemoryPlan* plan = nullptr;
    UniqueFd fd;
    std::vector<std::optional<LeafDigest>> leaves;
  };

  static std::optional<Errno> KeepRest(const File& file, uint64_t offset,
                                       std::span<const std::byte> data) {
    std::optional<Errno> error;
    ForEachPart(file.plan->rest, offset, data.size(),
                [&](const auto& run, uint64_t at, uint64_t size) {
                  error = ImageDirectory::Write(file.fd.get(), data.subspan(at - offset, size),
                                                run.to + (at - run.offset));
                  return !error;
                });
    return error;
  }

  ImageDirectory* const directory_;
  MemoryWriter* const writer_;
  std::map<std::string, File> files_;
  std::mutex mutex_;
};

// Several threads walk through the same parts: which of them takes a part.
class Share {
 public:
  explicit Share(std::atomic<uint64_t>& next) : next_(next), mine_(next++) {}

  bool Takes() {
    if (seen_++ != mine_) return false;
    mine_ = next_++;
    return true;
  }

 private:
  std::atomic<uint64_t>& next_;
  uint64_t mine_;
  uint64_t seen_ = 0;
};

// Of an archive, what is wanted, leaf by leaf, and in this thread's share.
std::optional<Errno> UnpackPieces(Source& source, Share share, std::byte* block, Merge& merge,
                                  const std::atomic<bool>& failed, Progress& progress) {
  TarReader tar(source);
  while (!failed) {
    const auto member = tar.Next();
    if (!member.ok()) return member.error();
    if (!member.value()) break;
    const auto& [name, size] = *member.value();
    for (uint64_t offset = 0; offset < size || size == 0; offset += kLeafBytes) {
      const uint64_t before = source.consumed();
      const std::span<std::byte> data(block, std::min<uint64_t>(kLeafBytes, size - offset));
      const Piece piece{name, offset};
      if (merge.IsWanted(piece, data.size()) && share.Takes()) {
        if (auto error = tar.Read(data)) return error;
        if (auto error = merge.Put(piece, data)) return error;
        if (auto error = progress.Report(source.consumed() - before)) return error;
      } else if (auto error = tar.Skip(data.size())) {
        return error;
      }
      if (size == 0) break;
    }
  }
  return std::nullopt;
}

// The digest of the shard, unless it is only looked at in part.
Result<FileDigest> UnpackShard(UniqueFd shard, Format format, bool digest, std::byte* block,
                               Merge& merge, Progress& progress) {
  const auto source = Source::Open(std::move(shard), format, digest);
  if (!source.ok()) return source.error();
  TarReader tar(*source.value());
  while (true) {
    const uint64_t before = source.value()->consumed();
    const auto member = tar.Next();
    if (!member.ok()) return member.error();
    if (!member.value()) return digest ? source.value()->Digest() : FileDigest{};
    const auto piece = ParsePiece(member.value()->name);
    if (!piece || tar.left() > kLeafBytes) return Bad("no piece: " + member.value()->name);
    if (!merge.IsWanted(*piece, tar.left())) continue;
    const std::span<std::byte> data(block, tar.left());
    if (auto error = tar.Read(data)) return *std::move(error);
    if (auto error = merge.Put(*piece, data)) return *std::move(error);
    if (auto error = progress.Report(source.value()->consumed() - before)) return *std::move(error);
  }
}

size_t Cores() { return std::max(std::thread::hardware_concurrency(), 2U); }

// On so many threads, with this one.
void AtOnce(size_t count, const std::function<void()>& work) {
  ThreadGroup threads;
  for (size_t i = 1; i < count; i++) {
    if (!threads.Start(work).ok()) break;  // fewer do as well
  }
  work();
}

std::optional<Errno> CopyRun(int fd, const std::string& name, const MemoryPlan::Run& run,
                             OutputFile& file, Progress& progress) {
  for (uint64_t done = 0; done < run.bytes;) {
    const std::span<std::byte> space = file.Space();
    if (space.empty()) return std::nullopt;  // the writer keeps the reason
    const size_t want = std::min<uint64_t>({space.size(), run.bytes - done, kChunkBytes});
    const auto n = ReadImage(fd, name, space.first(want), run.offset + done);
    if (!n.ok()) return n.error();
    file.Commit(n.value());
    done += n.value();
    if (auto error = progress.Report(n.value())) return error;
  }
  return std::nullopt;
}

}  // namespace

std::optional<Errno> Progress::Report(uint64_t bytes) {
  if (cancelled_ && *cancelled_) return Errno{"unpack", ECANCELED};
  const std::lock_guard lock(mutex_);
  bytes_ += bytes;
  if (!callback_) return std::nullopt;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < kReportEvery) return std::nullopt;
  last_ = now;
  callback_(bytes_);
  return std::nullopt;
}

Result<Unpacked> UnpackArchive(UniqueFd archive, Format format, Range range,
                               ImageDirectory* directory, Progress& progress) {
  const auto source = Source::Open(std::move(archive), format, false, range);
  if (!source.ok()) return source.error();
  auto writer = BlockWriter::Start({.memory_bytes = kMemoryBytes, .threads = kStorers});
  if (!writer.ok()) return writer.error();
  TarReader tar(*source.value());
  while (true) {
    const auto member = tar.Next();
    if (!member.ok()) return member.error();
    if (!member.value()) break;
    const auto [name, size] = *member.value();
    const auto file = AddImage(*writer.value(), directory, name, size);
    if (!file.ok()) return file.error();
    if (auto error = UnpackMember(tar, *source.value(), *file.value(), progress))
      return *std::move(error);
    if (auto error = writer.value()->error()) return *std::move(error);
  }
  auto files = writer.value()->Finish();
  if (!files.ok()) return files.error();
  return Unpacked{std::move(files.value()), {}};
}

Result<Unpacked> UnpackDirect(UniqueFd archive, Format format, Range range,
                              const std::vector<ImageSize>& images, ImageDirectory* directory,
                              MemoryWriter& writer, Progress& progress) {
  Merge merge(images, directory, &writer);
  if (auto error = merge.Create()) return *std::move(error);
  std::mutex mutex;
  std::optional<Errno> failure;
  std::atomic<bool> failed = false;
  std::atomic<uint64_t> next = 0;
  const auto work = [&] {
    const auto attempt = [&]() -> std::optional<Errno> {
      const UniqueBlock block = MakeBlock();
      UniqueFd own(::fcntl(archive.get(), F_DUPFD_CLOEXEC, 3));
      if (!block) return Errno{"mmap", ENOMEM};
      if (!own.valid()) return Errno::Last("dup archive");
      const auto source = Source::Open(std::move(own), format, false, range);
      if (!source.ok()) return source.error();
      return UnpackPieces(*source.value(), Share(next), block.get(), merge, failed, progress);
    };
    auto error = attempt();
    const std::lock_guard lock(mutex);
    if (error && !failure) failure = std::move(error);
    if (failure) failed = true;
  };
  // The rest is little.
  AtOnce(directory == nullptr ? Cores() : 1, work);
  if (failure) return *failure;
  auto files = merge.Digests();
  if (!files.ok()) return files.error();
  return Unpacked{std::move(files.value()), {}};
}

Result<Unpacked> UnpackShards(std::vector<UniqueFd> shards, Format format,
                              const std::vector<ImageSize>& images, ImageDirectory* directory,
                              MemoryWriter* writer, Progress& progress) {
  const bool is_rest = writer != nullptr && directory != nullptr;
  Merge merge(images, directory, writer);
  if (auto error = merge.Create()) return *std::move(error);
  std::vector<FileDigest> stored(shards.size());
  std::mutex mutex;
  std::optional<Errno> failure;
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    const UniqueBlock block = MakeBlock();
    for (size_t i = next++; i < shards.size(); i = next++) {
      auto shard =
          block ? UnpackShard(std::move(shards[i]), format, !is_rest, block.get(), merge, progress)
                : Result<FileDigest>(Errno{"mmap", ENOMEM});
      const std::lock_guard lock(mutex);
      if (!shard.ok() && !failure) failure = shard.error();
      if (failure) next = shards.size();
      if (shard.ok()) stored[i] = shard.value();
    }
  };
  AtOnce(std::min(Cores(), shards.size()), work);
  if (failure) return *failure;
  auto files = merge.Digests();
  if (!files.ok()) return files.error();
  if (is_rest) stored.clear();
  return Unpacked{std::move(files.value()), std::move(stored)};
}

Result<Unpacked> CopyImages(int from_fd, const std::vector<std::string>& names,
                            ImageDirectory& directory, MemoryWriter* writer, Progress& progress) {
  auto storing = BlockWriter::Start({.memory_bytes = kMemoryBytes, .threads = kStorers});
  if (!storing.ok()) return storing.error();
  for (const std::string& name : names) {
    const auto source = OpenImage(from_fd, name);
    if (!source.ok()) return source.error();
    const auto& [fd, size] = source.value();
    const MemoryPlan* plan = writer == nullptr ? nullptr : writer->Find(name);
    if (plan != nullptr && plan->size != size) return Bad(name + " is not what its pagemap says");
    const auto file =
        AddImage(*storing.value(), &directory, name, plan == nullptr ? size : plan->rest_size);
    if (!file.ok()) return file.error();
    const std::vector<MemoryPlan::Run> whole = {{0, size, 0}};
    for (const MemoryPlan::Run& run : plan == nullptr ? whole : plan->rest) {
      if (auto error = CopyRun(fd.get(), name, run, *file.value(), progress))
        return *std::move(error);
    }
    file.value()->Close();
  }
  auto files = storing.value()->Finish();
  if (!files.ok()) return files.error();
  // Those of the rest are of no file that anybody knows.
  std::erase_if(files.value(), [&](const FileDigest& file) {
    return writer != nullptr && writer->Find(file.name) != nullptr;
  });
  return Unpacked{std::move(files.value()), {}};
}

Result<Unpacked> WritePages(int from_fd, const std::vector<std::string>& names,
                            MemoryWriter& writer, Progress& progress) {
  for (const std::string& name : names) {
    const auto file = OpenImage(from_fd, name);
    if (!file.ok()) return file.error();
    const MemoryPlan* plan = writer.Find(name);
    if (plan == nullptr || plan->size != file.value().size)
      return Bad(name + " is not what its pagemap says");
  }
  const auto write = [&](const std::string& name, uint64_t offset,
                         std::span<const std::byte> part) -> std::optional<Errno> {
    if (auto error = writer.Write(*writer.Find(name), offset, part)) return error;
    return progress.Report(part.size());
  };
  auto files = DigestFiles(from_fd, names, false, write);
  if (!files.ok()) return files.error();
  return Unpacked{std::move(files.value()), {}};
}

Result<std::vector<ArchivedFile>> ReadArchive(UniqueFd archive, Format format, Range range,
                                              bool is_shard,
                                              const std::optional<std::vector<std::string>>& names,
                                              uint64_t max_bytes) {
  const auto source = Source::Open(std::move(archive), format, false, range);
  if (!source.ok()) return source.error();
  std::set<std::string> wanted;
  if (names) wanted.insert(names->begin(), names->end());
  TarReader tar(*source.value());
  std::map<std::string, size_t> places;
  std::vector<ArchivedFile> files;
  // More pieces of a file may follow anywhere in a shard.
  while (is_shard || !names || places.size() < wanted.size()) {
    const auto member = tar.Next();
    if (!member.ok()) return member.error();
    if (!member.value()) break;
    const auto piece =
        is_shard ? ParsePiece(member.value()->name) : std::optional(Piece{member.value()->name, 0});
    if (!piece) return Bad("no piece: " + member.value()->name);
    if (names && wanted.count(piece->name) == 0) continue;
    const auto [place, is_new] = places.emplace(piece->name, files.size());
    if (is_new) files.push_back({piece->name, 0, {}});
    ArchivedFile& file = files[place->second];
    const uint64_t end = piece->offset + member.value()->size;
    file.size = std::max(file.size, end);
    if (piece->offset >= max_bytes || (!names && IsBulk(piece->name))) continue;
    file.content.resize(std::max<uint64_t>(file.content.size(), std::min(end, max_bytes)));
    const auto content = std::as_writable_bytes(std::span(file.content));
    const uint64_t size = std::min(end, max_bytes) - piece->offset;
    if (auto error = tar.Read(content.subspan(piece->offset, size))) return *std::move(error);
  }
  return files;
}

Result<bool> CanSkip(int archive, Format format, Range range) {
  if (format == Format::kTar) return true;
  std::array<std::byte, kMaxFrameHead> bytes;
  const ssize_t n = ::pread(archive, bytes.data(), bytes.size(), static_cast<off_t>(range.offset));
  if (n < 0) return Errno::Last("read archive");
  const auto head = ReadFrameHead(format, Bytes(bytes).first(static_cast<size_t>(n)));
  return head && head->content <= kChunkBytes;
}

Result<std::vector<ArchivedPart>> ListArchive(UniqueFd archive) {
  const auto source = Source::Open(std::move(archive), Format::kTar, false);
  if (!source.ok()) return source.error();
  TarReader tar(*source.value(), TarReader::Files::kAll);
  std::vector<ArchivedPart> parts;
  while (true) {
    const auto member = tar.Next();
    if (!member.ok()) return member.error();
    if (!member.value()) return parts;
    parts.push_back({member.value()->name, {source.value()->offset(), member.value()->size}});
  }
}

namespace {

Range RangeOf(const Napi::Value& value) {
  if (value.IsNull()) return {};
  const auto range = value.As<Napi::Object>();
  const auto number = [&range](const char* key) {
    return static_cast<uint64_t>(range.Get(key).As<Napi::Number>().Int64Value());
  };
  return {number("offset"), number("size")};
}

UniqueFd Duplicate(const Napi::Value& fd) { return UniqueFd(::fcntl(Int(fd), F_DUPFD_CLOEXEC, 3)); }

using Cancellation = std::atomic<bool>;

// A JavaScript function that a working thread may call, as long as its promise is pending.
class ProgressCallback {
 public:
  explicit ProgressCallback(const Napi::Value& function) {
    if (!function.IsNull()) reference_ = Napi::Persistent(function.As<Napi::Function>());
  }

  // The owner has to outlive every call: calls are posted before the promise is settled.
  Progress::Callback Of(Napi::Env env) {
    if (reference_.IsEmpty()) return {};
    return [this, main = MainThread::Of(env)](uint64_t read) {
      main->Post([this, read](Napi::Env js) {
        reference_.Call({Napi::Number::New(js, static_cast<double>(read))});
      });
    };
  }

 private:
  Napi::FunctionReference reference_;
};

Napi::Value CancellationJs(const Napi::CallbackInfo& info) {
  return MakeHandle(info.Env(), std::make_shared<Cancellation>(false));
}

Napi::Value CancelJs(const Napi::CallbackInfo& info) {
  *HandleOf<Cancellation>(info[0]) = true;
  return info.Env().Undefined();
}

Napi::Value MakeJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int64_t memory_bytes = info[0].As<Napi::Number>().Int64Value();
  auto made = ImageDirectory::Make(static_cast<uint64_t>(memory_bytes), Text(info[1]));
  if (!made.ok()) return Throw(env, made.error());
  const auto result = Napi::Object::New(env);
  result.Set("directoryFd", made.value()->fd());
  result.Set("images", MakeHandle(env, std::move(made.value())));
  return result;
}

// A plan, and what there is to know of it; null when there is none.
Napi::Value PlanJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto pagemap = info[1].As<Napi::Uint8Array>();
  const auto numbers = info[2].As<Napi::Float64Array>();  // addresses of pages fit
  std::vector<AddressRange> ranges;
  for (size_t i = 0; i + 1 < numbers.ElementLength(); i += 2)
    ranges.push_back({static_cast<uint64_t>(numbers[i]), static_cast<uint64_t>(numbers[i + 1])});
  auto planned = PlanMemory(
      Uint(info[0]), {reinterpret_cast<const char*>(pagemap.Data()), pagemap.ByteLength()}, ranges);
  if (!planned.ok()) return env.Null();
  const auto plan = std::make_shared<MemoryPlan>(std::move(planned.value()));
  const auto result = Napi::Object::New(env);
  result.Set("plan", MakeHandle(env, plan));
  result.Set("pages", plan->pages_name);
  result.Set("size", static_cast<double>(plan->size));
  result.Set("restSize", static_cast<double>(plan->rest_size));
  result.Set("restPagemap",
             Napi::Buffer<char>::Copy(env, plan->rest_pagemap.data(), plan->rest_pagemap.size()));
  return result;
}

Napi::Value WriterJs(const Napi::CallbackInfo& info) {
  auto plans = List<MemoryPlan>(
      info[0], [](const Napi::Value& plan) { return *HandleOf<MemoryPlan>(plan); });
  return MakeHandle(info.Env(), std::make_shared<MemoryWriter>(std::move(plans)));
}

Napi::Value WriterStartJs(const Napi::CallbackInfo& info) {
  HandleOf<MemoryWriter>(info[0])->Start(Int(info[1]));
  return info.Env().Undefined();
}

Napi::Value WriterStopJs(const Napi::CallbackInfo& info) {
  HandleOf<MemoryWriter>(info[0])->Stop();
  return info.Env().Undefined();
}

std::shared_ptr<MemoryWriter> WriterOf(const Napi::Value& value) {
  return value.IsNull() ? nullptr : HandleOf<MemoryWriter>(value);
}

Napi::Value ClearJs(const Napi::CallbackInfo& info) {
  const auto error = HandleOf<ImageDirectory>(info[0])->Clear();
  return error ? Throw(info.Env(), *error) : info.Env().Undefined();
}

Napi::Value CloseJs(const Napi::CallbackInfo& info) {
  HandleOf<ImageDirectory>(info[0])->Close();
  return info.Env().Undefined();
}

// Runs `unpack(ImageDirectory*, Progress&)` on a thread. The arguments behind its own are always
// images, cancellation, progress.
template <typename Unpack>
Napi::Value RunUnpack(const Napi::CallbackInfo& info, size_t first, Unpack unpack) {
  const Napi::Env env = info.Env();
  auto callback = std::make_unique<ProgressCallback>(info[first + 2]);
  std::shared_ptr<ImageDirectory> directory;
  if (!info[first].IsNull()) directory = HandleOf<ImageDirectory>(info[first]);
  std::shared_ptr<Cancellation> cancelled;
  if (!info[first + 1].IsNull()) cancelled = HandleOf<Cancellation>(info[first + 1]);
  auto progress = std::make_unique<Progress>(callback->Of(env), std::move(cancelled));
  return RunAsync(
      env, Where::kThread,
      [directory, unpack = std::move(unpack), progress = std::move(progress)]() mutable {
        return unpack(directory.get(), *progress);
      },
      [callback = std::move(callback)](Napi::Env js, const Unpacked& unpacked) -> Napi::Value {
        const auto digest = [js](const FileDigest& file) { return FileDigestToJs(js, file); };
        const auto result = Napi::Object::New(js);
        result.Set("files", ArrayOf(js, unpacked.files, digest));
        result.Set("shards", ArrayOf(js, unpacked.shards, digest));
        return result;
      });
}

std::vector<ImageSize> ImagesOf(const Napi::Value& images) {
  return List<ImageSize>(images, [](const Napi::Value& value) {
    const auto image = value.As<Napi::Object>();
    const int64_t size = image.Get("size").As<Napi::Number>().Int64Value();
    return ImageSize{Text(image.Get("name")), static_cast<uint64_t>(size)};
  });
}

Napi::Value ArchiveJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto format = FormatOf(Text(info[1]));
  if (!format) return Throw(env, Errno{"archive format", EINVAL});
  UniqueFd archive = Duplicate(info[0]);
  if (!archive.valid()) return Throw(env, Errno::Last("dup archive"));
  return RunUnpack(info, 4,
                   [archive = std::move(archive), format = *format, range = RangeOf(info[2]),
                    images = ImagesOf(info[3]), writer = WriterOf(info[7])](
                       ImageDirectory* directory, Progress& progress) mutable {
                     if (writer == nullptr)
                       return UnpackArchive(std::move(archive), format, range, directory, progress);
                     return UnpackDirect(std::move(archive), format, range, images, directory,
                                         *writer, progress);
                   });
}

Napi::Value ShardsJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto format = FormatOf(Text(info[1]));
  if (!format) return Throw(env, Errno{"archive format", EINVAL});
  std::vector<UniqueFd> shards;
  const auto array = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) {
    shards.push_back(Duplicate(array.Get(i)));
    if (!shards.back().valid()) return Throw(env, Errno::Last("dup shard"));
  }
  return RunUnpack(
      info, 3,
      [shards = std::move(shards), format = *format, images = ImagesOf(info[2]),
       writer = WriterOf(info[6])](ImageDirectory* directory, Progress& progress) mutable {
        return UnpackShards(std::move(shards), format, images, directory, writer.get(), progress);
      });
}

Napi::Value CopyJs(const Napi::CallbackInfo& info) {
  return RunUnpack(info, 2,
                   [from_fd = Int(info[0]), names = Texts(info[1]), writer = WriterOf(info[5])](
                       ImageDirectory* directory, Progress& progress) {
                     if (directory != nullptr)
                       return CopyImages(from_fd, names, *directory, writer.get(), progress);
                     return WritePages(from_fd, names, *writer, progress);
                   });
}

Napi::Value ReadJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto format = FormatOf(Text(info[1]));
  if (!format) return Throw(env, Errno{"archive format", EINVAL});
  UniqueFd archive = Duplicate(info[0]);
  if (!archive.valid()) return Throw(env, Errno::Last("dup archive"));
  std::optional<std::vector<std::string>> names;
  if (!info[4].IsNull()) names = Texts(info[4]);
  return RunAsync(
      env, Where::kThread,
      [archive = std::move(archive), format = *format, range = RangeOf(info[2]),
       is_shard = info[3].As<Napi::Boolean>().Value(), names = std::move(names),
       max_bytes = static_cast<uint64_t>(info[5].As<Napi::Number>().Int64Value())]() mutable {
        return ReadArchive(std::move(archive), format, range, is_shard, names, max_bytes);
      },
      [](Napi::Env js, const std::vector<ArchivedFile>& files) -> Napi::Value {
        return ArrayOf(js, files, [js](const ArchivedFile& file) {
          const auto object = Napi::Object::New(js);
          object.Set("name", file.name);
          object.Set("size", static_cast<double>(file.size));
          auto bytes = Napi::Uint8Array::New(js, file.content.size());
          std::copy(file.content.begin(), file.content.end(), bytes.Data());
          object.Set("content", bytes);
          return object;
        });
      });
}

Napi::Value CanSkipJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto format = FormatOf(Text(info[1]));
  if (!format) return Throw(env, Errno{"archive format", EINVAL});
  const auto can_skip = CanSkip(Int(info[0]), *format, RangeOf(info[2]));
  if (!can_skip.ok()) return Throw(env, can_skip.error());
  return Napi::Boolean::New(env, can_skip.value());
}

Napi::Value ListJs(const Napi::CallbackInfo& info) {
  UniqueFd archive = Duplicate(info[0]);
  if (!archive.valid()) return Throw(info.Env(), Errno::Last("dup archive"));
  return RunAsync(
      info.Env(), Where::kThread,
      [archive = std::move(archive)]() mutable { return ListArchive(std::move(archive)); },
      [](Napi::Env js, const std::vector<ArchivedPart>& parts) -> Napi::Value {
        return ArrayOf(js, parts, [js](const ArchivedPart& part) {
          const auto object = Napi::Object::New(js);
          object.Set("name", part.name);
          object.Set("offset", static_cast<double>(part.range.offset));
          object.Set("size", static_cast<double>(part.range.size));
          return object;
        });
      });
}

}  // namespace

void InitUnpack(Napi::Env env, Napi::Object exports) {
  exports.Set("cancellation", Napi::Function::New(env, CancellationJs));
  exports.Set("cancel", Napi::Function::New(env, CancelJs));
  exports.Set("imagesMake", Napi::Function::New(env, MakeJs));
  exports.Set("imagesClear", Napi::Function::New(env, ClearJs));
  exports.Set("imagesClose", Napi::Function::New(env, CloseJs));
  exports.Set("unpackArchive", Napi::Function::New(env, ArchiveJs));
  exports.Set("unpackShards", Napi::Function::New(env, ShardsJs));
  exports.Set("memoryPlan", Napi::Function::New(env, PlanJs));
  exports.Set("memoryWriter", Napi::Function::New(env, WriterJs));
  exports.Set("memoryWriterStart", Napi::Function::New(env, WriterStartJs));
  exports.Set("memoryWriterStop", Napi::Function::New(env, WriterStopJs));
  exports.Set("copyImages", Napi::Function::New(env, CopyJs));
  exports.Set("archiveRead", Napi::Function::New(env, ReadJs));
  exports.Set("archiveCanSkip", Napi::Function::New(env, CanSkipJs));
  exports.Set("archiveList", Napi::Function::New(env, ListJs));
}

}  // namespace cedana
