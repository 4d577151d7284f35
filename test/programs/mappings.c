// Mappings: shared anonymous memory between processes, a private file mapping with changed pages, a shared
// file mapping, protections, a hole, the heap and a large stack.
#include <fcntl.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "test.h"

#define PAGE 4096

static sigjmp_buf back;
static void OnFault(int signal) { siglongjmp(back, signal); }
static int Faults(volatile char* address, int writes) {
  if (sigsetjmp(back, 1) != 0) return 1;
  if (writes) *address = 1;
  else (void)*address;
  return 0;
}

int main(void) {
  test_begin();
  char* shared = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  strcpy(shared, "from the parent");

  const int file = open("mapped", O_RDWR | O_CREAT, 0600);
  char page[PAGE];
  for (int i = 0; i < 8; i++) {
    memset(page, 'a' + i, PAGE);
    CHECK(write(file, page, PAGE) == PAGE);
  }
  char* cow = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  char* common = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 4 * PAGE);
  CHECK(shared != MAP_FAILED && cow != MAP_FAILED && common != MAP_FAILED);
  cow[PAGE] = 'X';  // this page is ours, the others are still the file's
  common[0] = 'Y';

  char* area = mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(area, 7, 6 * PAGE);
  CHECK(mprotect(area, PAGE, PROT_READ) == 0 && mprotect(area + PAGE, PAGE, PROT_NONE) == 0);
  CHECK(munmap(area + 3 * PAGE, PAGE) == 0);
  char* low = sbrk(0);
  CHECK(sbrk(1 << 20) == low);
  memset(low, 9, 1 << 20);
  volatile char stack[512 * 1024];
  for (size_t i = 0; i < sizeof stack; i += 512) stack[i] = (char)(i / 512);

  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    test_wait();
    CHECK(strcmp(shared, "to the child") == 0);
    strcpy(shared + 8 * PAGE, "answer");
    CHECK(cow[PAGE] == 'X' && common[0] == 'Y');
    cow[PAGE] = 'Z';  // private: the parent must not see it
    _exit(0);
  }
  test_checkpoint();

  CHECK(strcmp(shared, "from the parent") == 0);
  strcpy(shared, "to the child");
  int status;
  CHECK(kill(child, SIGUSR1) == 0 && waitpid(child, &status, 0) == child && status == 0);
  CHECK(strcmp(shared + 8 * PAGE, "answer") == 0);
  CHECK(cow[0] == 'a' && cow[PAGE] == 'X' && cow[PAGE + 1] == 'b' && cow[7 * PAGE] == 'h');
  CHECK(pread(file, page, PAGE, PAGE) == PAGE && page[0] == 'b');
  CHECK(pread(file, page, PAGE, 4 * PAGE) == PAGE && page[0] == 'Y' && page[1] == 'e');
  common[PAGE] = 'W';
  CHECK(pread(file, page, 1, 5 * PAGE) == 1 && page[0] == 'W' && cow[5 * PAGE] == 'W');

  CHECK(signal(SIGSEGV, OnFault) != SIG_ERR);
  CHECK(area[0] == 7 && Faults(area, 1) && Faults(area + PAGE, 0) && Faults(area + 3 * PAGE, 0));
  CHECK(!Faults(area + 4 * PAGE, 1) && area[5 * PAGE] == 7);
  CHECK(mprotect(area + PAGE, PAGE, PROT_READ) == 0 && area[PAGE] == 7);
  for (int i = 0; i < 1 << 20; i += PAGE) CHECK(low[i] == 9);
  for (size_t i = 0; i < sizeof stack; i += 512) CHECK(stack[i] == (char)(i / 512));
  CHECK(sbrk(0) >= (void*)(low + (1 << 20)));
  test_pass();
}
