// A file whose opened name was removed while another hard link still names it (CRIU option link_remap).
#include <fcntl.h>
#include <sys/stat.h>

#include "test.h"

int main(void) {
  test_begin();
  const int file = open("first", O_RDWR | O_CREAT, 0600);
  CHECK(file >= 0 && write(file, "linked", 6) == 6 && link("first", "second") == 0 && unlink("first") == 0);
  test_checkpoint();
  struct stat by_fd, by_name;
  CHECK(fstat(file, &by_fd) == 0 && stat("second", &by_name) == 0);
  CHECK(by_fd.st_ino == by_name.st_ino && by_fd.st_nlink == 1);
  CHECK(access("first", F_OK) != 0);
  char text[7] = {0};
  CHECK(pread(file, text, 6, 0) == 6 && strcmp(text, "linked") == 0);
  test_pass();
}
