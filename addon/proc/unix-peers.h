#pragma once

#include <cstdint>
#include <optional>

#include "base/fd.h"

namespace cedana {

// Inode of the other end of a unix socket in our network namespace.
class UnixPeers {
 public:
  UnixPeers();
  [[nodiscard]] std::optional<uint64_t> Of(uint64_t inode);

 private:
  UniqueFd netlink_;
};

// A process that holds the socket of this inode open; 0 when there is none.
pid_t HolderOf(uint64_t socket_inode);

}  // namespace cedana
