#include "stream/checksum.h"

#include <fcntl.h>
#include <unistd.h>
#if __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>  // the library has a way for each vector unit, the header alone the oldest
#else
#include <xxhash.h>
#endif

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/async.h"
#include "base/fd.h"
#include "base/values.h"
#include "stream/images.h"
#include "stream/threads.h"

// Of OpenSSL's, which node carries and lets addons use, without its headers.
extern "C" {
struct evp_md_ctx_st;
struct evp_md_st;
evp_md_ctx_st* EVP_MD_CTX_new();
void EVP_MD_CTX_free(evp_md_ctx_st*);
const evp_md_st* EVP_sha256();
int EVP_DigestInit_ex(evp_md_ctx_st*, const evp_md_st*, void*);
int EVP_DigestUpdate(evp_md_ctx_st*, const void*, size_t);
int EVP_DigestFinal_ex(evp_md_ctx_st*, unsigned char*, unsigned*);
}

namespace cedana {

namespace {

constexpr size_t kSha256Bytes = 32;
constexpr size_t kReadBytes = size_t{256} << 10;  // stays in the second-level cache until digested

LeafDigest Canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  LeafDigest digest;
  std::transform(std::begin(canonical.digest), std::end(canonical.digest), digest.begin(),
                 [](unsigned char c) { return std::byte{c}; });
  return digest;
}

std::string Hex(std::span<const std::byte> digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte b : digest) {
    text += kDigits[std::to_integer<unsigned>(b) >> 4];
    text += kDigits[std::to_integer<unsigned>(b) & 15];
  }
  return text;
}

// What the threads of DigestFiles share: each takes the next leaf of the next file.
class DigestWork {
 public:
  DigestWork(size_t files, const TakePart& take) : take_(take), files_(files) {}

  std::optional<Errno> Open(int directory_fd, const std::vector<std::string>& names) {
    for (size_t i = 0; i < names.size(); i++) {
      File& file = files_[i];
      file.name = names[i];
      auto image = OpenImage(directory_fd, names[i]);
      if (!image.ok()) return image.error();
      file.fd = std::move(image.value().fd);
      file.size = image.value().size;
      file.leaves.resize(std::max<uint64_t>((file.size + kLeafBytes - 1) / kLeafBytes, 1));
      leaves_ += file.leaves.size();
    }
    return std::nullopt;
  }

  [[nodiscard]] size_t leaves() const { return leaves_; }

  void Run() {
    const std::unique_ptr<std::byte[]> buffer(new std::byte[kReadBytes]);
    LeafHasher hasher;
    while (const auto next = Take()) {
      const auto [file, leaf] = *next;
      if (auto error = ReadLeaf(*file, leaf, buffer.get(), hasher)) return Fail(*std::move(error));
      file->leaves[leaf] = hasher.Finish();
    }
  }

  Result<std::vector<FileDigest>> Outcome() {
    if (error_) return *error_;
    std::vector<FileDigest> digests;
    for (const File& file : files_)
      digests.push_back({file.name, file.size, CombineLeaves(file.leaves)});
    return digests;
  }

 private:
  struct File {
    std::string name;
    UniqueFd fd;
    uint64_t size = 0;
    std::vector<LeafDigest> leaves;
  };

  std::optional<std::pair<File*, size_t>> Take() {
    const std::lock_guard lock(mutex_);
    if (error_) return std::nullopt;
    while (next_file_ < files_.size()) {
      File& file = files_[next_file_];
      if (next_leaf_ < file.leaves.size()) return std::pair{&file, next_leaf_++};
      next_file_++;
      next_leaf_ = 0;
    }
    return std::nullopt;
  }

  std::optional<Errno> ReadLeaf(const File& file, size_t leaf, std::byte* buffer,
                                LeafHasher& hasher) {
    uint64_t position = leaf * kLeafBytes;
    const uint64_t end = std::min<uint64_t>(position + kLeafBytes, file.size);
    // Read ahead of the kernel's own window: it stays small while two threads alternate in a file.
    ::posix_fadvise(file.fd.get(), static_cast<off_t>(position), kLeafBytes, POSIX_FADV_WILLNEED);
    while (position < end) {
      const size_t want = std::min<uint64_t>(kReadBytes, end - position);
      const auto got = ReadImage(file.fd.get(), file.name, {buffer, want}, position);
      if (!got.ok()) return got.error();
      const std::span<const std::byte> part(buffer, got.value());
      hasher.Update(part);
      if (take_) {
        if (auto error = take_(file.name, position, part)) return error;
      }
      position += got.value();
    }
    return std::nullopt;
  }

  void Fail(Errno error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }

  const TakePart& take_;
  std::vector<File> files_;
  size_t leaves_ = 0;
  std::mutex mutex_;
  size_t next_file_ = 0;
  size_t next_leaf_ = 0;
  std::optional<Errno> error_;
};

}  // namespace

LeafDigest DigestLeaf(const std::byte* data, size_t size) {
  return Canonical(XXH3_128bits(data, size));
}

std::string CombineLeaves(const std::vector<LeafDigest>& leaves) {
  if (leaves.empty()) return Hex(DigestLeaf(nullptr, 0));
  if (leaves.size() == 1) return Hex(leaves[0]);
  return Hex(DigestLeaf(leaves[0].data(), leaves.size() * sizeof(LeafDigest)));
}

struct LeafHasher::State {
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> xxh3{XXH3_createState(), XXH3_freeState};
};

LeafHasher::LeafHasher() : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(state_->xxh3.get());
}
LeafHasher::~LeafHasher() = default;

void LeafHasher::Update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh3.get(), bytes.data(), bytes.size());
}

