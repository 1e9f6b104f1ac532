// Touches memory and keeps it until it is ended. A virtual machine's memory that nobody has used for some seconds has
// gone back to its host, and the first touch of each page then waits for the host: microseconds that belong to neither of
// those that are compared. What this program leaves behind is there at once.
//
//   warm MEBIBYTES
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char** argv) {
  const size_t bytes = argc == 2 ? strtoull(argv[1], NULL, 10) << 20 : 0;
  if (bytes == 0) return fprintf(stderr, "warm: how many mebibytes?\n"), 1;
  volatile char* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return perror("warm"), 1;
  for (size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
  printf("{\"warm\":true}\n");
  fflush(stdout);
  for (;;) pause();
}
