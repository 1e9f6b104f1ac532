// The least C program that moves a guest by post-copy: guest, daemon and source as three processes with no code to spare.
// It is what every figure of the benchmarks stands beside. It has no failure handling, no removal, no names, no rate
// limit; its records are a word and a page. One run, one JSON object on stdout.
//
//   floor --pages N [--touch N] [--threads N] [--transport unix|tcp|via] [--background] [--seed N] [--wait MICROS]
//
// `wait`: source and daemon wait so long without sleeping for what comes next, giving the CPU to others between two looks.
// `via`: prints {"listening":PORT}, reads a port from stdin and connects there: for a relay in between.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kPage = 4096, kRecord = 8 + kPage, kMostThreads = 64, kChunk = 64 * 1024, kBurst = 16 };
static const uint64_t kEnd = ~0ull;
/** A touch below this found its page: nanoseconds. The same bound as in the guest of the other side. */
static const uint32_t kHitNanos = 3000;

static struct {
  uint64_t pages, touch, threads, seed;
  int background, wait;
  const char* transport;
} option = {0, 0, 1, 1, 0, 0, "unix"};

/** What the three processes leave for the report. */
static struct {
  uint64_t stopped, firstTouch, allInstalled, resumed;
  double sourceCpu, daemonCpu;
  long daemonPeakKiB;
} volatile* shared;

