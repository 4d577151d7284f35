#include "cuda/driver.h"

#include <dlfcn.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <map>

namespace cedana {

namespace {

constexpr CudaResult kNotSupported = 801;
constexpr int kNvmlInsufficientSize = 7;

// nvmlProcessInfo_t, as the third version of the calls has it.
struct NvmlProcess {
  unsigned pid;
  unsigned long long bytes;
  unsigned gpu_instance;
  unsigned compute_instance;
};
static_assert(sizeof(NvmlProcess) == 24 && offsetof(NvmlProcess, bytes) == 8);
constexpr auto kNvmlNotAvailable = ~0ULL;

template <typename Function>
void Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
}

using Listing = int (*)(void* device, unsigned* count, void* processes);

bool List(Listing list, void* device, std::vector<NvmlProcess>& out) {
  out.resize(64);
  auto count = static_cast<unsigned>(out.size());
  int result = list(device, &count, out.data());
  if (result == kNvmlInsufficientSize) {
    out.resize(count + 64);
    count = static_cast<unsigned>(out.size());
    result = list(device, &count, out.data());
  }
  out.resize(result == 0 ? count : 0);
  return result == 0;
}

}  // namespace

std::string Hex(const CudaUuid& uuid) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : uuid.bytes) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  return text;
}

Result<CudaDriver> CudaDriver::Load(const std::string& library, const std::string& management) {
  void* cuda = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (cuda == nullptr) {
    const char* why = ::dlerror();
    return Errno{"dlopen " + (why != nullptr ? std::string(why) : library), ENOENT};
  }
  CudaDriver driver;
  Find(cuda, "cuInit", driver.init_);
  Find(cuda, "cuDriverGetVersion", driver.version_);
  Find(cuda, "cuDeviceGetCount", driver.count_);
  Find(cuda, "cuDeviceGet", driver.device_);
  Find(cuda, "cuDeviceGetName", driver.name_);
  Find(cuda, "cuDeviceGetUuid_v2", driver.uuid_);
  Find(cuda, "cuDeviceTotalMem_v2", driver.total_);
  if (driver.init_ == nullptr || driver.version_ == nullptr || driver.count_ == nullptr ||
      driver.device_ == nullptr || driver.name_ == nullptr || driver.uuid_ == nullptr ||
      driver.total_ == nullptr) {
    return Errno{"dlsym " + library + ": not a CUDA driver", ENOEXEC};
  }
  Find(cuda, "cuCheckpointProcessGetRestoreThreadId", driver.restore_thread_);
  Find(cuda, "cuCheckpointProcessGetState", driver.state_);
  Find(cuda, "cuCheckpointProcessLock", driver.lock_);
  Find(cuda, "cuCheckpointProcessCheckpoint", driver.checkpoint_);
  Find(cuda, "cuCheckpointProcessRestore", driver.restore_);
  Find(cuda, "cuCheckpointProcessUnlock", driver.unlock_);
  void* nvml = ::dlopen(management.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (nvml == nullptr) return driver;
  Find(nvml, "nvmlInit_v2", driver.nvml_init_);
  Find(nvml, "nvmlSystemGetDriverVersion", driver.nvml_version_);
  Find(nvml, "nvmlDeviceGetCount_v2", driver.nvml_count_);
  Find(nvml, "nvmlDeviceGetHandleByIndex_v2", driver.nvml_device_);
  Find(nvml, "nvmlDeviceGetUUID", driver.nvml_uuid_);
  Find(nvml, "nvmlDeviceGetMinorNumber", driver.nvml_minor_);
  Find(nvml, "nvmlDeviceGetComputeRunningProcesses_v3", driver.nvml_processes_);
  Find(nvml, "nvmlDeviceGetMPSComputeRunningProcesses_v3", driver.nvml_mps_clients_);
  if (driver.nvml_init_ == nullptr || driver.nvml_init_() != 0) driver.nvml_count_ = nullptr;
  return driver;
}

CudaResult CudaDriver::Initialise() const { return init_(0); }

// By the ids of devices.
std::map<std::string, unsigned> CudaDriver::Minors() const {
  std::map<std::string, unsigned> minors;
  unsigned devices = 0;
  if (nvml_count_ == nullptr || nvml_device_ == nullptr || nvml_uuid_ == nullptr ||
      nvml_minor_ == nullptr || nvml_count_(&devices) != 0) {
    return minors;
  }
  for (unsigned index = 0; index < devices; index++) {
    void* device = nullptr;
    std::array<char, 96> text{};
    unsigned minor = 0;
    if (nvml_device_(index, &device) != 0 || nvml_uuid_(device, text.data(), text.size()) != 0 ||
        nvml_minor_(device, &minor) != 0) {
      continue;
    }
    // GPU-01234567-89ab-…
    std::string uuid(text.data());
    uuid.erase(0, uuid.find('-') + 1);
    std::erase(uuid, '-');
    minors[uuid] = minor;
  }
  return minors;
}

CudaFacts CudaDriver::Facts() const {
  CudaFacts facts;
  version_(&facts.cuda_version);
  facts.has_checkpoint = restore_thread_ != nullptr && state_ != nullptr && lock_ != nullptr &&
                         checkpoint_ != nullptr && restore_ != nullptr && unlock_ != nullptr;
  if (nvml_count_ != nullptr && nvml_version_ != nullptr) {
    std::array<char, 80> text{};
    if (nvml_version_(text.data(), text.size()) == 0) facts.driver = text.data();
  }
  const auto minors = Minors();
  int count = 0;
  if (count_(&count) != 0) return facts;
  for (int ordinal = 0; ordinal < count; ordinal++) {
    int device = 0;
    CudaDevice& found = facts.devices.emplace_back();
    std::array<char, 256> name{};
    size_t bytes = 0;
    if (device_(&device, ordinal) != 0 || uuid_(&found.uuid, device) != 0) continue;
    if (name_(name.data(), static_cast<int>(name.size()), device) == 0) found.name = name.data();
    if (total_(&bytes, device) == 0) found.total_bytes = bytes;
    if (const auto at = minors.find(Hex(found.uuid)); at != minors.end()) found.minor = at->second;
  }
  return facts;
}

CudaProcess CudaDriver::Look(int pid) const {
  CudaProcess process;
  if (restore_thread_ == nullptr || state_ == nullptr) return {kNotSupported, 0, 0};
  process.result = restore_thread_(pid, &process.restore_thread);
  if (process.result == 0) process.result = state_(pid, &process.state);
  return process;
}

// Every argument structure is 64 bytes, zero but for what is said here, in all versions of the
// driver (CUcheckpointLockArgs and its kin).

CudaResult CudaDriver::Lock(int pid, uint32_t timeout_ms) const {
  if (lock_ == nullptr) return kNotSupported;
  Arguments arguments{};
  std::memcpy(arguments.data(), &timeout_ms, sizeof timeout_ms);
  return lock_(pid, arguments.data());
}

CudaResult CudaDriver::Checkpoint(int pid) const {
  if (checkpoint_ == nullptr) return kNotSupported;
  Arguments arguments{};
  return checkpoint_(pid, arguments.data());
}

CudaResult CudaDriver::Restore(int pid, const std::vector<CudaPair>& pairs) const {
  if (restore_ == nullptr) return kNotSupported;
  Arguments arguments{};
  if (!pairs.empty()) {
    const CudaPair* first = pairs.data();
    const auto count = static_cast<uint32_t>(pairs.size());
    std::memcpy(arguments.data(), &first, sizeof first);
    std::memcpy(arguments.data() + sizeof first, &count, sizeof count);
  }
  return restore_(pid, arguments.data());
}

CudaResult CudaDriver::Unlock(int pid) const {
  if (unlock_ == nullptr) return kNotSupported;
  Arguments arguments{};
  return unlock_(pid, arguments.data());
}

std::optional<std::vector<CudaUse>> CudaDriver::Uses() const {
  unsigned devices = 0;
  if (nvml_count_ == nullptr || nvml_device_ == nullptr || nvml_processes_ == nullptr ||
      nvml_count_(&devices) != 0) {
    return std::nullopt;
  }
  std::map<int, CudaUse> uses;
  for (unsigned index = 0; index < devices; index++) {
    void* device = nullptr;
    std::vector<NvmlProcess> clients;
    std::vector<NvmlProcess> others;
    if (nvml_device_(index, &device) != 0 || !List(nvml_processes_, device, others))
      return std::nullopt;
    // A device without MPS does not know the call.
    if (nvml_mps_clients_ != nullptr) List(nvml_mps_clients_, device, clients);
    // A client may be in both.
    std::map<unsigned, unsigned long long> here;
    for (const NvmlProcess& process : clients) {
      uses[static_cast<int>(process.pid)].uses_mps = true;
      here[process.pid] = process.bytes;
    }
    for (const NvmlProcess& process : others) here[process.pid] = process.bytes;
    for (const auto& [pid, bytes] : here) {
      auto& sum = uses[static_cast<int>(pid)].bytes;
      if (bytes == kNvmlNotAvailable) sum.reset();
      if (sum) *sum += bytes;
    }
  }
  std::vector<CudaUse> out;
  for (auto& [pid, use] : uses) {
    use.pid = pid;
    out.push_back(use);
  }
  return out;
}

}  // namespace cedana
