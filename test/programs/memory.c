// memory MIB random|zero|half: MIB mebibytes of that content with a checksum. Every page is touched.
#include <stdint.h>
#include <sys/mman.h>

#include "test.h"

static uint64_t Sum(const uint64_t* words, size_t count) {
  uint64_t sum = 14695981039346656037u;
  for (size_t i = 0; i < count; i++) sum = (sum ^ words[i]) * 1099511628211u;
  return sum;
}

int main(int argc, char** argv) {
  test_begin();
  CHECK(argc == 3);
  const size_t size = (size_t)atoi(argv[1]) << 20, count = size / 8;
  uint64_t* words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(words != MAP_FAILED);
  const int zero = strcmp(argv[2], "zero") == 0, half = strcmp(argv[2], "half") == 0;
  uint64_t state = 88172645463325252u;
  for (size_t i = 0; i < count; i++) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const int blank = zero || (half && (i / 512) % 2 == 0);  // every other page
    ((volatile uint64_t*)words)[i] = blank ? 0 : state;
  }
  const uint64_t before = Sum(words, count);
  test_checkpoint();
  CHECK(Sum(words, count) == before);
  memset(words, 0x5a, size);
  test_pass();
}
