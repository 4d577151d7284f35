#include "stream/images.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace cedana {

namespace {

constexpr size_t kSlice = size_t{64} << 10;  // shorter runs of zeros are written

bool IsZero(std::span<const std::byte> bytes) {
  return bytes.empty() || (bytes[0] == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

Result<UniqueFd> Mount() {
  const UniqueFd context(::fsopen("tmpfs", FSOPEN_CLOEXEC));
  if (!context.valid()) return Errno::Last("fsopen tmpfs");
  // Memory is counted here, file by file.
  for (const auto& [key, value] : {std::pair{"size", "0"}, {"nr_inodes", "0"}, {"mode", "0700"}}) {
    if (::fsconfig(context.get(), FSCONFIG_SET_STRING, key, value, 0) < 0)
      return Errno::Last(std::string("tmpfs ") + key);
  }
  // Only quicker, by far: a first touch costs more than the copy.
  static_cast<void>(::fsconfig(context.get(), FSCONFIG_SET_STRING, "huge", "within_size", 0));
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0)
    return Errno::Last("create tmpfs");
  UniqueFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC,
                           MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  if (!mount.valid()) return Errno::Last("fsmount tmpfs");
  return mount;
}

Result<UniqueFd> Nameless(const std::string& directory) {
  UniqueFd fd(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd.valid()) return fd;
  std::string path = directory + "/.cedana-XXXXXX";  // a file system that has only named ones
  fd.Reset(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd.valid()) return Errno::Last("create a file in " + directory);
  ::unlink(path.c_str());
  return fd;
}

}  // namespace

Result<ImageFile> OpenImage(int directory_fd, const std::string& name) {
  UniqueFd fd(::openat(directory_fd, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (!fd.valid()) return Errno::Last("open " + name);
  if (::fstat(fd.get(), &info) < 0) return Errno::Last("stat " + name);
  if (!S_ISREG(info.st_mode)) return Errno{"read " + name, EISDIR};
  return ImageFile{std::move(fd), static_cast<uint64_t>(info.st_size)};
}

Result<size_t> ReadImage(int fd, const std::string& name, std::span<std::byte> out,
                         uint64_t offset) {
  ssize_t n;
  do {
    n = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
  } while (n < 0 && errno == EINTR);
  if (n < 0) return Errno::Last("read " + name);
  if (n == 0) return Errno{"read " + name, EIO};  // cut off meanwhile
  return static_cast<size_t>(n);
}

Result<std::shared_ptr<ImageDirectory>> ImageDirectory::Make(uint64_t memory_bytes,
                                                             std::string spill_directory) {
  auto mount = Mount();
  if (!mount.ok()) return mount.error();
  UniqueFd root(::openat(mount.value().get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return Errno::Last("open tmpfs");
  return std::shared_ptr<ImageDirectory>(new ImageDirectory(
      std::move(mount.value()), std::move(root), memory_bytes, std::move(spill_directory)));
}

ImageDirectory::ImageDirectory(UniqueFd mount, UniqueFd root, uint64_t memory_bytes,
                               std::string spill_directory)
    : mount_(std::move(mount)),
      root_(std::move(root)),
      spill_directory_(std::move(spill_directory)),
      memory_bytes_(memory_bytes),
      memory_left_(memory_bytes) {}

Result<UniqueFd> ImageDirectory::Create(const std::string& name, uint64_t size) {
  const std::lock_guard lock(mutex_);
  UniqueFd fd;
  if (size <= memory_left_) {
    memory_left_ -= size;
    fd.Reset(::openat(root_.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd.valid()) return Errno::Last("create " + name);
  } else {
    auto file = Nameless(spill_directory_);
    if (!file.ok()) return file.error();
    fd = std::move(file.value());
    UniqueFd ours(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
    if (!ours.valid()) return Errno::Last("dup " + name);
    const std::string path =
        "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(ours.get());
    if (::symlinkat(path.c_str(), root_.get(), name.c_str()) < 0)
      return Errno::Last("create " + name);
    spilled_.push_back(std::move(ours));
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) < 0) return Errno::Last("truncate " + name);
  return fd;
}

std::optional<Errno> ImageDirectory::Write(int fd, std::span<const std::byte> data,
                                           uint64_t offset) {
  const auto slice = [&](size_t at) {
    return data.subspan(at, std::min(kSlice, data.size() - at));
  };
  for (size_t at = 0; at < data.size();) {
    size_t end = at;
    while (end < data.size() && !IsZero(slice(end))) end += slice(end).size();
    for (size_t done = at; done < end;) {
      const ssize_t n =
          ::pwrite(fd, data.data() + done, end - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Errno::Last("write an unpacked image");
      done += static_cast<size_t>(n);
    }
    at = end < data.size() ? end + slice(end).size() : end;
  }
  return std::nullopt;
}

std::optional<Errno> ImageDirectory::Clear() {
  const std::lock_guard lock(mutex_);
  const int fd = ::openat(root_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fd < 0 ? nullptr : ::fdopendir(fd), ::closedir);
  if (!entries) return Errno::Last("open tmpfs");
  while (const dirent* entry = ::readdir(entries.get())) {
    if (entry->d_type == DT_DIR) continue;
    if (::unlinkat(root_.get(), entry->d_name, 0) < 0)
      return Errno::Last(std::string("remove ") + entry->d_name);
  }
  spilled_.clear();
  memory_left_ = memory_bytes_;
  return std::nullopt;
}

void ImageDirectory::Close() {
  const std::lock_guard lock(mutex_);
  mount_.Reset();
  root_.Reset();
  spilled_.clear();
}

}  // namespace cedana
