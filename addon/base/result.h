#pragma once

#include <cerrno>
#include <string>
#include <utility>
#include <variant>

namespace cedana {

// What failed: the call (with the name of its object where that helps) and errno.
struct Errno {
  std::string op;
  int code = 0;

  static Errno Last(std::string op) {
    const int code = errno;  // before anything may change it
    return Errno{std::move(op), code};
  }
};

// The value of work that returns none.
struct Unit {};

template <typename T>
class [[nodiscard]] Result {
 public:
  using Value = T;

  // NOLINTBEGIN(google-explicit-constructor): `return value;` and `return error;` are the point
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Errno error) : state_(std::in_place_index<1>, std::move(error)) {}
  // NOLINTEND(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  [[nodiscard]] T& value() { return *std::get_if<0>(&state_); }
  [[nodiscard]] const T& value() const { return *std::get_if<0>(&state_); }
  [[nodiscard]] const Errno& error() const { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Errno> state_;
};

}  // namespace cedana
