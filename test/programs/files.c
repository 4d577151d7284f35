// Open files: offset, O_APPEND, close-on-exec, shared and separate offsets, descriptor numbers, a directory,
// the working directory and the umask.
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "test.h"

int main(void) {
  test_begin();
  umask(027);
  CHECK(mkdir("inner", 0755) == 0 && chdir("inner") == 0);
  char directory[PATH_MAX];
  CHECK(getcwd(directory, sizeof directory) != NULL);

  const int plain = open("plain", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  CHECK(plain >= 0 && write(plain, "0123456789", 10) == 10 && lseek(plain, 4, SEEK_SET) == 4);
  const int shared = dup(plain);
  CHECK(dup2(plain, 100) == 100);
  const int separate = open("plain", O_RDONLY);
  CHECK(separate >= 0 && lseek(separate, 8, SEEK_SET) == 8);
  const int append = open("append", O_WRONLY | O_CREAT | O_APPEND, 0666);
  CHECK(append >= 0 && write(append, "one,", 4) == 4);
  const int sparse = open("sparse", O_RDWR | O_CREAT, 0666);
  CHECK(sparse >= 0 && ftruncate(sparse, 1 << 20) == 0 && lseek(sparse, 1 << 19, SEEK_SET) == 1 << 19);
  const int opened = open(".", O_RDONLY | O_DIRECTORY);
  const int null = open("/dev/null", O_RDWR);
  CHECK(opened >= 0 && null >= 0);

  const pid_t child = fork();  // shares every offset
  CHECK(child >= 0);
  if (child == 0) {
    test_wait();
    CHECK(lseek(plain, 0, SEEK_CUR) == 5);
    CHECK(lseek(plain, 9, SEEK_SET) == 9);
    _exit(0);
  }
  test_checkpoint();

  char byte, here[PATH_MAX];
  CHECK(getcwd(here, sizeof here) != NULL && strcmp(here, directory) == 0);
  CHECK(umask(0) == 027);
  CHECK(read(shared, &byte, 1) == 1 && byte == '4' && lseek(plain, 0, SEEK_CUR) == 5 && lseek(100, 0, SEEK_CUR) == 5);
  int status;
  CHECK(kill(child, SIGUSR1) == 0 && waitpid(child, &status, 0) == child && status == 0);
  CHECK(read(100, &byte, 1) == 1 && byte == '9');
  CHECK(read(separate, &byte, 1) == 1 && byte == '8');
  CHECK((fcntl(plain, F_GETFD) & FD_CLOEXEC) && !(fcntl(100, F_GETFD) & FD_CLOEXEC));
  CHECK(fcntl(append, F_GETFL) & O_APPEND);
  CHECK(lseek(append, 0, SEEK_SET) == 0 && write(append, "two", 3) == 3);
  char text[8] = {0};
  const int check = open("append", O_RDONLY);
  CHECK(check >= 0 && read(check, text, 7) == 7 && strcmp(text, "one,two") == 0);
  CHECK(lseek(sparse, 0, SEEK_CUR) == 1 << 19);
  DIR* list = fdopendir(opened);
  int entries = 0;
  while (readdir(list) != NULL) entries++;
  CHECK(entries == 5);
  struct stat of_null;
  CHECK(fstat(null, &of_null) == 0 && S_ISCHR(of_null.st_mode));
  test_pass();
}
