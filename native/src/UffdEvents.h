// Pending messages of a userfaultfd as plain numbers in a JavaScript array.
#pragma once

#include <cstddef>
#include <cstdint>

#include "Arguments.h"
#include "UffdAbi.h"

namespace uffd {

/** Numbers an event takes: event, a, b, c. */
constexpr size_t kEventWords = 4;

/** Writes one message as `kEventWords` numbers; of a fork it notes the new descriptor. */
void decodeEvent(Addon& addon, const abi::Message& message, double* words);

/** Reads what is pending, as far as `into` has room: the number of events, or -errno when the first read fails. */
int64_t readEvents(Addon& addon, int fd, View<double> into);

}  // namespace uffd
