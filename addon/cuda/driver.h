#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace cedana {

// What the driver answers with: 0 is success (CUresult).
using CudaResult = int;

struct CudaUuid {
  std::array<unsigned char, 16> bytes;
};
// 32 hexadecimal digits.
std::string Hex(const CudaUuid& uuid);

struct CudaPair {
  CudaUuid from;
  CudaUuid to;
};
static_assert(sizeof(CudaPair) == 32);  // CUcheckpointGpuPair

struct CudaDevice {
  CudaUuid uuid;
  std::string name;
  uint64_t total_bytes = 0;
  // That of its device file; none without NVML.
  std::optional<unsigned> minor;
};

struct CudaFacts {
  int cuda_version = 0;
  std::string driver;  // empty without NVML
  bool has_checkpoint = false;
  std::vector<CudaDevice> devices;
};

struct CudaProcess {
  CudaResult result = 0;
  int restore_thread = 0;
  int state = 0;
};

struct CudaUse {
  int pid = 0;
  // None: it is not told.
  std::optional<uint64_t> bytes = 0;
  bool uses_mps = false;
};

// The NVIDIA driver's libraries, loaded at run time and until the process ends: neither likes to be
// unloaded. Calls may come from any thread and wait for as long as the driver does.
class CudaDriver {
 public:
  // libcuda must be there; NVML, which alone knows who uses how much memory, need not be.
  static Result<CudaDriver> Load(const std::string& library, const std::string& management);

  [[nodiscard]] CudaResult Initialise() const;
  [[nodiscard]] CudaFacts Facts() const;
  [[nodiscard]] CudaProcess Look(int pid) const;
  [[nodiscard]] CudaResult Lock(int pid, uint32_t timeout_ms) const;
  [[nodiscard]] CudaResult Checkpoint(int pid) const;
  [[nodiscard]] CudaResult Restore(int pid, const std::vector<CudaPair>& pairs) const;
  [[nodiscard]] CudaResult Unlock(int pid) const;
  // None when nobody knows.
  [[nodiscard]] std::optional<std::vector<CudaUse>> Uses() const;

 private:
  using Arguments = std::array<unsigned char, 64>;
  using Checkpointing = CudaResult (*)(int pid, void* arguments);
  [[nodiscard]] std::map<std::string, unsigned> Minors() const;

  using Listing = int (*)(void* device, unsigned* count, void* processes);

  CudaResult (*init_)(unsigned) = nullptr;
  CudaResult (*version_)(int*) = nullptr;
  CudaResult (*count_)(int*) = nullptr;
  CudaResult (*device_)(int*, int) = nullptr;
  CudaResult (*name_)(char*, int, int) = nullptr;
  CudaResult (*uuid_)(CudaUuid*, int) = nullptr;
  CudaResult (*total_)(size_t*, int) = nullptr;
  // Null before driver 570.
  CudaResult (*restore_thread_)(int, int*) = nullptr;
  CudaResult (*state_)(int, int*) = nullptr;
  Checkpointing lock_ = nullptr;
  Checkpointing checkpoint_ = nullptr;
  Checkpointing restore_ = nullptr;
  Checkpointing unlock_ = nullptr;
  // Null without NVML.
  int (*nvml_init_)() = nullptr;
  int (*nvml_version_)(char*, unsigned) = nullptr;
  int (*nvml_count_)(unsigned*) = nullptr;
  int (*nvml_device_)(unsigned, void**) = nullptr;
  int (*nvml_uuid_)(void*, char*, unsigned) = nullptr;
  int (*nvml_minor_)(void*, unsigned*) = nullptr;
  Listing nvml_processes_ = nullptr;
  Listing nvml_mps_clients_ = nullptr;
};

}  // namespace cedana
