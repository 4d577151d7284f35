#include "criu/options.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "base/values.h"

namespace cedana {

namespace {

// Memory of messages comes from malloc, since protobuf-c frees it with free.

Errno Invalid(const std::string& path, const std::string& why) {
  return Errno{path + ": " + why, EINVAL};
}

template <typename T>
T* At(ProtobufCMessage* message, unsigned offset) {
  return reinterpret_cast<T*>(reinterpret_cast<char*>(message) + offset);
}

std::span<const ProtobufCFieldDescriptor> FieldsOf(const ProtobufCMessageDescriptor& type) {
  return {type.fields, type.n_fields};
}
const auto& MessageType(const ProtobufCFieldDescriptor& field) {
  return *static_cast<const ProtobufCMessageDescriptor*>(field.descriptor);
}
const auto& EnumType(const ProtobufCFieldDescriptor& field) {
  return *static_cast<const ProtobufCEnumDescriptor*>(field.descriptor);
}

const char* TypeName(ProtobufCType type) {
  switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
      return "int32";
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
      return "int64";
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
      return "uint32";
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
      return "uint64";
    case PROTOBUF_C_TYPE_FLOAT:
      return "float";
    case PROTOBUF_C_TYPE_DOUBLE:
      return "double";
    case PROTOBUF_C_TYPE_BOOL:
      return "bool";
    case PROTOBUF_C_TYPE_ENUM:
      return "enum";
    case PROTOBUF_C_TYPE_STRING:
      return "string";
    case PROTOBUF_C_TYPE_BYTES:
      return "bytes";
    case PROTOBUF_C_TYPE_MESSAGE:
      return "message";
  }
  return "unknown";
}

size_t SizeOf(ProtobufCType type) {
  switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
      return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
      return sizeof(void*);
    case PROTOBUF_C_TYPE_BYTES:
      return sizeof(ProtobufCBinaryData);
    default:
      return sizeof(uint32_t);  // protobuf_c_boolean is an int too
  }
}

// Any integer of 64 bits, from a number or from decimal text.
std::optional<__int128> Integer(const Napi::Value& value) {
  if (value.IsNumber()) {
    const double number = value.As<Napi::Number>().DoubleValue();
    constexpr double kExact = 9007199254740992.0;  // 2^53
    if (std::trunc(number) != number || std::fabs(number) > kExact) return std::nullopt;
    return static_cast<__int128>(number);
  }
  if (!value.IsString()) return std::nullopt;
  const std::string text = Text(value);
  const bool negative = text.starts_with('-');
  __int128 sum = 0;
  const std::string digits = text.substr(negative ? 1 : 0);
  if (digits.empty() || digits.size() > 20) return std::nullopt;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return std::nullopt;
    sum = sum * 10 + (digit - '0');
  }
  return negative ? -sum : sum;
}

template <typename T>
Result<Unit> PutInteger(const Napi::Value& value, void* out, const std::string& path) {
  const auto integer = Integer(value);
  if (!integer || *integer < std::numeric_limits<T>::min() ||
      *integer > std::numeric_limits<T>::max()) {
    return Invalid(path, "not an integer of " + std::to_string(sizeof(T) * 8) + " bits");
  }
  *static_cast<T*>(out) = static_cast<T>(*integer);
  return Unit{};
}

Result<Unit> PutBool(const Napi::Value& value, void* out, const std::string& path) {
  if (!value.IsBoolean()) return Invalid(path, "not a boolean");
  *static_cast<protobuf_c_boolean*>(out) = value.As<Napi::Boolean>().Value() ? 1 : 0;
  return Unit{};
}

Result<Unit> PutEnum(const ProtobufCEnumDescriptor& type, const Napi::Value& value, void* out,
                     const std::string& path) {
  const ProtobufCEnumValue* found = nullptr;
  if (value.IsString()) {
    found = protobuf_c_enum_descriptor_get_value_by_name(&type, Text(value).c_str());
  } else if (value.IsNumber()) {
    found = protobuf_c_enum_descriptor_get_value(&type, Int(value));
  }
  if (found == nullptr) return Invalid(path, "not a " + std::string(type.short_name));
  *static_cast<int*>(out) = found->value;
  return Unit{};
}

Result<Unit> PutString(const Napi::Value& value, void* out, const std::string& path) {
  if (!value.IsString()) return Invalid(path, "not a string");
  const std::string text = Text(value);
  if (text.find('\0') != std::string::npos) return Invalid(path, "has a zero byte");
  *static_cast<char**>(out) = ::strdup(text.c_str());
  return Unit{};
}

Result<Unit> PutBytes(const Napi::Value& value, void* out, const std::string& path) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    return Invalid(path, "not a Uint8Array");
  }
  const auto bytes = value.As<Napi::Uint8Array>();
  auto* copy = static_cast<uint8_t*>(std::malloc(bytes.ByteLength() + 1));
  std::memcpy(copy, bytes.Data(), bytes.ByteLength());
  *static_cast<ProtobufCBinaryData*>(out) = {bytes.ByteLength(), copy};
  return Unit{};
}

Result<Unit> Fill(ProtobufCMessage* message, const Napi::Object& object, const std::string& path);

ProtobufCMessage* NewMessage(const ProtobufCMessageDescriptor& type) {
  auto* message = static_cast<ProtobufCMessage*>(std::malloc(type.sizeof_message));
  type.message_init(message);
  return message;
}

