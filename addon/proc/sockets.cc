#include "proc/sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/xattr.h>

#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>

#include "proc/unix-peers.h"

namespace cedana {

namespace {

enum class Format { kNone, kInet, kUnix, kNetlink, kPacket };

// `name` is what the kernel calls the protocol of a socket (extended attribute
// system.sockprotoname). It tells which table to read, and describes sockets that no table lists
// (unbound ones).
struct Protocol {
  std::string_view name;
  const char* table;
  const char* family;
  const char* kind;
  Format format;
};
constexpr std::array kProtocols = {
    Protocol{"TCP", "tcp", "inet", "stream", Format::kInet},
    Protocol{"TCPv6", "tcp6", "inet6", "stream", Format::kInet},
    Protocol{"UDP", "udp", "inet", "datagram", Format::kInet},
    Protocol{"UDPv6", "udp6", "inet6", "datagram", Format::kInet},
    Protocol{"RAW", "raw", "inet", "raw", Format::kInet},
    Protocol{"RAWv6", "raw6", "inet6", "raw", Format::kInet},
    Protocol{"PING", "icmp", "inet", "datagram", Format::kInet},
    Protocol{"PINGv6", "icmp6", "inet6", "datagram", Format::kInet},
    Protocol{"UNIX-STREAM", "unix", "unix", "stream", Format::kUnix},
    Protocol{"UNIX", "unix", "unix", "other", Format::kUnix},
    Protocol{"NETLINK", "netlink", "netlink", "raw", Format::kNetlink},
    Protocol{"PACKET", "packet", "packet", "raw", Format::kPacket},
};
constexpr Protocol kOther{"", "", "other", "other", Format::kNone};

const Protocol& ProtocolOf(pid_t pid, int fd) {
  char name[64];
  const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
  const ssize_t length = ::getxattr(path.c_str(), "system.sockprotoname", name, sizeof name);
  if (length <= 0) return kOther;
  const std::string_view found(name, ::strnlen(name, static_cast<size_t>(length)));
  for (const auto& protocol : kProtocols) {
    if (protocol.name == found) return protocol;
  }
  return kOther;
}

// include/net/tcp_states.h, from 1 on.
constexpr std::array<const char*, 13> kInetStates = {
    "",      "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2",   "TIME_WAIT",
    "CLOSE", "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "CLOSING",   "NEW_SYN_RECV"};

// "0100007F:1F90" → "127.0.0.1:8080": 32-bit words as the machine reads them, port in host order.
std::string InetAddress(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || (colon != 8 && colon != 32)) return "";
  std::array<uint32_t, 4> words{};
  for (size_t i = 0; i < colon / 8; i++) words[i] = Number<uint32_t>(text.substr(i * 8, 8), 16);
  char address[INET6_ADDRSTRLEN];
  ::inet_ntop(colon == 8 ? AF_INET : AF_INET6, words.data(), address, sizeof address);
  const std::string port = std::to_string(Number<unsigned>(text.substr(colon + 1), 16));
  return colon == 8 ? std::string(address) + ":" + port : "[" + std::string(address) + "]:" + port;
}

using Fields = std::vector<std::string_view>;

void DescribeInet(const Fields& row, SocketFacts& socket) {
  const size_t state = Number<size_t>(row[3], 16);
  if (state < kInetStates.size()) socket.state = kInetStates[state];
  socket.local = InetAddress(row[1]);
  socket.remote = InetAddress(row[2]);
}

void DescribeUnix(const Fields& row, std::string_view line, SocketFacts& socket) {
  switch (Number<int>(row[4], 16)) {
    case 1:
      socket.kind = "stream";
      break;
    case 2:
      socket.kind = "datagram";
      break;
    case 5:
      socket.kind = "seqpacket";
      break;
  }
  constexpr unsigned kAcceptsConnections = 1U << 16;
  if ((Number<unsigned>(row[3], 16) & kAcceptsConnections) != 0) {
    socket.state = "LISTEN";
  } else {
    socket.state = Number<int>(row[5], 16) == 3 ? "CONNECTED" : "UNCONNECTED";
  }
  // The path may hold blanks: all that follows the inode and one blank.
  const size_t inode = static_cast<size_t>(row[6].data() - line.data());
  if (row.size() > 7) socket.local = line.substr(inode + row[6].size() + 1);
}

void DescribeNetlink(const Fields& row, SocketFacts& socket) {
  socket.local = std::string(row[1]) + ":" + std::string(row[2]);  // protocol:port
  socket.state = "UNCONNECTED";
}

void DescribePacket(const Fields& row, SocketFacts& socket) {
  if (Number<int>(row[2]) == 2) socket.kind = "datagram";
  socket.local = std::string(row[3]) + ":" + std::string(row[4]);  // protocol:interface
  socket.state = "UNCONNECTED";
}

size_t InodeColumn(Format format) {
  switch (format) {
    case Format::kUnix:
      return 6;
    case Format::kPacket:
      return 8;
    default:
      return 9;
  }
}

void Describe(Format format, const Fields& row, std::string_view line, SocketFacts& socket) {
  switch (format) {
    case Format::kInet:
      return DescribeInet(row, socket);
    case Format::kUnix:
      return DescribeUnix(row, line, socket);
    case Format::kNetlink:
      return DescribeNetlink(row, socket);
    case Format::kPacket:
      return DescribePacket(row, socket);
    case Format::kNone:
      return;
  }
}

using ByInode = std::unordered_multimap<uint64_t, SocketFacts*>;

void DescribeAll(pid_t pid, const Protocol& protocol, const ByInode& wanted) {
  const auto table =
      ReadProcFile(AT_FDCWD, "/proc/" + std::to_string(pid) + "/net/" + protocol.table);
  if (!table) return;
  const size_t column = InodeColumn(protocol.format);
  for (const auto line : SplitLines(*table)) {
    const auto row = SplitFields(line);
    // Also the heading of the shorter tables; the other headings have inode 0.
    if (row.size() <= column) continue;
    const auto [first, last] = wanted.equal_range(Number<uint64_t>(row[column]));
    for (auto it = first; it != last; ++it) Describe(protocol.format, row, line, *it->second);
  }
}

// CRIU dumps both ends of a connection or none.
void FindPeersOutside(std::vector<SocketFacts>& sockets, const ByInode& ours) {
  std::optional<UnixPeers> peers;
  for (auto& socket : sockets) {
    const std::string_view kind = socket.kind;
    const bool is_stream = kind == "stream" || kind == "seqpacket";
    if (socket.state != "CONNECTED" || !is_stream) continue;
    if (!peers) peers.emplace();
    const auto peer = peers->Of(socket.inode);
    // A connection that its server has not accepted yet has an end that nobody holds.
    if (peer && ours.find(*peer) == ours.end()) socket.peer_pid = HolderOf(*peer);
  }
}

}  // namespace

std::vector<SocketFacts> ReadSockets(const std::vector<ProcessFacts>& processes) {
  std::vector<SocketFacts> sockets;
  // Each table once per network namespace, through the first process found in it.
  std::map<std::tuple<std::string, std::string_view>, std::pair<pid_t, const Protocol*>> tables;
  for (const auto& process : processes) {
    for (const auto& file : process.files) {
      if (std::string_view(file.type) != "socket") continue;
      const Protocol& protocol = ProtocolOf(process.stat.pid, file.fd);
      SocketFacts socket;
      socket.pid = process.stat.pid;
      socket.fd = file.fd;
      socket.inode = file.inode;
      socket.family = protocol.family;
      socket.kind = protocol.kind;
      socket.state = "CLOSE";
      sockets.push_back(std::move(socket));
      if (protocol.format == Format::kNone) continue;
      tables.try_emplace({process.namespaces[kNetNamespace], protocol.table}, process.stat.pid,
                         &protocol);
    }
  }
  ByInode wanted;
  for (auto& socket : sockets) wanted.emplace(socket.inode, &socket);
  for (const auto& [key, table] : tables) DescribeAll(table.first, *table.second, wanted);
  FindPeersOutside(sockets, wanted);
  return sockets;
}

}  // namespace cedana
