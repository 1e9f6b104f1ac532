// What both ends of an exchange of pages share: big-endian words, bitmaps, and the log that a call leaves behind.
//
// The exchange: a request is a command byte, be32 count and as many be64 page numbers; a page is a be64, its offset in
// the block with flags in the low bits, and either its bytes or the one byte that it repeats. Command and flags are the
// caller's.
#pragma once

#include <cstdint>
#include <cstring>

#include "Arguments.h"

namespace uffd::exchange {

/** Bytes before the page numbers of a request. */
constexpr size_t kRequestHead = 5;
constexpr size_t kWord = 8;
/** Log entries that a call leaves room for, at the least. */
constexpr size_t kMostAtOnce = 16;
/**
 * The longest a call may last in all, and wait for one thing. Nanoseconds. After it somebody waits until the caller has
 * carried out the log: so long that this is one fault in some hundred, and so short that timers do not suffer.
 */
constexpr int64_t kTurn = 8'000'000;

/** How long a plan waits for each thing at most: below 0 asleep, else without sleeping. False when it is no such number. */
inline bool readPatience(double word, uint64_t& nanos, bool& sleeps) {
  sleeps = word < 0;
  return exactInteger(sleeps ? -word : word, nanos) && nanos <= kTurn;
}

inline uint64_t getWord(const uint8_t* from) {
  uint64_t word = 0;
  std::memcpy(&word, from, sizeof word);
  return __builtin_bswap64(word);
}
inline void putWord(uint8_t* into, uint64_t word) {
  word = __builtin_bswap64(word);
  std::memcpy(into, &word, sizeof word);
}
inline uint32_t getHalf(const uint8_t* from) {
  uint32_t half = 0;
  std::memcpy(&half, from, sizeof half);
  return __builtin_bswap32(half);
}
inline void putHalf(uint8_t* into, uint32_t half) {
  half = __builtin_bswap32(half);
  std::memcpy(into, &half, sizeof half);
}

/** Bit `i & 31` of 32-bit word `i >> 5`, in the machine's byte order, which is little-endian; false beyond the end. */
inline bool test(View<uint8_t> bits, uint64_t index) {
  return index / 8 < bits.length && (bits.data[index / 8] >> (index % 8) & 1) != 0;
}

/** Entries of four numbers behind the fixed ones of a plan. */
class Log {
 public:
  static constexpr size_t kEntry = 4;
  Log(View<double> plan, size_t fixed) : at_(plan.data + fixed), room_((plan.length - fixed) / kEntry) {}

  bool hasRoom(size_t entries = kMostAtOnce) const { return count_ + entries <= room_; }
  size_t count() const { return count_; }
  void add(double a, double b, double c, double d) {
    double* to = at_ + kEntry * count_++;
    to[0] = a;
    to[1] = b;
    to[2] = c;
    to[3] = d;
  }

 private:
  double* at_;
  size_t room_;
  size_t count_ = 0;
};

}  // namespace uffd::exchange
