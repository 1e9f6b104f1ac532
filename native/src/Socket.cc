// Sockets whatever their address: pairs, accepting, shutting down, options.

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <climits>
#include <string>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "Socket.h"

namespace uffd {

namespace {

napi_value socketPair(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const int type = static_cast<int>(call.integer(0, "type", 1, 5));
  if (call.failed()) return nullptr;
  // The kernel takes a raw unix socket for a datagram one.
  if (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET) {
    return call.failRange("type is not SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET: " + std::to_string(type));
  }
  int pair[2];
  if (::socketpair(AF_UNIX, type | kSocketFlags, 0, pair) < 0) return call.failErrno(errno, "socketpair");
  napi_value list = nullptr;
  // Both get their owner before anything can fail.
  napi_value one = Descriptor::wrap(call.addon(), pair[0]);
  napi_value other = Descriptor::wrap(call.addon(), pair[1]);
  if (one == nullptr || other == nullptr) return call.fail();
  napi_create_array_with_length(env, 2, &list);
  napi_set_element(env, list, 0, one);
  napi_set_element(env, list, 1, other);
  return list;
}

napi_value acceptOne(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* listener = call.handle<Descriptor>(0, "listener");
  if (call.failed()) return nullptr;
  int fd = -1;
  // A connection that was aborted while it waited is none.
  do fd = accept4(listener->fd(), nullptr, nullptr, kSocketFlags);
  while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  if (fd < 0) return errno == EAGAIN ? call.null() : call.failErrno(errno, "accept4");
  return Descriptor::wrap(call.addon(), fd);
}

napi_value shutdownSocket(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* socket = call.handle<Descriptor>(0, "socket");
  const int how = static_cast<int>(call.integer(1, "how", 0, 2));
  if (call.failed()) return nullptr;
  if (::shutdown(socket->fd(), how) < 0) return call.failErrno(errno, "shutdown");
  return call.undefined();
}

napi_value setNonBlocking(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* descriptor = call.handle<Descriptor>(0, "descriptor");
  const bool on = call.boolean(1, "on");
  if (call.failed()) return nullptr;
  const int flags = fcntl(descriptor->fd(), F_GETFL);
  if (flags < 0) return call.failErrno(errno, "fcntl F_GETFL");
  if (fcntl(descriptor->fd(), F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0) {
    return call.failErrno(errno, "fcntl F_SETFL");
  }
  return call.undefined();
}

struct Option {
  const char* key;
  const char* syscall;
  int level;
  int name;
  bool flag;
};

constexpr Option kOptions[] = {
    {"noDelay", "setsockopt TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, true},
    {"quickAck", "setsockopt TCP_QUICKACK", IPPROTO_TCP, TCP_QUICKACK, true},
    {"sendBuffer", "setsockopt SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, false},
    {"receiveBuffer", "setsockopt SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, false},
    {"notSentLowWater", "setsockopt TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, false}};

napi_value setSocketOptions(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* socket = call.handle<Descriptor>(0, "socket");
  if (!call.failed() && call.absent(1)) return call.failType("options is not an object");
  std::optional<int> values[std::size(kOptions)];
  // All are read before the first is set: a wrong one changes nothing, and getters have run.
  if (call.object(1, "options")) {
    for (size_t i = 0; i < std::size(kOptions); ++i) {
      const auto flag = kOptions[i].flag ? call.booleanOption(1, kOptions[i].key) : std::nullopt;
      const auto number = kOptions[i].flag ? std::nullopt : call.integerOption(1, kOptions[i].key, 0, INT_MAX);
      if (flag) values[i] = *flag ? 1 : 0;
      if (number) values[i] = static_cast<int>(*number);
    }
  }
  if (call.failed()) return nullptr;
  if (socket->fd() < 0) return call.failErrno(EBADF, "setsockopt");
  for (size_t i = 0; i < std::size(kOptions); ++i) {
    const Option& option = kOptions[i];
    if (!values[i]) continue;
    const int value = *values[i];
    if (setsockopt(socket->fd(), option.level, option.name, &value, sizeof value) < 0) {
      return call.failErrno(errno, option.syscall);
    }
  }
  return call.undefined();
}

}  // namespace

void exportSocket(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "socketpair", socketPair);
  exportFunction(addon, exports, "accept", acceptOne);
  exportFunction(addon, exports, "shutdown", shutdownSocket);
  exportFunction(addon, exports, "setNonBlocking", setNonBlocking);
  exportFunction(addon, exports, "setSocketOptions", setSocketOptions);
}

}  // namespace uffd
