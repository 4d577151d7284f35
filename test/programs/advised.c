// Advised: large private memory that the kernel was told something about: locked, not for children, empty for children, with guards; a thread moves
// other memory until the very moment of the checkpoint, and events of AIO wait or not.
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "test.h"

#define MIB (1 << 20)
#define PAGE 4096
#define GUARD_INSTALL 102  // of madvise, Linux 6.13

static volatile int done;

static uint64_t* Filled(size_t size, uint64_t seed) {
  uint64_t* words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(words != MAP_FAILED);
  for (size_t i = 0; i < size / 8; i++) words[i] = (i + 1) * 0x9e3779b97f4a7c15u + seed;
  return words;
}

static int IsFilled(const uint64_t* words, size_t from, size_t to, uint64_t seed) {
  for (size_t i = from / 8; i < to / 8; i++)
    if (words[i] != (i + 1) * 0x9e3779b97f4a7c15u + seed) return 0;
  return 1;
}

static void* Move(void* unused) {
  while (!done) {
    uint64_t* words = Filled(2 * MIB, 9);
    words = mremap(words, 2 * MIB, 4 * MIB, MREMAP_MAYMOVE);
    CHECK(words != MAP_FAILED && IsFilled(words, 0, 2 * MIB, 9) && words[4 * MIB / 8 - 1] == 0);
    CHECK(munmap(words, MIB) == 0);
    CHECK(IsFilled(words, MIB, 2 * MIB, 9) && munmap(words + MIB / 8, 3 * MIB) == 0);
  }
  return unused;
}

int main(int count, char** arguments) {
  test_begin();
  uint64_t* locked = Filled(4 * MIB, 1);
  CHECK(mlock(locked, 4 * MIB) == 0);
  uint64_t* kept = Filled(4 * MIB, 2);
  CHECK(madvise(kept, 4 * MIB, MADV_DONTFORK) == 0);
  uint64_t* wiped = Filled(4 * MIB, 3);
  CHECK(madvise(wiped, 4 * MIB, MADV_WIPEONFORK) == 0);
  uint64_t* guarded = Filled(4 * MIB, 4);
  const int is_guarded = madvise(guarded + MIB / 8, PAGE, GUARD_INSTALL) == 0;
  aio_context_t context = 0;
  if (count > 1 && strcmp(arguments[1], "aio") == 0) CHECK(syscall(SYS_io_setup, 8, &context) == 0);
  pthread_t mover;
  CHECK(pthread_create(&mover, NULL, Move, NULL) == 0);
  test_checkpoint();

  done = 1;
  CHECK(pthread_join(mover, NULL) == 0);
  CHECK(IsFilled(locked, 0, 4 * MIB, 1) && IsFilled(kept, 0, 4 * MIB, 2) && IsFilled(wiped, 0, 4 * MIB, 3));
  CHECK(IsFilled(guarded, 0, MIB, 4) && IsFilled(guarded, MIB + (is_guarded ? PAGE : 0), 4 * MIB, 4));
  if (context != 0) CHECK(syscall(SYS_io_destroy, context) == 0);
  test_pass();
}
