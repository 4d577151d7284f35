/* execs: prints "PID NANOSECONDS" for every exec of the machine, by the kernel's own clock (CLOCK_MONOTONIC). Independent of what is measured. */
#define _GNU_SOURCE
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct __attribute__((packed, aligned(NLMSG_ALIGNTO))) subscription {
  struct nlmsghdr header;
  struct cn_msg message;
  __u32 operation;
  __u32 events;
};

int main(void) {
  const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
  const int bytes = 8 << 20;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) return 1;
  struct subscription ask = {.operation = PROC_CN_MCAST_LISTEN, .events = PROC_EVENT_EXEC};
  ask.header = (struct nlmsghdr){.nlmsg_len = sizeof ask, .nlmsg_type = NLMSG_DONE, .nlmsg_pid = (__u32)getpid()};
  ask.message.id = (struct cb_id){CN_IDX_PROC, CN_VAL_PROC};
  ask.message.len = sizeof ask.operation + sizeof ask.events;
  if (send(fd, &ask, sizeof ask, 0) < 0) return 1;
  puts("READY");
  fflush(stdout);
  for (;;) {
    char buffer[4096];
    if (recv(fd, buffer, sizeof buffer, 0) <= 0) return 1;
    struct proc_event event;
    memcpy(&event, buffer + NLMSG_HDRLEN + sizeof(struct cn_msg), sizeof event);
    if (event.what != PROC_EVENT_EXEC) continue;
    printf("%d %llu\n", event.event_data.exec.process_tgid, (unsigned long long)event.timestamp_ns);
    fflush(stdout);
  }
}
