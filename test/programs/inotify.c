// inotify: the watches keep their numbers and go on watching.
#include <fcntl.h>
#include <limits.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "test.h"

int main(void) {
  test_begin();
  CHECK(mkdir("watched", 0755) == 0);
  const int file = open("watched/file", O_RDWR | O_CREAT, 0600);
  const int fd = inotify_init1(IN_NONBLOCK);
  CHECK(file >= 0 && fd >= 0);
  const int directory = inotify_add_watch(fd, "watched", IN_CREATE | IN_DELETE);
  const int single = inotify_add_watch(fd, "watched/file", IN_MODIFY);
  CHECK(directory >= 0 && single >= 0 && directory != single);
  test_checkpoint();

  // CRIU opens the watched objects while it restores; events of that time may be queued.
  char buffer[sizeof(struct inotify_event) + NAME_MAX + 1] __attribute__((aligned(8)));
  while (read(fd, buffer, sizeof buffer) > 0) {
  }
  CHECK(write(file, "x", 1) == 1 && read(fd, buffer, sizeof buffer) > 0);
  const struct inotify_event* event = (const struct inotify_event*)buffer;
  CHECK(event->wd == single && (event->mask & IN_MODIFY));
  CHECK(close(open("watched/new", O_RDWR | O_CREAT, 0600)) == 0 && read(fd, buffer, sizeof buffer) > 0);
  CHECK(event->wd == directory && (event->mask & IN_CREATE) && strcmp(event->name, "new") == 0);
  test_pass();
}
