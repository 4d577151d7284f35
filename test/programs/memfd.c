// A sealed memfd, one that is mapped, and one that only a mapping keeps alive.
#include <fcntl.h>
#include <sys/mman.h>

#include "test.h"

int main(void) {
  test_begin();
  const int sealed = memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  CHECK(sealed >= 0 && write(sealed, "constant", 8) == 8);
  const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  CHECK(fcntl(sealed, F_ADD_SEALS, seals) == 0 && lseek(sealed, 3, SEEK_SET) == 3);

  const int mapped = memfd_create("mapped", 0);
  CHECK(mapped >= 0 && ftruncate(mapped, 1 << 16) == 0);
  char* memory = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
  CHECK(memory != MAP_FAILED);
  memset(memory, 0x42, 1 << 16);

  const int closed = memfd_create("closed", 0);
  CHECK(closed >= 0 && ftruncate(closed, 8192) == 0);
  char* only = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, closed, 0);
  CHECK(only != MAP_FAILED);
  strcpy(only + 5000, "only mapped");
  close(closed);
  test_checkpoint();

  char text[9] = {0};
  CHECK(fcntl(sealed, F_GET_SEALS) == seals && lseek(sealed, 0, SEEK_CUR) == 3);
  CHECK(pread(sealed, text, 8, 0) == 8 && strcmp(text, "constant") == 0);
  CHECK(write(sealed, "x", 1) == -1 && errno == EPERM);
  memory[100] = 'x';
  CHECK(pread(mapped, text, 2, 100) == 2 && text[0] == 'x' && text[1] == 0x42);
  CHECK(strcmp(only + 5000, "only mapped") == 0);
  test_pass();
}
