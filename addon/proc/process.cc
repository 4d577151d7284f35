#include "proc/process.h"

#include <fcntl.h>
#include <linux/stat.h>
#include <sys/stat.h>

#include <algorithm>

namespace cedana {

namespace {

std::string LinkOrEmpty(int dir, const char* name) { return ReadProcLink(dir, name).value_or(""); }

// "net:[4026531840]" → "4026531840"; "0" for a zombie, which has left its namespaces.
std::string NamespaceInode(int dir, const char* name) {
  const std::string link = LinkOrEmpty(dir, (std::string("ns/") + name).c_str());
  const size_t open = link.find('[');
  return open == std::string::npos ? "0" : link.substr(open + 1, link.size() - open - 2);
}

// The kernel's new_encode_dev, which is also the low half of st_dev in user space, as CRIU prints
// it.
uint32_t EncodeDevice(uint32_t major, uint32_t minor) {
  return (minor & 0xff) | (major << 8) | ((minor & ~0xffU) << 12);
}

const char* TypeOf(unsigned mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "regular";
    case S_IFDIR:
      return "directory";
    case S_IFCHR:
      return "character";
    case S_IFBLK:
      return "block";
    case S_IFIFO:
      return "fifo";
    case S_IFSOCK:
      return "socket";
    case S_IFLNK:
      return "symlink";
    default:
      return "anonymous";
  }
}

// Terminals by major number: tty and ttyS, tty/console/ptmx, and the slaves of pseudo terminals.
bool IsTty(unsigned mode, uint32_t major) {
  return S_ISCHR(mode) && (major == 4 || major == 5 || (major >= 136 && major <= 143));
}

std::optional<OpenFile> ReadOpenFile(int dir, const std::string& number) {
  const auto path = ReadProcLink(dir, "fd/" + number);
  const auto info = ReadProcFile(dir, "fdinfo/" + number);
  if (!path || !info) return std::nullopt;
  OpenFile file;
  file.fd = Number<int>(number);
  file.path = *path;
  file.flags = Number<uint32_t>(FieldOf(*info, "flags:"), 8);
  file.position = Number<int64_t>(FieldOf(*info, "pos:"));
  file.mount_id = Number<int>(FieldOf(*info, "mnt_id:"));
  // CRIU must be told of locks. /proc/locks has them too, but reading it stops all locking of the
  // machine for as long as a grace period of RCU takes.
  file.is_locked = info->find("\nlock:") != std::string::npos;
  file.is_semaphore = info->find("\neventfd-semaphore: 1") != std::string::npos;
  // Looks through the link at the open file itself, opens nothing, and asks no file server.
  struct statx st {};
  constexpr int kFlags = AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;
  if (::statx(dir, ("fd/" + number).c_str(), kFlags, STATX_TYPE | STATX_NLINK | STATX_INO, &st) !=
      0) {
    return std::nullopt;
  }
  file.type = TypeOf(st.stx_mode);
  file.inode = st.stx_ino;
  file.device = EncodeDevice(st.stx_dev_major, st.stx_dev_minor);
  file.device_id = EncodeDevice(st.stx_rdev_major, st.stx_rdev_minor);
  file.is_tty = IsTty(st.stx_mode, st.stx_rdev_major);
  file.is_deleted =
      file.path.starts_with('/') && (st.stx_nlink == 0 || file.path.ends_with(" (deleted)"));
  return file;
}

std::vector<OpenFile> ReadOpenFiles(int dir) {
  std::vector<OpenFile> files;
  for (const auto& number : ListProcDir(dir, "fd")) {
    // Closed meanwhile: left out.
    if (auto file = ReadOpenFile(dir, number)) files.push_back(std::move(*file));
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.fd < b.fd; });
  return files;
}

// Kibibytes of a line of `status`, in bytes. The kernel keeps these counters: smaps_rollup, which
// knows more, walks all of the page tables.
uint64_t StatusBytes(const std::string& status, const char* key) {
  return Number<uint64_t>(FieldOf(status, key)) * 1024;
}

uint64_t ResidentBytes(int dir) {
  const auto statm = Numbers<uint64_t>(ReadProcFile(dir, "statm").value_or(""));
  return statm.size() < 2 ? 0 : statm[1] * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

UniqueFd OpenProcess(pid_t pid) {
  return UniqueFd(
      ::open(("/proc/" + std::to_string(pid)).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

std::optional<ProcessFacts> ReadProcess(int dir) {
  ProcessFacts facts;
  const std::string status = ReadProcFile(dir, "status").value_or("");
  facts.uids = Numbers<uint32_t>(FieldOf(status, "Uid:"));
  facts.gids = Numbers<uint32_t>(FieldOf(status, "Gid:"));
  facts.groups = Numbers<uint32_t>(FieldOf(status, "Groups:"));
  const auto pids = Numbers<pid_t>(FieldOf(status, "NSpid:"));
  facts.inner_pid = pids.empty() ? 0 : pids.back();
  facts.seccomp = Number<int>(FieldOf(status, "Seccomp:"));
  facts.tracer = Number<pid_t>(FieldOf(status, "TracerPid:"));
  facts.args = SplitArguments(ReadProcFile(dir, "cmdline").value_or(""));
  facts.executable = LinkOrEmpty(dir, "exe");
  facts.working_directory = LinkOrEmpty(dir, "cwd");
  facts.root_directory = LinkOrEmpty(dir, "root");
  for (const auto& thread : ListProcDir(dir, "task"))
    facts.threads.push_back(Number<pid_t>(thread));
  facts.resident_bytes = ResidentBytes(dir);
  facts.dump_bytes = StatusBytes(status, "RssAnon:") + StatusBytes(status, "VmSwap:");
  facts.shared_bytes = StatusBytes(status, "RssShmem:");
  for (size_t i = 0; i < kNamespaceNames.size(); i++)
    facts.namespaces[i] = NamespaceInode(dir, kNamespaceNames[i]);
  const std::string cgroups = ReadProcFile(dir, "cgroup").value_or("");
  for (const auto line : SplitLines(cgroups)) facts.cgroups.emplace_back(line);
  facts.files = ReadOpenFiles(dir);
  // Last, so that what ended meanwhile is left out or shown as the zombie that it is.
  auto stat = ParseStat(ReadProcFile(dir, "stat"));
  if (!stat) return std::nullopt;
  facts.stat = std::move(*stat);
  return facts;
}

std::vector<pid_t> ReadChildren(int dir, const std::vector<pid_t>& threads) {
  std::vector<pid_t> children;
  for (const pid_t thread : threads) {
    const auto text = ReadProcFile(dir, "task/" + std::to_string(thread) + "/children");
    for (const pid_t child : Numbers<pid_t>(text.value_or(""))) children.push_back(child);
  }
  return children;
}

}  // namespace cedana