LeafDigest LeafHasher::Finish() {
  const LeafDigest digest = Canonical(XXH3_128bits_digest(state_->xxh3.get()));
  XXH3_128bits_reset(state_->xxh3.get());
  return digest;
}

struct FileHasher::State {
  LeafHasher leaf;
  size_t in_leaf = 0;
  std::vector<LeafDigest> leaves;

  void EndLeaf() {
    leaves.push_back(leaf.Finish());
    in_leaf = 0;
  }
};

FileHasher::FileHasher() : state_(std::make_unique<State>()) {}
FileHasher::~FileHasher() = default;

void FileHasher::Update(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t n = std::min(bytes.size(), kLeafBytes - state_->in_leaf);
    state_->leaf.Update(bytes.first(n));
    bytes = bytes.subspan(n);
    state_->in_leaf += n;
    if (state_->in_leaf == kLeafBytes) state_->EndLeaf();
  }
}

std::string FileHasher::Finish() {
  if (state_->in_leaf > 0) state_->EndLeaf();
  return CombineLeaves(state_->leaves);
}

std::string DigestBytes(const std::byte* data, size_t size) {
  std::vector<LeafDigest> leaves;
  for (size_t at = 0; at < size; at += kLeafBytes)
    leaves.push_back(DigestLeaf(data + at, std::min(kLeafBytes, size - at)));
  return CombineLeaves(leaves);
}

Result<std::vector<FileDigest>> DigestFiles(int directory_fd, const std::vector<std::string>& names,
                                            bool beside, const TakePart& take) {
  DigestWork work(names.size(), take);
  if (auto error = work.Open(directory_fd, names)) return *std::move(error);
  {
    ThreadGroup threads;
    const size_t cores = std::clamp<size_t>(std::thread::hardware_concurrency(), 2, 5);
    const size_t wanted = std::min<size_t>(beside ? cores - 1 : cores, 4);
    for (size_t i = 1; i < std::min(wanted, work.leaves()); i++) {
      if (!threads.Start([&work] { work.Run(); }).ok()) break;  // fewer threads do as well
    }
    work.Run();
  }
  return work.Outcome();
}

Result<std::string> Sha256(int fd, uint64_t offset, uint64_t size) {
  const std::unique_ptr<std::byte[]> buffer(new std::byte[kReadBytes]);
  const std::unique_ptr<evp_md_ctx_st, decltype(&EVP_MD_CTX_free)> state(EVP_MD_CTX_new(),
                                                                         EVP_MD_CTX_free);
  if (!state || EVP_DigestInit_ex(state.get(), EVP_sha256(), nullptr) != 1)
    return Errno{"sha256", ENOTSUP};
  static_cast<void>(::posix_fadvise(fd, static_cast<off_t>(offset), static_cast<off_t>(size),
                                    POSIX_FADV_SEQUENTIAL));
  while (size > 0) {
    const size_t want = std::min<uint64_t>(kReadBytes, size);
    const ssize_t got = ::pread(fd, buffer.get(), want, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Errno::Last("read");
    if (got == 0) return Errno{"read", EBADMSG};  // cut off
    EVP_DigestUpdate(state.get(), buffer.get(), static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
    size -= static_cast<uint64_t>(got);
  }
  std::array<std::byte, kSha256Bytes> digest{};
  EVP_DigestFinal_ex(state.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr);
  return Hex(digest);
}

Napi::Object FileDigestToJs(Napi::Env env, const FileDigest& file) {
  const auto object = Napi::Object::New(env);
  object.Set("name", file.name);
  object.Set("size", static_cast<double>(file.size));
  object.Set("digest", file.digest);
  return object;
}

namespace {

Napi::Value DigestFilesJs(const Napi::CallbackInfo& info) {
  return RunAsync(
      info.Env(), Where::kThread,
      [directory_fd = Int(info[0]), names = Texts(info[1]),
       beside = info[2].As<Napi::Boolean>().Value()] {
        return DigestFiles(directory_fd, names, beside);
      },
      [](Napi::Env env, const std::vector<FileDigest>& files) -> Napi::Value {
        return ArrayOf(env, files,
                       [env](const FileDigest& file) { return FileDigestToJs(env, file); });
      });
}

Napi::Value DigestBytesJs(const Napi::CallbackInfo& info) {
  const auto bytes = info[0].As<Napi::Uint8Array>();
  const std::string digest =
      DigestBytes(reinterpret_cast<const std::byte*>(bytes.Data()), bytes.ByteLength());
  return Napi::String::New(info.Env(), digest);
}

Napi::Value Sha256Js(const Napi::CallbackInfo& info) {
  const auto number = [&info](size_t index) {
    return static_cast<uint64_t>(info[index].As<Napi::Number>().Int64Value());
  };
  UniqueFd fd(::fcntl(Int(info[0]), F_DUPFD_CLOEXEC, 3));
  if (!fd.valid()) return Throw(info.Env(), Errno::Last("dup file"));
  return RunAsync(
      info.Env(), Where::kThread,
      [fd = std::move(fd), offset = number(1), size = number(2)] {
        return Sha256(fd.get(), offset, size);
      },
      [](Napi::Env env, const std::string& digest) -> Napi::Value {
        return Napi::String::New(env, digest);
      });
}

}  // namespace

void InitChecksum(Napi::Env env, Napi::Object exports) {
  exports.Set("digestFiles", Napi::Function::New(env, DigestFilesJs));
  exports.Set("digestBytes", Napi::Function::New(env, DigestBytesJs));
  exports.Set("sha256", Napi::Function::New(env, Sha256Js));
}

}  // namespace cedana
