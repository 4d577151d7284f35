#include "cuda/driver.h"

#include <dlfcn.h>

#include <cerrno>
#include <cstring>
#include <map>

namespace cedana {

namespace {

constexpr CudaResult kNotSupported = 801;
constexpr int kNvmlInsufficientSize = 7;

// nvmlProcessInfo_t of nvmlDeviceGetComputeRunningProcesses_v3.
struct NvmlProcess {
  unsigned pid;
  unsigned long long bytes;
  unsigned gpu_instance;
  unsigned compute_instance;
};

template <typename Function>
void Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
}

}  // namespace

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
  Find(nvml, "nvmlDeviceGetComputeRunningProcesses_v3", driver.nvml_processes_);
  if (driver.nvml_init_ == nullptr || driver.nvml_init_() != 0) driver.nvml_count_ = nullptr;
  return driver;
}

CudaResult CudaDriver::Initialise() const { return init_(0); }

CudaFacts CudaDriver::Facts() const {
  CudaFacts facts;
  version_(&facts.cuda_version);
  facts.has_checkpoint = restore_thread_ != nullptr && state_ != nullptr && lock_ != nullptr &&
                         checkpoint_ != nullptr && restore_ != nullptr && unlock_ != nullptr;
  if (nvml_count_ != nullptr && nvml_version_ != nullptr) {
    std::array<char, 80> text{};
    if (nvml_version_(text.data(), text.size()) == 0) facts.driver = text.data();
  }
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

bool CudaDriver::Memory(std::vector<CudaMemory>& out) const {
  unsigned devices = 0;
  if (nvml_count_ == nullptr || nvml_device_ == nullptr || nvml_processes_ == nullptr) return false;
  if (nvml_count_(&devices) != 0) return false;
  std::map<int, uint64_t> sums;
  for (unsigned index = 0; index < devices; index++) {
    void* device = nullptr;
    if (nvml_device_(index, &device) != 0) return false;
    std::vector<NvmlProcess> processes(64);
    auto count = static_cast<unsigned>(processes.size());
    int result = nvml_processes_(device, &count, processes.data());
    if (result == kNvmlInsufficientSize) {
      processes.resize(count + 64);
      count = static_cast<unsigned>(processes.size());
      result = nvml_processes_(device, &count, processes.data());
    }
    if (result != 0) return false;
    for (unsigned i = 0; i < count; i++)
      sums[static_cast<int>(processes[i].pid)] += processes[i].bytes;
  }
  for (const auto& [pid, bytes] : sums) out.push_back({pid, bytes});
  return true;
}

}  // namespace cedana
