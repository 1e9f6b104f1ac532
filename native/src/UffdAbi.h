// The kernel's userfaultfd interface as of Linux 6.18: numbers and layouts of ioctl_userfaultfd(2) and userfaultfd(2).
// Written out here because a distribution's header may be years older than the kernel that runs. Feature and ioctl bits
// that are not listed are passed through, never refused.
#pragma once

#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <cstdint>

namespace uffd::abi {

constexpr uint64_t kApiVersion = 0xaa;
constexpr int kUserModeOnly = 1;

struct Api {
  uint64_t api;
  uint64_t features;
  uint64_t ioctls;
};
struct Range {
  uint64_t start;
  uint64_t length;
};
struct Register {
  Range range;
  uint64_t mode;
  uint64_t ioctls;
};
struct Copy {
  uint64_t to;
  uint64_t from;
  uint64_t length;
  uint64_t mode;
  int64_t done;
};
/** ZEROPAGE, CONTINUE and POISON have one layout. */
struct Fill {
  Range range;
  uint64_t mode;
  int64_t done;
};
struct WriteProtect {
  Range range;
  uint64_t mode;
};
struct Move {
  uint64_t to;
  uint64_t from;
  uint64_t length;
  uint64_t mode;
  int64_t done;
};
struct Message {
  uint8_t event;
  uint8_t reserved[7];
  union {
    struct {
      uint64_t flags;
      uint64_t address;
      uint32_t thread;
    } pagefault;
    struct {
      uint32_t fd;
    } fork;
    struct {
      uint64_t from;
      uint64_t to;
      uint64_t length;
    } remap;
    struct {
      uint64_t start;
      uint64_t end;
    } remove;
  };
};
static_assert(sizeof(Api) == 24 && sizeof(Range) == 16 && sizeof(Register) == 32);
static_assert(sizeof(Copy) == 40 && sizeof(Fill) == 32 && sizeof(Message) == 32);
static_assert(sizeof(WriteProtect) == 24 && sizeof(Move) == 40);

constexpr unsigned long kNew = _IO(0xaa, 0x00);  // of /dev/userfaultfd
constexpr unsigned long kApi = _IOWR(0xaa, 0x3f, Api);
constexpr unsigned long kRegister = _IOWR(0xaa, 0x00, Register);
constexpr unsigned long kUnregister = _IOR(0xaa, 0x01, Range);
constexpr unsigned long kWake = _IOR(0xaa, 0x02, Range);
constexpr unsigned long kCopy = _IOWR(0xaa, 0x03, Copy);
constexpr unsigned long kZeropage = _IOWR(0xaa, 0x04, Fill);
constexpr unsigned long kMove = _IOWR(0xaa, 0x05, Move);
constexpr unsigned long kWriteProtect = _IOWR(0xaa, 0x06, WriteProtect);
constexpr unsigned long kContinue = _IOWR(0xaa, 0x07, Fill);
constexpr unsigned long kPoison = _IOWR(0xaa, 0x08, Fill);
static_assert(kApi == 0xc018aa3f && kRegister == 0xc020aa00 && kUnregister == 0x8010aa01 && kWake == 0x8010aa02);
static_assert(kCopy == 0xc028aa03 && kZeropage == 0xc020aa04 && kContinue == 0xc020aa07 && kPoison == 0xc020aa08);
static_assert(kMove == 0xc028aa05 && kWriteProtect == 0xc018aa06);

/** What UFFDIO_REGISTER waits for in a range. */
enum Mode : uint64_t { kModeMissing = 1, kModeWp = 2, kModeMinor = 4 };
/** What else than a missing page a fault is of. */
enum FaultFlag : uint64_t { kFaultWp = 2, kFaultMinor = 4 };
/** Bits of the modes of COPY and CONTINUE; in all the others bit 0 means the same, except in WRITEPROTECT. */
enum Resolve : uint64_t { kDontWake = 1, kWithWp = 2 };
/** Without kProtect the protection is taken away, and whoever waits at it goes on. */
enum Protect : uint64_t { kProtect = 1, kProtectDontWake = 2 };
enum MoveMode : uint64_t { kMoveDontWake = 1, kMoveAllowSourceHoles = 2 };

enum Event : uint8_t { kPagefault = 0x12, kFork = 0x13, kRemap = 0x14, kRemove = 0x15, kUnmap = 0x16 };

enum Feature : uint64_t {
  kFeaturePagefaultFlagWp = 1 << 0,
  kFeatureEventFork = 1 << 1,
  kFeatureEventRemap = 1 << 2,
  kFeatureEventRemove = 1 << 3,
  kFeatureMissingHugetlbfs = 1 << 4,
  kFeatureMissingShmem = 1 << 5,
  kFeatureEventUnmap = 1 << 6,
  kFeatureSigbus = 1 << 7,
  kFeatureThreadId = 1 << 8,
  kFeatureMinorHugetlbfs = 1 << 9,
  kFeatureMinorShmem = 1 << 10,
  kFeatureExactAddress = 1 << 11,
  kFeatureWpHugetlbfsShmem = 1 << 12,
  kFeatureWpUnpopulated = 1 << 13,
  kFeaturePoison = 1 << 14,
  kFeatureWpAsync = 1 << 15,
  kFeatureMove = 1 << 16
};

}  // namespace uffd::abi
