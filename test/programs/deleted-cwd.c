// A working directory that was removed.
#include <sys/stat.h>

#include "test.h"

int main(void) {
  test_begin();
  CHECK(mkdir("removed", 0755) == 0 && chdir("removed") == 0 && rmdir("../removed") == 0);
  test_checkpoint();
  struct stat here;
  CHECK(stat(".", &here) == 0 && S_ISDIR(here.st_mode));
  CHECK(access("../removed", F_OK) != 0);
  test_pass();
}
