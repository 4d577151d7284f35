#include "base/error.h"

#include <cstring>

namespace cedana {

Napi::Error ToJsError(Napi::Env env, const Errno& error) {
  const char* name = strerrorname_np(error.code);
  const char* text = strerrordesc_np(error.code);
  const std::string code = name != nullptr ? name : "E" + std::to_string(error.code);
  Napi::Error js = Napi::Error::New(env, error.op + ": " + (text != nullptr ? text : code));
  js.Set("op", Napi::String::New(env, error.op));
  js.Set("errno", Napi::Number::New(env, error.code));
  js.Set("code", Napi::String::New(env, code));
  return js;
}

Napi::Value Throw(Napi::Env env, const Errno& error) {
  ToJsError(env, error).ThrowAsJavaScriptException();
  return env.Undefined();
}

}  // namespace cedana
