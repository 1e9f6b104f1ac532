// Many ranges of a region to a stream socket in one call, from where they lie.
//
// Hot: no JavaScript, no allocation, and no copy of what the socket takes.

#include <cerrno>
#include <string>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "Mapping.h"
#include "RangeVector.h"
#include "Region.h"

namespace uffd::exchange {

namespace {

constexpr size_t kRangeWords = 4;
/** Ranges of one call. */
constexpr size_t kMostRanges = 64;
using Vector = RangeVector<kMostRanges>;

/** With the memory held: 0 or -errno; -EINVAL for a range that is not made of whole numbers. */
int64_t gatherInto(Vector& vector, const Mapping& memory, View<double> ranges, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    double* words = ranges.data + i * kRangeWords;
    uint64_t offset = 0;
    uint64_t length = 0;
    uint64_t gap = 0;
    if (!exactInteger(words[0], offset) || !exactInteger(words[1], length) || length == 0 ||
        !exactInteger(words[2], gap)) {
      return -EINVAL;
    }
    const int64_t byte = vector.add(memory, offset, length);
    if (byte < -1) return byte + 1;
    words[3] = static_cast<double>(byte);
  }
  return 0;
}

napi_value sendRanges(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* link = call.handle<Descriptor>(0, "link");
  auto* region = call.handle<Region>(1, "region");
  const View<double> ranges = call.doubles(2, "ranges");
  const uint64_t count = call.integer(3, "count", 1, kMostRanges);
  const uint64_t flags = call.integer(4, "flags", 0, 0xffff);
  const uint64_t fillFlags = call.integer(5, "fillFlags", 0, 0xffff);
  const View<uint8_t> rest = call.bytes(6, "rest");
  if (call.failed()) return nullptr;
  if (count > ranges.length / kRangeWords) {
    return call.failRange("ranges holds " + std::to_string(ranges.length / kRangeWords) + " ranges, not " +
                          std::to_string(count));
  }
  if (link->fd() < 0) return call.number(-EBADF);
  const int refused = region->unusable();
  if (refused != 0) return call.number(refused);
  Vector vector;
  vector.begin(flags, fillFlags);
  const Mapping& memory = *region->hold();
  const int64_t left = memory.whileAlive([&]() -> int64_t {
    const int64_t status = gatherInto(vector, memory, ranges, count);
    if (status < 0) return status;
    const int64_t left = vector.send(link->fd(), rest);
    return left == -EAGAIN ? static_cast<int64_t>(vector.keep(0, rest)) : left;
  });
  if (left == -EINVAL) return call.failRange("a range is not made of whole numbers");
  return call.number(static_cast<double>(left));
}

}  // namespace

}  // namespace uffd::exchange

namespace uffd {

void exportSendRanges(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "sendRanges", exchange::sendRanges);
}

}  // namespace uffd