Result<Unit> PutMessage(const ProtobufCMessageDescriptor& type, const Napi::Value& value, void* out,
                        const std::string& path) {
  if (!value.IsObject() || value.IsArray()) return Invalid(path, "not an object");
  ProtobufCMessage* message = NewMessage(type);
  // Set first: the parent frees it, also when filling it fails.
  *static_cast<ProtobufCMessage**>(out) = message;
  return Fill(message, value.As<Napi::Object>(), path);
}

Result<Unit> PutValue(const ProtobufCFieldDescriptor& field, const Napi::Value& value, void* out,
                      const std::string& path) {
  const std::string_view type = TypeName(field.type);
  if (type == "int32") return PutInteger<int32_t>(value, out, path);
  if (type == "uint32") return PutInteger<uint32_t>(value, out, path);
  if (type == "int64") return PutInteger<int64_t>(value, out, path);
  if (type == "uint64") return PutInteger<uint64_t>(value, out, path);
  if (type == "bool") return PutBool(value, out, path);
  if (type == "enum") return PutEnum(EnumType(field), value, out, path);
  if (type == "string") return PutString(value, out, path);
  if (type == "bytes") return PutBytes(value, out, path);
  if (type == "message") return PutMessage(MessageType(field), value, out, path);
  return Invalid(path, "has a type that CRIU does not use");
}

Result<Unit> PutRepeated(ProtobufCMessage* message, const ProtobufCFieldDescriptor& field,
                         const Napi::Value& value, const std::string& path) {
  if (!value.IsArray()) return Invalid(path, "not an array");
  const auto array = value.As<Napi::Array>();
  if (array.Length() == 0) return Unit{};
  const size_t size = SizeOf(field.type);
  auto* elements = static_cast<char*>(std::calloc(array.Length(), size));
  *At<void*>(message, field.offset) = elements;
  // Zeroed elements may be freed like filled ones, so a failure half way needs no more care.
  *At<size_t>(message, field.quantifier_offset) = array.Length();
  for (uint32_t i = 0; i < array.Length(); i++) {
    auto put =
        PutValue(field, array.Get(i), elements + i * size, path + "[" + std::to_string(i) + "]");
    if (!put.ok()) return put;
  }
  return Unit{};
}

Result<Unit> PutField(ProtobufCMessage* message, const ProtobufCFieldDescriptor& field,
                      const Napi::Value& value, const std::string& path) {
  if (field.label == PROTOBUF_C_LABEL_REPEATED) return PutRepeated(message, field, value, path);
  auto put = PutValue(field, value, At<void>(message, field.offset), path);
  // Strings and messages are present by their pointer.
  if (put.ok() && field.label == PROTOBUF_C_LABEL_OPTIONAL && field.quantifier_offset != 0) {
    *At<protobuf_c_boolean>(message, field.quantifier_offset) = 1;
  }
  return put;
}

Result<Unit> Fill(ProtobufCMessage* message, const Napi::Object& object, const std::string& path) {
  const ProtobufCMessageDescriptor& type = *message->descriptor;
  std::set<std::string> given;
  const Napi::Array names = object.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); i++) {
    const std::string name = Text(names.Get(i));
    const std::string field_path = path + "." + name;
    const auto* field = protobuf_c_message_descriptor_get_field_by_name(&type, name.c_str());
    if (field == nullptr) return Invalid(field_path, "no such field");
    const Napi::Value value = object.Get(name);
    if (value.IsNull() || value.IsUndefined()) continue;
    auto put = PutField(message, *field, value, field_path);
    if (!put.ok()) return put;
    given.insert(name);
  }
  for (const auto& field : FieldsOf(type)) {
    const bool needed = field.label == PROTOBUF_C_LABEL_REQUIRED && field.default_value == nullptr;
    if (needed && !given.contains(field.name))
      return Invalid(path + "." + field.name, "is required");
  }
  return Unit{};
}

Napi::Array DescribeFields(Napi::Env env, const ProtobufCMessageDescriptor& type);

Napi::Value DescribeField(Napi::Env env, const ProtobufCFieldDescriptor& field) {
  auto out = Napi::Object::New(env);
  out.Set("name", field.name);
  out.Set("type", TypeName(field.type));
  out.Set("repeated", Napi::Boolean::New(env, field.label == PROTOBUF_C_LABEL_REPEATED));
  out.Set("fields", field.type == PROTOBUF_C_TYPE_MESSAGE ? DescribeFields(env, MessageType(field))
                                                          : env.Null());
  out.Set("values", env.Null());
  if (field.type == PROTOBUF_C_TYPE_ENUM) {
    const std::span values(EnumType(field).values, EnumType(field).n_values);
    out.Set("values", ArrayOf(env, values, [env](const auto& value) {
              return Napi::String::New(env, value.name);
            }));
  }
  return out;
}

Napi::Array DescribeFields(Napi::Env env, const ProtobufCMessageDescriptor& type) {
  return ArrayOf(env, FieldsOf(type),
                 [env](const auto& field) { return DescribeField(env, field); });
}

}  // namespace

Result<CriuOptsPtr> CriuOptsFrom(const Napi::Object& object) {
  CriuOptsPtr opts(reinterpret_cast<CriuOpts*>(NewMessage(criu_opts__descriptor)));
  const auto filled = Fill(&opts->base, object, "opts");
  if (!filled.ok()) return filled.error();
  return opts;
}

Napi::Value CriuOptionsToJs(Napi::Env env) { return DescribeFields(env, criu_opts__descriptor); }

}  // namespace cedana
