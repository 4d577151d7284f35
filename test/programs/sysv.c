// System V shared memory of the host's namespace: not part of the tree, so CRIU refuses it.
#include <sys/shm.h>

#include "test.h"

int main(void) {
  test_begin();
  const int id = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600);
  CHECK(id >= 0);
  char* memory = shmat(id, NULL, 0);
  CHECK(memory != (void*)-1 && shmctl(id, IPC_RMID, NULL) == 0);
  strcpy(memory, "shared");
  test_checkpoint();
  CHECK(strcmp(memory, "shared") == 0);
  test_pass();
}
