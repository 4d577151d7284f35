// Regions: large private memory of many kinds, some of it written to by threads until the very moment of the checkpoint; unless it is `alone`, a
// child that shares one region and has changed half of another.
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "test.h"

#define PAGE 4096
#define WORDS (PAGE / 8)
#define MIB (1 << 20)
#define THREADS 4
#define WRITTEN (2 * MIB / 8)  // words of a writer

static volatile int done;

static uint64_t* Map(size_t size, int protection, int flags) {
  uint64_t* memory = mmap(NULL, size, protection, flags | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  return memory;
}

static uint64_t Value(size_t index, uint64_t seed) { return (index + 1) * 0x9e3779b97f4a7c15u + seed; }

static void Fill(uint64_t* words, size_t size, uint64_t seed) {
  for (size_t i = 0; i < size / 8; i++) words[i] = Value(i, seed);
}

static int IsFilled(const uint64_t* words, size_t size, uint64_t seed) {
  for (size_t i = 0; i < size / 8; i++)
    if (words[i] != Value(i, seed)) return 0;
  return 1;
}

// Writes 1, 2, 3 … to one page after the other: every word says how far it had come at least, and at most.
static void* Write(void* unused) {
  volatile uint64_t* words = Map(WRITTEN * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  const size_t pages = WRITTEN / WORDS;
  uint64_t next = 0;
  while (!done) {
    words[next % pages * WORDS + next / pages % WORDS] = next + 1;
    next++;
  }
  for (size_t i = 0; i < WRITTEN; i++) {
    const uint64_t first = i % WORDS * pages + i / WORDS;
    const uint64_t rounds = next > first ? (next - first - 1) / WRITTEN : 0;
    const uint64_t expected = next > first ? first + rounds * WRITTEN + 1 : 0;
    if (words[i] != expected) fail("after %lu, word %zu is %lu and not %lu", next, i, words[i], expected);
  }
  return unused;
}

int main(int argc, char** argv) {
  const int is_alone = argc > 1 && strcmp(argv[1], "alone") == 0;
  test_begin();
  const int rw = PROT_READ | PROT_WRITE;
  uint64_t* sparse = Map(64 * MIB, rw, MAP_PRIVATE | MAP_NORESERVE);
  for (size_t page = 0; page < 64 * MIB / PAGE; page += 8) sparse[page * WORDS] = page + 1;
  uint64_t* untouchable = Map(4 * MIB, rw, MAP_PRIVATE);
  Fill(untouchable, 4 * MIB, 1);
  CHECK(mprotect(untouchable, 4 * MIB, PROT_NONE) == 0);
  uint64_t* constant = Map(2 * MIB, rw, MAP_PRIVATE);
  Fill(constant, 2 * MIB, 2);
  CHECK(mprotect(constant, 2 * MIB, PROT_READ) == 0);
  uint64_t* huge = Map(10 * MIB, rw, MAP_PRIVATE);
  madvise(huge, 10 * MIB, MADV_HUGEPAGE);
  Fill(huge, 10 * MIB, 3);
  uint64_t* code = Map(2 * MIB, rw | PROT_EXEC, MAP_PRIVATE);
  Fill(code, 2 * MIB, 4);
  // Pages of zeros that were written, and some that were only read.
  volatile uint64_t* zeros = Map(4 * MIB, rw, MAP_PRIVATE);
  for (size_t page = 0; page < 4 * MIB / PAGE; page++) {
    if (page % 4 == 1) zeros[page * WORDS] = 0;
    if (page % 4 == 2) CHECK(zeros[page * WORDS] == 0);
    if (page % 4 == 3) zeros[page * WORDS + 511] = page;
  }
  // Cut up, so that what is beside is not read with it.
  uint64_t* cut = Map(4 * MIB, rw, MAP_PRIVATE);
  Fill(cut, 4 * MIB, 5);
  CHECK(munmap(cut + MIB / 8, PAGE) == 0 && madvise(cut + 2 * MIB / 8, PAGE, MADV_DONTNEED) == 0);
  uint64_t* shared = Map(4 * MIB, rw, MAP_SHARED);
  uint64_t* inherited = Map(8 * MIB, rw, MAP_PRIVATE);
  Fill(inherited, 8 * MIB, 6);

  Fill(shared, 4 * MIB, 8);
  const pid_t child = is_alone ? 0 : fork();
  CHECK(child >= 0);
  if (child == 0 && !is_alone) {
    Fill(inherited, 4 * MIB, 7);
    Fill(shared, 4 * MIB, 8);
    __atomic_store_n(&shared[0], 1, __ATOMIC_RELEASE);
    test_wait();
    CHECK(IsFilled(inherited, 4 * MIB, 7));
    for (size_t i = 4 * MIB / 8; i < 8 * MIB / 8; i++) CHECK(inherited[i] == Value(i, 6));
    _exit(0);
  }
  while (!is_alone && __atomic_load_n(&shared[0], __ATOMIC_ACQUIRE) != 1) usleep(1000);
  shared[0] = Value(0, 8);
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, Write, NULL) == 0);
  test_checkpoint();

  done = 1;
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (size_t i = 0; i < 64 * MIB / 8; i++) {
    const size_t page = i / WORDS;
    CHECK(sparse[i] == (i % WORDS == 0 && page % 8 == 0 ? page + 1 : 0));
  }
  CHECK(mprotect(untouchable, 4 * MIB, rw) == 0 && IsFilled(untouchable, 4 * MIB, 1));
  CHECK(IsFilled(constant, 2 * MIB, 2) && IsFilled(huge, 10 * MIB, 3) && IsFilled(code, 2 * MIB, 4));
  for (size_t i = 0; i < 4 * MIB / 8; i++) CHECK(zeros[i] == (i % (4 * WORDS) == 4 * WORDS - 1 ? i / WORDS : 0));
  CHECK(IsFilled(cut, MIB, 5));
  for (size_t i = (MIB + PAGE) / 8; i < 4 * MIB / 8; i++)
    CHECK(cut[i] == (i / WORDS == 2 * MIB / PAGE ? 0 : Value(i, 5)));
  CHECK(IsFilled(shared, 4 * MIB, 8) && IsFilled(inherited, 8 * MIB, 6));
  int status;
  CHECK(is_alone || (kill(child, SIGUSR1) == 0 && waitpid(child, &status, 0) == child && status == 0));
  test_pass();
}
