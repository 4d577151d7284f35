#include "cuda/checkpoint.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/async.h"
#include "base/handle.h"
#include "base/values.h"
#include "cuda/driver.h"

namespace cedana {

namespace {

CudaUuid UuidOf(const std::string& hex) {
  CudaUuid uuid{};
  for (size_t i = 0; i < uuid.bytes.size(); i++)
    uuid.bytes[i] = static_cast<unsigned char>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  return uuid;
}

Napi::Value NumberToJs(Napi::Env env, int& value) { return Napi::Number::New(env, value); }

Napi::Value Bytes(Napi::Env env, uint64_t bytes) {
  return Napi::Number::New(env, static_cast<double>(bytes));
}

struct Opened {
  std::shared_ptr<CudaDriver> driver;
  CudaResult result;
};

Napi::Value CudaOpen(const Napi::CallbackInfo& info) {
  const auto work = [library = Text(info[0]), management = Text(info[1])]() -> Result<Opened> {
    auto loaded = CudaDriver::Load(library, management);
    if (!loaded.ok()) return loaded.error();
    auto driver = std::make_shared<CudaDriver>(loaded.value());
    const CudaResult result = driver->Initialise();
    return Opened{std::move(driver), result};
  };
  return RunAsync(info.Env(), Where::kThread, work, [](Napi::Env env, Opened& opened) {
    auto out = Napi::Object::New(env);
    out.Set("cuda", MakeHandle(env, std::move(opened.driver)));
    out.Set("result", Napi::Number::New(env, opened.result));
    return out;
  });
}

Napi::Value CudaFactsJs(const Napi::CallbackInfo& info) {
  const auto work = [driver = HandleOf<CudaDriver>(info[0])]() -> Result<CudaFacts> {
    return driver->Facts();
  };
  return RunAsync(info.Env(), Where::kThread, work, [](Napi::Env env, CudaFacts& facts) {
    auto out = Napi::Object::New(env);
    out.Set("cudaVersion", Napi::Number::New(env, facts.cuda_version));
    out.Set("driver", Napi::String::New(env, facts.driver));
    out.Set("hasCheckpoint", Napi::Boolean::New(env, facts.has_checkpoint));
    out.Set("devices", ArrayOf(env, facts.devices, [env](const CudaDevice& device) {
              auto one = Napi::Object::New(env);
              one.Set("uuid", Napi::String::New(env, Hex(device.uuid)));
              one.Set("name", Napi::String::New(env, device.name));
              one.Set("totalBytes", Bytes(env, device.total_bytes));
              one.Set("minor", device.minor ? Napi::Number::New(env, *device.minor) : env.Null());
              return one;
            }));
    return out;
  });
}

Napi::Value CudaProcessJs(const Napi::CallbackInfo& info) {
  const auto work = [driver = HandleOf<CudaDriver>(info[0]),
                     pid = Int(info[1])]() -> Result<CudaProcess> { return driver->Look(pid); };
  return RunAsync(info.Env(), Where::kThread, work, [](Napi::Env env, CudaProcess& process) {
    auto out = Napi::Object::New(env);
    out.Set("result", Napi::Number::New(env, process.result));
    out.Set("restoreThread", Napi::Number::New(env, process.restore_thread));
    out.Set("state", Napi::Number::New(env, process.state));
    return out;
  });
}

Napi::Value CudaLock(const Napi::CallbackInfo& info) {
  const auto work = [driver = HandleOf<CudaDriver>(info[0]), pid = Int(info[1]),
                     timeout_ms = Uint(info[2])]() -> Result<CudaResult> {
    return driver->Lock(pid, timeout_ms);
  };
  return RunAsync(info.Env(), Where::kThread, work, NumberToJs);
}

Napi::Value CudaCheckpoint(const Napi::CallbackInfo& info) {
  const auto work = [driver = HandleOf<CudaDriver>(info[0]),
                     pid = Int(info[1])]() -> Result<CudaResult> {
    return driver->Checkpoint(pid);
  };
  return RunAsync(info.Env(), Where::kThread, work, NumberToJs);
}

Napi::Value CudaRestore(const Napi::CallbackInfo& info) {
  auto pairs = List<CudaPair>(info[2], [](const Napi::Value& value) {
    const auto pair = value.As<Napi::Object>();
    return CudaPair{UuidOf(Text(pair.Get("from"))), UuidOf(Text(pair.Get("to")))};
  });
  const auto work = [driver = HandleOf<CudaDriver>(info[0]), pid = Int(info[1]),
                     pairs = std::move(pairs)]() -> Result<CudaResult> {
    return driver->Restore(pid, pairs);
  };
  return RunAsync(info.Env(), Where::kThread, work, NumberToJs);
}

Napi::Value CudaUnlock(const Napi::CallbackInfo& info) {
  const auto work = [driver = HandleOf<CudaDriver>(info[0]),
                     pid = Int(info[1])]() -> Result<CudaResult> { return driver->Unlock(pid); };
  return RunAsync(info.Env(), Where::kThread, work, NumberToJs);
}

Napi::Value CudaUsesJs(const Napi::CallbackInfo& info) {
  using Known = std::optional<std::vector<CudaUse>>;
  const auto work = [driver = HandleOf<CudaDriver>(info[0])]() -> Result<Known> {
    return driver->Uses();
  };
  return RunAsync(info.Env(), Where::kThread, work, [](Napi::Env env, Known& known) -> Napi::Value {
    if (!known) return env.Null();
    return ArrayOf(env, *known, [env](const CudaUse& use) {
      auto one = Napi::Object::New(env);
      one.Set("pid", Napi::Number::New(env, use.pid));
      one.Set("bytes", use.bytes ? Bytes(env, *use.bytes) : env.Null());
      one.Set("usesMps", Napi::Boolean::New(env, use.uses_mps));
      return one;
    });
  });
}

}  // namespace

void InitCuda(Napi::Env env, Napi::Object exports) {
  exports.Set("cudaOpen", Napi::Function::New(env, CudaOpen));
  exports.Set("cudaFacts", Napi::Function::New(env, CudaFactsJs));
  exports.Set("cudaProcess", Napi::Function::New(env, CudaProcessJs));
  exports.Set("cudaLock", Napi::Function::New(env, CudaLock));
  exports.Set("cudaCheckpoint", Napi::Function::New(env, CudaCheckpoint));
  exports.Set("cudaRestore", Napi::Function::New(env, CudaRestore));
  exports.Set("cudaUnlock", Napi::Function::New(env, CudaUnlock));
  exports.Set("cudaUses", Napi::Function::New(env, CudaUsesJs));
}

}  // namespace cedana
