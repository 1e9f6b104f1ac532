// Many ranges of a region in one call, one behind the other in the caller's buffer, each after a gap for a header that
// the caller writes. A range whose bytes are all equal becomes that one byte. It knows no format: what a gap means is
// the caller's.
//
// Hot: no JavaScript and no allocation per range.

#include <cerrno>
#include <cstring>
#include <string>

#include "Arguments.h"
#include "Exports.h"
#include "Mapping.h"
#include "Region.h"

namespace uffd {

namespace {

enum GatherWord : size_t { kRangeOffset, kRangeLength, kRangeGap, kRangeFill, kGatherWords };

napi_value gatherRanges(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* region = call.handle<Region>(0, "region");
  const View<double> ranges = call.doubles(1, "ranges");
  const uint64_t count = call.integer(2, "count");
  const View<uint8_t> into = call.bytes(3, "into");
  const uint64_t at = call.integer(4, "at");
  if (call.failed()) return nullptr;
  if (count > ranges.length / kGatherWords) {
    return call.failRange("ranges holds " + std::to_string(ranges.length / kGatherWords) + " ranges, not " +
                          std::to_string(count));
  }
  const int refused = region->unusable();
  if (refused != 0) return call.number(refused);
  uint64_t end = at;
  uint64_t done = 0;
  for (; done < count; ++done) {
    double* words = ranges.data + done * kGatherWords;
    uint64_t offset = 0;
    uint64_t length = 0;
    uint64_t gap = 0;
    if (!exactInteger(words[kRangeOffset], offset) || !exactInteger(words[kRangeLength], length) || length == 0 ||
        !exactInteger(words[kRangeGap], gap)) {
      return call.failRange("range " + std::to_string(done) + " is not made of whole numbers");
    }
    if (end > into.length || gap > into.length - end || length > into.length - end - gap) break;
    // SAFETY: `gap` and `length` bytes from `end` are in the view, as was just checked; no JavaScript runs meanwhile.
    const int64_t fill = region->hold()->gather(offset, into.data + end + gap, length);
    if (fill < -1) return call.number(static_cast<double>(done > 0 ? static_cast<int64_t>(done) : fill));
    words[kRangeFill] = static_cast<double>(fill);
    end += gap + (fill < 0 ? length : 1);
  }
  return call.number(static_cast<double>(done));
}

}  // namespace

void exportRegionGather(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "gatherRanges", gatherRanges);
  napi_value words = nullptr;
  napi_create_uint32(addon.env(), kGatherWords, &words);
  put(addon.env(), exports, "GATHER_WORDS", words);
}

}  // namespace uffd
