// A process that gave root up: ids, groups and capabilities. CRIU needs CAP_SYS_RESOURCE for it.
#include <grp.h>
#include <sys/prctl.h>

#include "test.h"

int main(void) {
  test_begin();
  const gid_t groups[] = {1001, 1002};
  CHECK(setgroups(2, groups) == 0 && setresgid(1003, 1004, 1004) == 0 && setresuid(1005, 1006, 1006) == 0);
  test_checkpoint();
  uid_t real, effective, saved;
  CHECK(getresuid(&real, &effective, &saved) == 0 && real == 1005 && effective == 1006 && saved == 1006);
  gid_t now[4], group, effective_group, saved_group;
  CHECK(getgroups(4, now) == 2 && now[0] == 1001 && now[1] == 1002);
  CHECK(getresgid(&group, &effective_group, &saved_group) == 0 && group == 1003 && effective_group == 1004);
  test_pass();
}
