#include <napi.h>

#include "base/main-thread.h"
#include "criu/session.h"
#include "cuda/checkpoint.h"
#include "proc/connector.h"
#include "proc/credentials.h"
#include "proc/notify.h"
#include "proc/pidfd.h"
#include "proc/scan.h"
#include "proc/spawn.h"
#include "stream/checksum.h"
#include "stream/pack.h"
#include "stream/pages.h"
#include "stream/unpack.h"

namespace {

// In the order of native.d.ts.
Napi::Object Init(Napi::Env env, Napi::Object exports) {
  cedana::MainThread::Install(env);
  cedana::InitPidfd(env, exports);
  cedana::InitSpawn(env, exports);
  cedana::InitScan(env, exports);
  cedana::InitConnector(env, exports);
  cedana::InitCredentials(env, exports);
  cedana::InitNotify(env, exports);
  cedana::InitSession(env, exports);
  cedana::InitPages(env, exports);
  cedana::InitChecksum(env, exports);
  cedana::InitPack(env, exports);
  cedana::InitUnpack(env, exports);
  cedana::InitCuda(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(cedana, Init)
