// Touches N MiB of anonymous memory, says READY, and waits to be ended.
// Pattern: random (incompressible), half (every other page zero-filled text), sparse (one page in eight).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kPage = 4096 };

static void fill_random(unsigned char *page, uint64_t *state) {
  for (size_t i = 0; i < kPage; i += sizeof(uint64_t)) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    memcpy(page + i, state, sizeof(uint64_t));
  }
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: touch MIB random|half|sparse\n");
    return 2;
  }
  const size_t pages = strtoull(argv[1], NULL, 10) * 1024 * 1024 / kPage;
  unsigned char *memory = mmap(NULL, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("mmap");
    return 1;
  }
  uint64_t state = 88172645463325252ull;
  for (size_t i = 0; i < pages; i++) {
    unsigned char *page = memory + i * kPage;
    if (strcmp(argv[2], "sparse") == 0 && i % 8 != 0) continue;
    fill_random(page, &state);
    if (strcmp(argv[2], "half") == 0) memset(page, 'x', kPage / 2);
  }
  printf("READY\n");
  fflush(stdout);
  for (;;) pause();
}
