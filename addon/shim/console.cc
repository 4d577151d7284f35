#include "shim/console.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace cedana::shim {

Console::~Console() {
  if (bound_) unlink(path_.c_str());
}

Result<Unit> Console::Listen() {
  if (options_.console_socket == nullptr) return Unit{};
  path_ = options_.console_socket;
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path_.size() >= sizeof name.sun_path) {
    const size_t slash = path_.rfind('/');
    directory_.Reset(open(path_.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory_.valid()) return Errno::Last("console socket " + path_);
    path_ = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(directory_.get()) +
            path_.substr(slash);
  }
  if (path_.size() >= sizeof name.sun_path)
    return Errno{std::string("console socket ") + options_.console_socket, ENAMETOOLONG};
  memcpy(name.sun_path, path_.data(), path_.size());
  listener_.Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener_.valid()) return Errno::Last("socket");
  unlink(name.sun_path);
  const mode_t mask = umask(0177);
  bound_ = bind(listener_.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0;
  const Errno error = Errno::Last("console socket " + path_);
  umask(mask);
  if (!bound_) return error;
  if (listen(listener_.get(), 1) < 0) return Errno::Last("listen");
  return Unit{};
}

void Console::Receive() {
  if (listener_.valid()) {
    connection_.Reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection_.valid()) listener_.Reset();
    return;
  }
  char text[256];  // the name of the terminal, where it was made
  iovec part = {text, sizeof text};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];  // what is more the kernel closes
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(connection_.get(), &message, MSG_CMSG_CLOEXEC) < 0 && errno == EAGAIN) return;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof(int))) {
    int fd = -1;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    [[maybe_unused]] const bool taken = streams_->TakeTerminal(UniqueFd(fd), options_);
  }
  connection_.Reset();
}

}  // namespace cedana::shim
