// Delays both directions of one TCP connection by a fixed time each, without limiting the rate: a long wire on one
// machine. Every byte leaves as soon as its time has come; what is on the way is bounded by a ring for each direction.
//
//   relay --to PORT --micros N       prints {"listening":PORT}, takes one connection, ends with it
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/** More than a fast wire holds: 64 MiB are 25 ms at 2.5 GiB/s. */
enum { kRing = 64 * 1024 * 1024, kChunk = 64 * 1024, kChunks = 65536 };

struct direction {
  int from, to, ended, closed;
  uint8_t* ring;
  uint64_t head, tail, firstChunk, lastChunk;
  struct {
    uint64_t due, end;
  } chunks[kChunks];
};

static uint64_t delay;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int fail(const char* what) {
  fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void configure(int socket) {
  const int one = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(socket, F_SETFL, O_NONBLOCK);
}

static int room(const struct direction* d) {
  return !d->ended && kRing - (d->head - d->tail) >= kChunk && d->lastChunk - d->firstChunk < kChunks;
}

static void take(struct direction* d) {
  const uint64_t at = d->head % kRing, whole = kRing - at;
  const ssize_t n = read(d->from, d->ring + at, whole < kChunk ? whole : kChunk);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) {
    d->ended = 1;
    return;
  }
  d->head += (uint64_t)n;
  d->chunks[d->lastChunk % kChunks].due = now() + delay;
  d->chunks[d->lastChunk++ % kChunks].end = d->head;
}

/** Nanoseconds until the next byte is due; 0 when it waits for room in the socket; -1 without any. */
static int64_t give(struct direction* d) {
  while (d->firstChunk < d->lastChunk) {
    const uint64_t due = d->chunks[d->firstChunk % kChunks].due, end = d->chunks[d->firstChunk % kChunks].end;
    const uint64_t time = now();
    if (due > time) return (int64_t)(due - time);
    while (d->tail < end) {
      const uint64_t at = d->tail % kRing, left = end - d->tail, whole = kRing - at;
      const ssize_t n = send(d->to, d->ring + at, left < whole ? left : whole, MSG_NOSIGNAL);
      if (n < 0 && errno == EAGAIN) return 0;
      if (n <= 0) {
        d->ended = 1;
        d->firstChunk = d->lastChunk;
        return -1;
      }
      d->tail += (uint64_t)n;
    }
    d->firstChunk++;
  }
  if (d->ended && !d->closed) {
    shutdown(d->to, SHUT_WR);
    d->closed = 1;
  }
  return -1;
}

int main(int argc, char** argv) {
  int port = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--to") == 0) port = atoi(argv[i + 1]);
    else if (strcmp(argv[i], "--micros") == 0) delay = strtoull(argv[i + 1], NULL, 10) * 1000;
  }
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (bind(listener, (void*)&address, length) < 0 || listen(listener, 1) < 0) fail("listen");
  getsockname(listener, (void*)&address, &length);
  printf("{\"listening\":%d}\n", ntohs(address.sin_port));
  fflush(stdout);
  const int near = accept(listener, NULL, NULL), far = socket(AF_INET, SOCK_STREAM, 0);
  address.sin_port = htons((uint16_t)port);
  if (near < 0 || connect(far, (void*)&address, length) < 0) fail("connect");
  configure(near);
  configure(far);
  struct direction* both = mmap(NULL, 2 * sizeof *both, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 2; i++) {
    both[i].from = i == 0 ? near : far;
    both[i].to = i == 0 ? far : near;
    both[i].ring = mmap(NULL, kRing, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  while (!both[0].closed || !both[1].closed) {
    struct pollfd polled[2] = {{near, 0, 0}, {far, 0, 0}};
    int64_t wait = -1;
    for (int i = 0; i < 2; i++) {
      const int64_t next = give(&both[i]);
      if (next == 0) polled[1 - i].events |= POLLOUT;
      if (next > 0 && (wait < 0 || next < wait)) wait = next;
      if (room(&both[i])) polled[i].events |= POLLIN;
    }
    if (both[0].closed && both[1].closed) break;
    const struct timespec timeout = {wait / 1000000000, wait % 1000000000};
    // A descriptor that is not waited for must not report its hang-up again and again.
    for (int i = 0; i < 2; i++) if (polled[i].events == 0) polled[i].fd = -1;
    if (ppoll(polled, 2, wait < 0 ? NULL : &timeout, NULL) < 0 && errno != EINTR) fail("poll");
    for (int i = 0; i < 2; i++) if (polled[i].revents & (POLLIN | POLLHUP | POLLERR) && room(&both[i])) take(&both[i]);
  }
  return 0;
}
