// Deleted files that are still open or mapped: contents, offset and mode survive, and no name comes back.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "test.h"

int main(void) {
  test_begin();
  char* content = malloc(300000);
  for (int i = 0; i < 300000; i++) content[i] = (char)(i * 31 + i / 256);
  const int file = open("gone", O_RDWR | O_CREAT, 0640);
  CHECK(file >= 0 && write(file, content, 300000) == 300000 && lseek(file, 1234, SEEK_SET) == 1234);
  char* mapped = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 4096);
  CHECK(mapped != MAP_FAILED && unlink("gone") == 0);
  const int reader = open("read-only", O_RDWR | O_CREAT, 0600);
  CHECK(reader >= 0 && write(reader, "kept", 4) == 4);
  const int second = open("read-only", O_RDONLY);
  CHECK(second >= 0 && unlink("read-only") == 0);
  test_checkpoint();

  struct stat info;
  CHECK(fstat(file, &info) == 0 && info.st_size == 300000 && (info.st_mode & 0777) == 0640 && info.st_nlink == 0);
  CHECK(lseek(file, 0, SEEK_CUR) == 1234);
  char* again = malloc(300000);
  CHECK(pread(file, again, 300000, 0) == 300000 && memcmp(again, content, 300000) == 0);
  CHECK(memcmp(mapped, content + 4096, 8192) == 0);
  mapped[0] = 'x';
  CHECK(pread(file, again, 1, 4096) == 1 && again[0] == 'x');
  CHECK(read(second, again, 5) == 4 && memcmp(again, "kept", 4) == 0);
  CHECK(access("gone", F_OK) != 0 && access("read-only", F_OK) != 0);
  test_pass();
}
