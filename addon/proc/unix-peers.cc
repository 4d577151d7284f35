#include "proc/unix-peers.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstring>
#include <string>

#include "proc/procfs.h"

namespace cedana {

UnixPeers::UnixPeers()
    : netlink_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)) {}

std::optional<uint64_t> UnixPeers::Of(uint64_t inode) {
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } message{};
  message.header.nlmsg_len = sizeof message;
  message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  message.header.nlmsg_flags = NLM_F_REQUEST;
  message.request.sdiag_family = AF_UNIX;
  message.request.udiag_ino = static_cast<uint32_t>(inode);
  message.request.udiag_show = UDIAG_SHOW_PEER;
  message.request.udiag_cookie[0] = message.request.udiag_cookie[1] = ~0U;  // none
  if (::send(netlink_.get(), &message, sizeof message, 0) < 0) return std::nullopt;
  alignas(nlmsghdr) char answer[4096];
  const ssize_t size = ::recv(netlink_.get(), answer, sizeof answer, 0);
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer);
  if (size < 0 || !NLMSG_OK(header, static_cast<unsigned>(size)) ||
      header->nlmsg_type != SOCK_DIAG_BY_FAMILY) {
    return std::nullopt;
  }
  const auto* found = static_cast<const unix_diag_msg*>(NLMSG_DATA(header));
  auto left = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof *found));
  for (const auto* attribute = reinterpret_cast<const rtattr*>(found + 1); RTA_OK(attribute, left);
       attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type != UNIX_DIAG_PEER) continue;
    uint32_t peer = 0;
    std::memcpy(&peer, RTA_DATA(attribute), sizeof peer);
    return peer;
  }
  return std::nullopt;
}

pid_t HolderOf(uint64_t socket_inode) {
  const std::string wanted = "socket:[" + std::to_string(socket_inode) + "]";
  for (const std::string& name : ListProcDir(AT_FDCWD, "/proc")) {
    const auto pid = Number<pid_t>(name);
    if (pid == 0) continue;
    const std::string files = "/proc/" + name + "/fd";
    for (const std::string& fd : ListProcDir(AT_FDCWD, files)) {
      if (ReadProcLink(AT_FDCWD, files + "/" + fd) == wanted) return pid;
    }
  }
  return 0;
}

}  // namespace cedana
