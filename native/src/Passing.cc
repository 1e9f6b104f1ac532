// Descriptors over unix sockets (SCM_RIGHTS of unix(7)).

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"

namespace uffd {

namespace {

/** SCM_MAX_FD: the most that one message carries. */
constexpr size_t kMost = 253;

/** The elements of an array, all of them Descriptors. Runs JavaScript when an element is a getter. */
std::vector<Descriptor*> descriptorsOf(Arguments& call, size_t index) {
  std::vector<Descriptor*> descriptors;
  bool is = false;
  uint32_t length = 0;
  if (call.failed()) return descriptors;
  if (napi_is_array(call.env(), call[index], &is) != napi_ok || !is ||
      napi_get_array_length(call.env(), call[index], &length) != napi_ok) {
    call.failType("descriptors is not an array");
    return descriptors;
  }
  if (length > kMost) {
    call.failRange("one message carries at most 253 descriptors, not " + std::to_string(length));
    return descriptors;
  }
  for (uint32_t i = 0; i < length; ++i) {
    napi_value value = nullptr;
    if (napi_get_element(call.env(), call[index], i, &value) != napi_ok) {
      call.fail();
      return {};
    }
    // SAFETY: `value` stays in the callback's handle scope, so what it owns is not collected before the send.
    auto* descriptor = static_cast<Descriptor*>(call.require(ClassId::descriptor, value, "an element", "Descriptor"));
    if (descriptor == nullptr) return {};
    descriptors.push_back(descriptor);
  }
  return descriptors;
}

napi_value sendDescriptors(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* socket = call.handle<Descriptor>(0, "socket");
  const std::vector<Descriptor*> descriptors = descriptorsOf(call, 2);
  const View<uint8_t> data = call.bytes(1, "data");
  if (call.failed()) return nullptr;
  if (data.length == 0) return call.failRange("data is empty: descriptors travel with at least one byte");

  int numbers[kMost];
  for (size_t i = 0; i < descriptors.size(); ++i) {
    numbers[i] = descriptors[i]->fd();
    if (numbers[i] < 0) return call.number(-EBADF);
  }
  iovec part{data.data, data.length};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof numbers)] = {};
  if (!descriptors.empty()) {
    const size_t size = descriptors.size() * sizeof(int);
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(size);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(header), numbers, size);
  }
  ssize_t sent = 0;
  do sent = sendmsg(socket->fd(), &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return call.number(static_cast<double>(sent < 0 ? -errno : sent));
}

/** Every number that arrived, whatever the message says about itself: each is open and needs an owner. */
std::vector<int> numbersOf(msghdr& message) {
  std::vector<int> numbers;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    const size_t before = numbers.size();
    numbers.resize(before + count);
    std::memcpy(numbers.data() + before, CMSG_DATA(header), count * sizeof(int));
  }
  return numbers;
}

napi_value receiveDescriptors(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* socket = call.handle<Descriptor>(0, "socket");
  const uint64_t most = call.absent(2) ? kMost : call.integer(2, "most", 0, kMost);
  const View<uint8_t> into = call.bytes(1, "into");
  if (call.failed()) return nullptr;
  if (into.length == 0) return call.failRange("into is empty: 0 bytes would read as the end of the file");

  iovec part{into.data, into.length};
  // Room for a header and the numbers wanted, no padding: the kernel drops and reports every further one.
  alignas(cmsghdr) char control[CMSG_SPACE(kMost * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_LEN(most * sizeof(int));
  ssize_t bytes = 0;
  do bytes = recvmsg(socket->fd(), &message, MSG_CMSG_CLOEXEC);
  while (bytes < 0 && errno == EINTR);
  const int error = errno;

  napi_value result = nullptr;
  napi_value list = nullptr;
  napi_create_object(env, &result);
  napi_create_array(env, &list);
  if (bytes >= 0) {
    uint32_t index = 0;
    for (const int number : numbersOf(message)) {
      // Also after a failure: every number gets its owner, which closes it at once when no object can be made.
      napi_value descriptor = Descriptor::wrap(call.addon(), number);
      if (descriptor == nullptr) {
        call.fail();
      } else {
        napi_set_element(env, list, index++, descriptor);
      }
    }
    if (call.failed()) return nullptr;
  }
  put(env, result, "bytes", call.number(static_cast<double>(bytes < 0 ? -error : bytes)));
  put(env, result, "descriptors", list);
  put(env, result, "truncated", call.boolean(bytes >= 0 && (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0));
  return result;
}

}  // namespace

void exportPassing(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "sendDescriptors", sendDescriptors);
  exportFunction(addon, exports, "receiveDescriptors", receiveDescriptors);
}

}  // namespace uffd