static uint8_t* guest;
static uint32_t* order;
static uint32_t* nanos;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void check(int ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double cpuSeconds(long* peakKiB) {
  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  if (peakKiB) *peakKiB = use.ru_maxrss;
  return (double)use.ru_utime.tv_sec + (double)use.ru_utime.tv_usec / 1e6 + (double)use.ru_stime.tv_sec +
         (double)use.ru_stime.tv_usec / 1e6;
}

/** xorshift32 and Fisher-Yates, as in the guest of the other side: both touch the same pages in the same order. */
static void shuffle(void) {
  order = malloc(option.pages * sizeof *order);
  for (uint32_t i = 0; i < option.pages; i++) order[i] = i;
  uint32_t x = (uint32_t)option.seed;
  for (uint32_t i = (uint32_t)option.pages - 1; i > 0; i--) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    const uint32_t j = x % (i + 1), kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
}

static void writeAll(int fd, struct iovec* parts, int count) {
  while (count > 0) {
    ssize_t n = writev(fd, parts, count);
    check(n > 0, "writev");
    while (count > 0 && (size_t)n >= parts->iov_len) {
      n -= (ssize_t)parts->iov_len;
      parts++;
      count--;
    }
    if (count == 0) break;
    parts->iov_base = (uint8_t*)parts->iov_base + n;
    parts->iov_len -= (size_t)n;
  }
}

/** Whether one of these is ready, after a wait without sleep. */
static int spin(struct pollfd* polled, int count) {
  if (option.wait == 0) return 0;
  const uint64_t end = now() + (uint64_t)option.wait * 1000u;
  do {
    if (poll(polled, (nfds_t)count, 0) > 0) return 1;
    sched_yield();
  } while (now() < end);
  return 0;
}

static void source(int link, int ready, int go) {
  const size_t bytes = option.pages * kPage;
  uint8_t* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(memory != MAP_FAILED, "mmap");
  uint32_t* words = (uint32_t*)memory;
  for (size_t i = 0, x = 1; i < bytes / 4; i++, x += 0x9e3779b1) words[i] = (uint32_t)x;
  uint8_t* sent = calloc(option.pages, 1);
  char byte = 0;
  check(write(ready, &byte, 1) == 1 && read(go, &byte, 1) == 1, "start");
  const double before = cpuSeconds(NULL);
  uint64_t cursor = 0, left = option.pages, asked[512];
  size_t have = 0;
  while (left > 0) {
    struct iovec parts[2 * 512];
    uint64_t heads[512];
    int n = 0;
    struct pollfd request = {link, POLLIN, 0};
    if (!option.background) spin(&request, 1);
    const ssize_t got = recv(link, (uint8_t*)asked + have, sizeof asked - have, option.background ? MSG_DONTWAIT : 0);
    check(got > 0 || (got < 0 && errno == EAGAIN), "recv");
    if (got > 0) have += (size_t)got;
    for (size_t i = 0; i < have / 8; i++) {
      const uint64_t page = asked[i];
      if (sent[page]) continue;
      sent[page] = 1;
      heads[n] = page;
      parts[2 * n] = (struct iovec){&heads[n], 8};
      parts[2 * n + 1] = (struct iovec){memory + page * kPage, kPage};
      n++;
    }
    memmove(asked, (uint8_t*)asked + have / 8 * 8, have % 8);
    have %= 8;
    for (int burst = 0; n == 0 && option.background && burst < kBurst && cursor < option.pages; cursor++) {
      if (sent[cursor]) continue;
      sent[cursor] = 1;
      heads[burst] = cursor;
      parts[2 * burst] = (struct iovec){&heads[burst], 8};
      parts[2 * burst + 1] = (struct iovec){memory + cursor * kPage, kPage};
      burst++;
      if (burst == kBurst || cursor + 1 == option.pages) {
        n = burst;
        cursor++;
        break;
      }
    }
    left -= (uint64_t)n;
    writeAll(link, parts, 2 * n);
  }
  struct iovec end = {(void*)&kEnd, 8};
  writeAll(link, &end, 1);
  shared->sourceCpu = cpuSeconds(NULL) - before;
  // The daemon has read everything when it closes its end.
  while (read(link, &byte, 1) > 0) continue;
  _exit(0);
}

static void install(int uffd, uint64_t page, const uint8_t* from) {
  struct uffdio_copy copy = {(uintptr_t)guest + page * kPage, (uintptr_t)from, kPage, 0, 0};
  check(ioctl(uffd, UFFDIO_COPY, &copy) == 0 || errno == EEXIST, "UFFDIO_COPY");
}

static void serve(int uffd, int link) {
  static uint8_t buffer[kChunk + kRecord];
  size_t have = 0;
  const double before = cpuSeconds(NULL);
  for (;;) {
    struct pollfd polled[2] = {{uffd, POLLIN, 0}, {link, POLLIN, 0}};
    check(spin(polled, 2) || poll(polled, 2, -1) > 0, "poll");
    if (polled[0].revents & POLLIN) {
      struct uffd_msg events[kMostThreads];
      uint64_t pages[kMostThreads];
      const ssize_t n = read(uffd, events, sizeof events);
      const int count = n < 0 ? 0 : (int)((size_t)n / sizeof events[0]);
      for (int i = 0; i < count; i++) pages[i] = (events[i].arg.pagefault.address - (uintptr_t)guest) / kPage;
      struct iovec request = {pages, (size_t)count * 8};
      if (count > 0) writeAll(link, &request, 1);
    }
    if (!(polled[1].revents & POLLIN)) continue;
    const ssize_t n = read(link, buffer + have, kChunk);
    check(n > 0, "read");
    have += (size_t)n;
    size_t at = 0;
    for (; have - at >= 8; at += kRecord) {
      uint64_t head;
      memcpy(&head, buffer + at, 8);
      if (head == kEnd) {
        shared->allInstalled = now();
        long peak;
        shared->daemonCpu = cpuSeconds(&peak) - before;
        shared->daemonPeakKiB = peak;
        _exit(0);
      }
      if (have - at < kRecord) break;
      install(uffd, head, buffer + at + 8);
    }
    memmove(buffer, buffer + at, have - at);
    have -= at;
  }
}

static void* touch(void* argument) {
  const uint64_t thread = (uintptr_t)argument;
  uint8_t sum = 0;
  for (uint64_t i = thread; i < option.touch; i += option.threads) {
    const uint64_t from = now();
    sum ^= *(volatile uint8_t*)(guest + (uint64_t)order[i] * kPage);
    const uint64_t took = now() - from;
    nanos[i] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
    if (i == 0) shared->firstTouch = from + took;
  }
  return (void*)(uintptr_t)sum;
}

static int ascending(const void* a, const void* b) {
  const uint32_t x = *(const uint32_t*)a, y = *(const uint32_t*)b;
  return (x > y) - (x < y);
}

static void report(uint64_t touched) {
  uint64_t faults = 0, sum = 0;
  for (uint64_t i = 0; i < option.touch; i++) {
    if (nanos[i] < kHitNanos) continue;
    sum += nanos[i];
    nanos[faults++] = nanos[i];
  }
  qsort(nanos, faults, sizeof *nanos, ascending);
#define AT(q) (faults == 0 ? 0 : nanos[(uint64_t)((double)(faults - 1) * (q))] / 1e3)
  printf("{\"pages\":%lu,\"touches\":%lu,\"faults\":%lu,\"p50Us\":%.2f,\"p99Us\":%.2f,\"p999Us\":%.2f,\"meanUs\":%.3f,"
         "\"touchMs\":%.3f,\"totalMs\":%.3f,\"downtimeMs\":%.4f,\"sourceCpu\":%.6f,\"daemonCpu\":%.6f,"
         "\"daemonKiB\":%ld}\n",
         option.pages, option.touch, faults, AT(0.5), AT(0.99), AT(0.999), faults ? (double)sum / (double)faults / 1e3 : 0,
         (double)(touched - shared->resumed) / 1e6, (double)(shared->allInstalled - shared->resumed) / 1e6,
         option.touch ? (double)(shared->firstTouch - shared->stopped) / 1e6 : 0, shared->sourceCpu, shared->daemonCpu,
         shared->daemonPeakKiB);
}

static void connectTcp(int* here, int* there) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  check(bind(listener, (void*)&address, length) == 0 && listen(listener, 1) == 0, "listen");
  getsockname(listener, (void*)&address, &length);
  if (strcmp(option.transport, "via") == 0) {
    int port = 0;
    printf("{\"listening\":%d}\n", ntohs(address.sin_port));
    fflush(stdout);
    check(scanf("%d", &port) == 1, "port");
    address.sin_port = htons((uint16_t)port);
  }
  *there = socket(AF_INET, SOCK_STREAM, 0);
  check(connect(*there, (void*)&address, length) == 0, "connect");
  *here = accept(listener, NULL, NULL);
  setsockopt(*here, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(*there, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  close(listener);
}

int main(int argc, char** argv) {
  for (int i = 1; i < argc; i++) {
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (strcmp(argv[i], "--background") == 0) option.background = 1;
    else if (strcmp(argv[i], "--transport") == 0) option.transport = value, i++;
    else if (strcmp(argv[i], "--pages") == 0) option.pages = strtoull(value, NULL, 10), i++;
    else if (strcmp(argv[i], "--touch") == 0) option.touch = strtoull(value, NULL, 10), i++;
    else if (strcmp(argv[i], "--threads") == 0) option.threads = strtoull(value, NULL, 10), i++;
    else if (strcmp(argv[i], "--wait") == 0) option.wait = atoi(value), i++;
    else if (strcmp(argv[i], "--seed") == 0) option.seed = strtoull(value, NULL, 10), i++;
    else return fprintf(stderr, "floor: what is %s?\n", argv[i]), 1;
  }
  if (option.pages == 0 || option.touch > option.pages || option.threads == 0 || option.threads > kMostThreads) {
    return fprintf(stderr, "floor: --pages, --touch (at most as many) and --threads (at most 64) do not fit\n"), 1;
  }
  shared = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  nanos = calloc(option.touch + 1, sizeof *nanos);
  shuffle();

  int link[2], ready[2], go[2];
  if (strcmp(option.transport, "unix") == 0) check(socketpair(AF_UNIX, SOCK_STREAM, 0, link) == 0, "socketpair");
  else connectTcp(&link[0], &link[1]);
  check(pipe(ready) == 0 && pipe(go) == 0, "pipe");
  const pid_t sourcePid = fork();
  if (sourcePid == 0) {
    close(link[0]);
    source(link[1], ready[1], go[0]);
  }
  close(link[1]);

  const size_t bytes = option.pages * kPage;
  guest = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(guest != MAP_FAILED && madvise(guest, bytes, MADV_DONTFORK) == 0, "mmap");
  const int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  struct uffdio_api api = {UFFD_API, 0, 0};
  struct uffdio_register range = {{(uintptr_t)guest, bytes}, UFFDIO_REGISTER_MODE_MISSING, 0};
  check(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0 && ioctl(uffd, UFFDIO_REGISTER, &range) == 0, "userfaultfd");
  const pid_t daemonPid = fork();
  if (daemonPid == 0) serve(uffd, link[0]);
  close(link[0]);

  char byte = 0;
  check(read(ready[0], &byte, 1) == 1, "source");
  shared->stopped = now();
  check(write(go[1], &byte, 1) == 1, "go");
  shared->resumed = now();
  pthread_t threads[kMostThreads];
  for (uintptr_t t = 1; t < option.threads; t++) pthread_create(&threads[t], NULL, touch, (void*)t);
  touch((void*)0);
  for (uintptr_t t = 1; t < option.threads; t++) pthread_join(threads[t], NULL);
  const uint64_t touched = now();
  int status = 0;
  // Without background only what was touched has come.
  if (option.background || option.touch == option.pages) waitpid(daemonPid, &status, 0);
  else shared->allInstalled = touched, kill(daemonPid, 9), kill(sourcePid, 9);
  check(status == 0, "daemon");
  report(touched);
  return 0;
}
