#include "Mapping.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "SharedTable.h"

namespace uffd {

namespace {

// Advice that acts on the range alone and can be lived with afterwards. Left out on purpose: HWPOISON and SOFT_OFFLINE
// act on physical memory, the guards make pages deadly to touch without this object knowing it.
constexpr int kLastPlainAdvice = 4;    // NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED
constexpr int kFirstLinuxAdvice = 8;   // FREE
constexpr int kLastLinuxAdvice = 25;   // COLLAPSE

bool allowed(int advice) {
  return (advice >= 0 && advice <= kLastPlainAdvice) || (advice >= kFirstLinuxAdvice && advice <= kLastLinuxAdvice);
}

struct Span {
  uintptr_t address;
  size_t length;
};

void* unmapSpan(void* data) {
  const std::unique_ptr<Span> span(static_cast<Span*>(data));
  munmap(reinterpret_cast<void*>(span->address), span->length);
  return nullptr;
}

/** False when no thread could be had. The thread waits killably, so that it does not hold up the process's end. */
bool unmapInThread(uintptr_t address, size_t length) {
  auto span = std::make_unique<Span>(Span{address, length});
  pthread_t thread;
  if (pthread_create(&thread, nullptr, unmapSpan, span.get()) != 0) return false;
  span.release();
  pthread_detach(thread);
  return true;
}

}  // namespace

Mapping::Mapping(Kind kind, void* address, size_t length, int fd, size_t pageSize)
    : kind_(kind), address_(reinterpret_cast<uintptr_t>(address)), length_(length), fd_(fd), pageSize_(pageSize) {}

Mapping::~Mapping() {
  if (kind_ == Kind::buffer) return;
  if (fd_ >= 0) close(fd_);
  if (unmapElsewhere_ && unmapInThread(address_, length_)) return;
  munmap(reinterpret_cast<void*>(address_), length_);
}

bool Mapping::stale() const {
  std::shared_lock lock(life_);
  return stale_;
}

int64_t Mapping::check(uint64_t offset, size_t length, bool touches) const {
  if (stale_) return -ESTALE;
  if (offset > length_ || length > length_ - offset) return -ERANGE;
  if (!touches) return 0;
  std::lock_guard lock(spansLock_);
  for (const Span& span : protected_) {
    if (offset < span.end && offset + length > span.start) return -EFAULT;
  }
  return 0;
}

// The kernel rounds lengths up to whole pages, which would act on a neighbour of the range.
int64_t Mapping::checkPages(uint64_t offset, size_t length) const {
  const int64_t inside = check(offset, length, false);
  if (inside < 0) return inside;
  return (address_ + offset) % pageSize_ == 0 && length % pageSize_ == 0 ? 0 : -EINVAL;
}

int64_t Mapping::read(uint64_t offset, uint8_t* into, size_t length) {
  std::shared_lock lock(life_);
  const int64_t refused = check(offset, length, true);
  if (refused < 0) return refused;
  // SAFETY: inside the range, which `life_` keeps; memmove because `into` may be a view of the same memory.
  if (length > 0) std::memmove(into, reinterpret_cast<const void*>(address_ + offset), length);
  return static_cast<int64_t>(length);
}

int64_t Mapping::write(uint64_t offset, const uint8_t* from, size_t length) {
  std::shared_lock lock(life_);
  const int64_t refused = check(offset, length, true);
  if (refused < 0) return refused;
  // SAFETY: as in read.
  if (length > 0) std::memmove(reinterpret_cast<void*>(address_ + offset), from, length);
  return static_cast<int64_t>(length);
}

int64_t Mapping::fillByte(uint64_t offset, size_t length) {
  std::shared_lock lock(life_);
  const int64_t refused = check(offset, length, true);
  if (refused < 0) return refused;
  // SAFETY: inside the range, which `life_` keeps; length is at least 1.
  const auto* first = reinterpret_cast<const uint8_t*>(address_ + offset);
  // All bytes are equal when the range equals itself moved by one; memcmp compares vectors at a time.
  return std::memcmp(first, first + 1, length - 1) == 0 ? *first : -1;
}

int64_t Mapping::gather(uint64_t offset, uint8_t* into, size_t length) {
  std::shared_lock lock(life_);
  const int64_t refused = check(offset, length, true);
  if (refused < 0) return refused;
  // SAFETY: as in fillByte and read.
  const auto* from = reinterpret_cast<const uint8_t*>(address_ + offset);
  if (std::memcmp(from, from + 1, length - 1) == 0) {
    *into = *from;
    return *from;
  }
  std::memmove(into, from, length);
  return -1;
}

int64_t Mapping::advise(uint64_t offset, size_t length, int advice) {
  // Shared, so that a madvise that waits for the reader of its REMOVE event holds up only the owner's end.
  std::shared_lock lock(life_);
  const int64_t refused = checkPages(offset, length);
  if (refused < 0) return refused;
  if (!allowed(advice)) return -EINVAL;
  // SAFETY: whole pages inside the range, which `life_` keeps.
  return madvise(reinterpret_cast<void*>(address_ + offset), length, advice) == 0 ? 0 : -errno;
}

int64_t Mapping::protectNone(uint64_t offset, size_t length) {
  std::shared_lock lock(life_);
  const int64_t refused = checkPages(offset, length);
  if (refused < 0) return refused;
  // Noted before it happens: an access that is checked in between is refused, not killed.
  {
    std::lock_guard spans(spansLock_);
    protected_.push_back({offset, offset + length});
  }
  // SAFETY: as in advise.
  return mprotect(reinterpret_cast<void*>(address_ + offset), length, PROT_NONE) == 0 ? 0 : -errno;
}

void Mapping::end() {
  std::unique_lock lock(life_);
  if (stale_) return;
  stale_ = true;
  if (kind_ != Kind::buffer) return;
  // The allocator that gets the memory back may write to it.
  std::lock_guard spans(spansLock_);
  for (const Span& span : protected_) {
    mprotect(reinterpret_cast<void*>(address_ + span.start), span.end - span.start, PROT_READ | PROT_WRITE);
  }
  protected_.clear();
  registered_.clear();
}

void Mapping::detach() {
  std::unique_lock lock(life_);
  stale_ = true;
}

bool Mapping::abandoned() const {
  if (SharedTable::process().holders(*this) > 0) return false;
  std::lock_guard lock(spansLock_);
  return protected_.empty() && registered_.empty();
}

void Mapping::noteRegistered(uint64_t address, uint64_t length) {
  if (kind_ != Kind::buffer) return;
  unregistered(address, length);
  std::lock_guard lock(spansLock_);
  registered_.push_back({address, address + length});
}

void Mapping::unregistered(uint64_t address, uint64_t length) {
  const uint64_t end = address + length;
  std::lock_guard lock(spansLock_);
  std::vector<Span> left;
  for (const Span& span : registered_) {
    if (span.start < std::min(span.end, address)) left.push_back({span.start, std::min(span.end, address)});
    if (std::max(span.start, end) < span.end) left.push_back({std::max(span.start, end), span.end});
  }
  registered_ = std::move(left);
}

}  // namespace uffd
