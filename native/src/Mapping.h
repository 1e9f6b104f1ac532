// A range of this process's memory that several environments may hold: mapped by this package, or the memory of an
// ArrayBuffer. Process-wide and touched by any thread; SharedTable counts its holders.
//
// Lifetime. A mapped range lives as long as this object, so whoever has a Hold may touch it. The memory of an
// ArrayBuffer belongs to an environment that may end first: every access holds `life_` shared, and the end of the
// environment takes it exclusively, marks the mapping stale and only then lets the buffer go. An access parked in a
// page fault therefore delays the end of that environment instead of reading freed memory.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <vector>

namespace uffd {

class Mapping {
 public:
  enum class Kind { anonymous, file, buffer };

  /** Takes over the mapping and `fd` (-1: none). For Kind::buffer neither is owned. */
  Mapping(Kind kind, void* address, size_t length, int fd, size_t pageSize);
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  /**
   * Unmaps. Where a registration asked for UNMAP events the kernel makes that wait for their reader, who may be the
   * very thread that is here, in a finalizer perhaps: a thread of its own waits then.
   */
  ~Mapping();
  void unmapElsewhere() { unmapElsewhere_ = true; }

  Kind kind() const { return kind_; }
  /** Bytes of a page: the host's, or of a huge page. */
  size_t pageSize() const { return pageSize_; }
  uintptr_t address() const { return address_; }
  size_t length() const { return length_; }
  int fd() const { return fd_; }
  bool stale() const;

  // Signed results: a count or -errno. -ESTALE: the owner is gone; -ERANGE: outside; -EFAULT: made inaccessible.
  int64_t read(uint64_t offset, uint8_t* into, size_t length);
  int64_t write(uint64_t offset, const uint8_t* from, size_t length);
  int64_t fillByte(uint64_t offset, size_t length);
  /** Copies the range, or of a uniform one that byte alone, which it then returns; -1 otherwise, below it -errno. */
  int64_t gather(uint64_t offset, uint8_t* into, size_t length);
  int64_t advise(uint64_t offset, size_t length, int advice);
  /** Within `whileAlive`: 0 when the range may be read where it lies, or -errno. */
  int64_t readable(uint64_t offset, size_t length) const { return check(offset, length, true); }
  int64_t protectNone(uint64_t offset, size_t length);

  /**
   * Runs `act` (0 or more, or -errno) while the memory cannot go away; -ESTALE when it has gone.
   */
  template <class Act>
  int64_t whileAlive(Act&& act) const {
    std::shared_lock lock(life_);
    return stale_ ? -ESTALE : static_cast<int64_t>(act());
  }
  /** The same for an `act` that registers a range, by address, with a userfaultfd. */
  template <class Act>
  int64_t registering(uint64_t address, uint64_t length, Act&& act) {
    return whileAlive([&]() -> int64_t {
      const int64_t status = act();
      if (status >= 0) noteRegistered(address, length);
      return status;
    });
  }
  void unregistered(uint64_t address, uint64_t length);

  /** The owner's environment ends: pages become accessible again for whoever frees them, and stale for us. */
  void end();
  /** The buffer was detached, and the memory may be somebody else's: no access from here on. */
  void detach();
  /**
   * Nobody holds it, its pages are accessible and none is registered, so the buffer may be given back to the garbage
   * collector: whoever gets the memory next would wait at a missing page for ever.
   */
  bool abandoned() const;

 private:
  friend class SharedTable;
  struct Span {
    uint64_t start;
    uint64_t end;
  };
  int64_t check(uint64_t offset, size_t length, bool touches) const;
  int64_t checkPages(uint64_t offset, size_t length) const;
  void noteRegistered(uint64_t address, uint64_t length);

  const Kind kind_;
  const uintptr_t address_;
  const size_t length_;
  const int fd_;
  const size_t pageSize_;
  std::atomic<bool> unmapElsewhere_ = false;
  mutable std::shared_mutex life_;
  bool stale_ = false;
  mutable std::mutex spansLock_;
  std::vector<Span> protected_;
  /** Of Kind::buffer alone: mapped memory takes its registrations with it. */
  std::vector<Span> registered_;
  /** Guarded by the table's lock. */
  uint64_t token_ = 0;
  size_t holders_ = 0;
};

}  // namespace uffd
