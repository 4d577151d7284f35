#include "stream/archive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <set>
#include <span>
#include <utility>

#include "base/async.h"
#include "base/values.h"
#include "stream/encoder.h"
#include "stream/source.h"
#include "stream/tar.h"
#include "stream/writer.h"

namespace cedana {

namespace {

constexpr size_t kMemoryBytes = size_t{32} << 20;
constexpr int kWriters = 2;
constexpr auto kReportEvery = std::chrono::milliseconds(50);

// The encoder has no room left: its file failed, or memory is short.
Errno Stuck(BlockWriter& writer) { return writer.error().value_or(Errno{"compress", ENOMEM}); }

std::optional<Errno> AddFile(int directory_fd, const std::string& name, Encoder& encoder,
                             BlockWriter& writer, uint64_t& read, Progress& progress) {
  if (name.size() > 100 || name.find('/') != std::string::npos)
    return Errno{"archive " + name, ENAMETOOLONG};
  const UniqueFd fd(
      ::openat(directory_fd, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info{};
  if (!fd.valid()) return Errno::Last("open " + name);
  if (::fstat(fd.get(), &info) < 0) return Errno::Last("stat " + name);
  if (!S_ISREG(info.st_mode)) return Errno{"read " + name, EISDIR};
  static_cast<void>(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL));
  const auto size = static_cast<uint64_t>(info.st_size);
  const TarBlock header = TarHeader(name, size, info.st_mtim.tv_sec);
  if (!encoder.Append(header.data(), header.size())) return Stuck(writer);
  for (uint64_t at = 0; at < size;) {
    const std::span<std::byte> space = encoder.Space();
    if (space.empty()) return Stuck(writer);
    const size_t want = std::min<uint64_t>({space.size(), size - at, kChunkBytes});
    const ssize_t n = ::pread(fd.get(), space.data(), want, static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Errno::Last("read " + name);
    if (n == 0) return Errno{"read " + name, EIO};  // cut off meanwhile
    encoder.Commit(static_cast<size_t>(n));
    at += static_cast<uint64_t>(n);
    read += static_cast<uint64_t>(n);
    progress.Report(read, writer.written());
  }
  constexpr TarBlock kZeros{};
  if (!encoder.Append(kZeros.data(), (kTarBlock - size % kTarBlock) % kTarBlock))
    return Stuck(writer);
  return std::nullopt;
}

std::optional<Errno> ExtractFile(TarReader& tar, OutputFile& file,
                                 const std::function<void()>& report) {
  while (tar.left() > 0) {
    const std::span<std::byte> space = file.Space();
    if (space.empty()) break;  // the writer keeps the reason
    const std::span<std::byte> part =
        space.first(std::min<uint64_t>({space.size(), tar.left(), kChunkBytes}));
    if (auto error = tar.Read(part)) return error;
    file.Commit(part.size());
    report();
  }
  file.Close();
  return std::nullopt;
}

}  // namespace

void Progress::Report(uint64_t read, uint64_t written) {
  if (!callback_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < kReportEvery) return;
  last_ = now;
  callback_(read, written);
}

Result<FileDigest> CreateArchive(int directory_fd, const std::vector<std::string>& names,
                                 UniqueFd output, const Packing& packing, Progress progress) {
  auto started = BlockWriter::Start(kMemoryBytes, kWriters, [] {});
  if (!started.ok()) return started.error();
  BlockWriter& writer = *started.value();
  OutputFile& file = *writer.Take(std::move(output), "archive", {.direct = true, .durable = true});
  auto encoder = Encoder::Start(packing.format, packing.level, packing.threads, file);
  if (!encoder.ok()) return encoder.error();
  uint64_t read = 0;
  for (const std::string& name : names) {
    if (auto error = AddFile(directory_fd, name, *encoder.value(), writer, read, progress))
      return *std::move(error);
  }
  constexpr std::array<TarBlock, 2> kEnd{};
  if (!encoder.value()->Append(kEnd.data(), sizeof kEnd)) return Stuck(writer);
  if (const auto packed = encoder.value()->Finish(); !packed.ok())
    return writer.error().value_or(packed.error());
  file.Close();
  auto files = writer.Finish();
  if (!files.ok()) return files.error();
  return std::move(files.value()[0]);
}

Result<std::vector<FileDigest>> ExtractArchive(UniqueFd archive, Format format, int directory_fd,
                                               Progress progress) {
  const auto source = Source::Open(std::move(archive), format);
  if (!source.ok()) return source.error();
  auto writer = BlockWriter::Start(kMemoryBytes, kWriters, [] {});
  if (!writer.ok()) return writer.error();
  TarReader tar(*source.value());
  while (true) {
    const auto member = tar.Next();
    if (!member.ok()) return member.error();
    if (!member.value()) return writer.value()->Finish();
    const auto file = writer.value()->Create(directory_fd, member.value()->name, {});
    if (!file.ok()) return file.error();
    const auto report = [&] {
      progress.Report(source.value()->consumed(), writer.value()->written());
    };
    if (auto error = ExtractFile(tar, *file.value(), report)) return *std::move(error);
    if (auto error = writer.value()->error()) return *std::move(error);
  }
}

Result<std::vector<ArchivedFile>> ReadArchive(UniqueFd archive, Format format,
                                              const std::optional<std::vector<std::string>>& names,
                                              uint64_t max_bytes) {
  const auto source = Source::Open(std::move(archive), format);
  if (!source.ok()) return source.error();
  std::set<std::string> wanted;
  if (names) wanted.insert(names->begin(), names->end());
  TarReader tar(*source.value());
  std::vector<ArchivedFile> files;
  while (!names || !wanted.empty()) {
    const auto member = tar.Next();
    if (!member.ok()) return member.error();
    if (!member.value()) break;
    if (names && wanted.erase(member.value()->name) == 0) continue;
    ArchivedFile& file =
        files.emplace_back(ArchivedFile{member.value()->name, member.value()->size, {}});
    file.content.resize(std::min(file.size, max_bytes));
    if (auto error = tar.Read(std::as_writable_bytes(std::span(file.content))))
      return *std::move(error);
  }
  return files;
}

namespace {

UniqueFd Duplicate(const Napi::Value& fd) { return UniqueFd(::fcntl(Int(fd), F_DUPFD_CLOEXEC, 3)); }

// A JavaScript function that a working thread may call, as long as its promise is pending.
class ProgressCallback {
 public:
  explicit ProgressCallback(const Napi::Value& function) {
    if (!function.IsNull()) reference_ = Napi::Persistent(function.As<Napi::Function>());
  }

  // The owner has to outlive every call: calls are posted before the promise is settled.
  Progress::Callback Of(Napi::Env env) {
    if (reference_.IsEmpty()) return {};
    return [this, main = MainThread::Of(env)](uint64_t read, uint64_t written) {
      main->Post([this, read, written](Napi::Env js) {
        const auto progress = Napi::Object::New(js);
        progress.Set("readBytes", static_cast<double>(read));
        progress.Set("writtenBytes", static_cast<double>(written));
        reference_.Call({progress});
      });
    };
  }

 private:
  Napi::FunctionReference reference_;
};

Napi::Value CreateJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto format = FormatOf(Text(info[3]));
  if (!format) return Throw(env, Errno{"archive format", EINVAL});
  const FormatTraits& traits = TraitsOf(*format);
  const int level = info[4].IsNull() ? traits.default_level : Int(info[4]);
  if (level < traits.min_level || level > traits.max_level)
    return Throw(env, Errno{"compression level", EINVAL});
  const Packing packing{*format, level, std::max(Int(info[5]), 1)};
  UniqueFd output = Duplicate(info[2]);
  if (!output.valid()) return Throw(env, Errno::Last("dup archive"));
  auto callback = std::make_unique<ProgressCallback>(info[6]);
  const Progress progress(callback->Of(env));
  return RunAsync(
      env, Where::kThread,
      [directory_fd = Int(info[0]), names = Texts(info[1]), output = std::move(output), packing,
       progress]() mutable {
        return CreateArchive(directory_fd, names, std::move(output), packing, progress);
      },
      [callback = std::move(callback)](Napi::Env js, const FileDigest& archive) -> Napi::Value {
        const auto result = Napi::Object::New(js);
        result.Set("size", static_cast<double>(archive.size));
        result.Set("digest", archive.digest);
        return result;
      });
}

Napi::Value ExtractJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto format = FormatOf(Text(info[1]));
  if (!format) return Throw(env, Errno{"archive format", EINVAL});
  UniqueFd archive = Duplicate(info[0]);
  if (!archive.valid()) return Throw(env, Errno::Last("dup archive"));
  auto callback = std::make_unique<ProgressCallback>(info[3]);
  const Progress progress(callback->Of(env));
  return RunAsync(
      env, Where::kThread,
      [archive = std::move(archive), format = *format, directory_fd = Int(info[2]),
       progress]() mutable {
        return ExtractArchive(std::move(archive), format, directory_fd, progress);
      },
      [callback = std::move(callback)](Napi::Env js,
                                       const std::vector<FileDigest>& files) -> Napi::Value {
        return ArrayOf(js, files,
                       [js](const FileDigest& file) { return FileDigestToJs(js, file); });
      });
}

Napi::Value ReadJs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto format = FormatOf(Text(info[1]));
  if (!format) return Throw(env, Errno{"archive format", EINVAL});
  UniqueFd archive = Duplicate(info[0]);
  if (!archive.valid()) return Throw(env, Errno::Last("dup archive"));
  std::optional<std::vector<std::string>> names;
  if (!info[2].IsNull()) names = Texts(info[2]);
  return RunAsync(
      env, Where::kThread,
      [archive = std::move(archive), format = *format, names = std::move(names),
       max_bytes = static_cast<uint64_t>(info[3].As<Napi::Number>().Int64Value())]() mutable {
        return ReadArchive(std::move(archive), format, names, max_bytes);
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

}  // namespace

void InitArchive(Napi::Env env, Napi::Object exports) {
  exports.Set("archiveCreate", Napi::Function::New(env, CreateJs));
  exports.Set("archiveExtract", Napi::Function::New(env, ExtractJs));
  exports.Set("archiveRead", Napi::Function::New(env, ReadJs));
}

}  // namespace cedana
