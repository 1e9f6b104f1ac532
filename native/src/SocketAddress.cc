// Sockets by address: numeric IPv4 and IPv6, and unix paths. All are non-blocking and close-on-exec.

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"
#include "Failure.h"
#include "Socket.h"

namespace uffd {

namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

/** A numeric address, IPv6 with an optional %zone. Names are not resolved: that would block. */
bool parse(const std::string& host, uint16_t port, Address& address) {
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.length = sizeof *v4;
    return true;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  const size_t zone = host.find('%');
  if (inet_pton(AF_INET6, host.substr(0, zone).c_str(), &v6->sin6_addr) != 1) return false;
  if (zone != std::string::npos) {
    v6->sin6_scope_id = if_nametoindex(host.c_str() + zone + 1);
    if (v6->sin6_scope_id == 0) return false;
  }
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  address.length = sizeof *v6;
  return true;
}

Address tcpAddress(Arguments& call, uint16_t leastPort) {
  Address address;
  const std::string host = call.text(0, "host", 255);
  const auto port = static_cast<uint16_t>(call.integer(1, "port", leastPort, 65535));
  if (!call.failed() && !parse(host, port, address)) {
    call.failRange("host is not a numeric IPv4 or IPv6 address: " + host);
  }
  return address;
}

bool pathAddress(Arguments& call, Address& address, const char* operation) {
  const std::string path = call.text(0, "path", 4096);
  if (call.failed()) return false;
  auto* name = reinterpret_cast<sockaddr_un*>(&address.storage);
  // An empty path would bind to a random abstract name.
  if (path.empty()) return call.failErrno(ENOENT, operation), false;
  if (path.size() >= sizeof name->sun_path) {
    return call.failErrno(ENAMETOOLONG, operation, "a unix socket's path has at most 107 bytes: " + path), false;
  }
  name->sun_family = AF_UNIX;
  std::memcpy(name->sun_path, path.c_str(), path.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return true;
}

/** Closes `fd` and throws errno as it was before. */
napi_value refuse(Arguments& call, int fd, const char* syscall) {
  const int error = errno;
  close(fd);
  return call.failErrno(error, syscall);
}

napi_value connectTcp(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const Address address = tcpAddress(call, 1);
  if (call.failed()) return nullptr;
  const int fd = socket(address.family(), SOCK_STREAM | kSocketFlags, 0);
  if (fd < 0) return call.failErrno(errno, "socket");
  // An interrupted connect goes on in the background, as one in progress does.
  if (connect(fd, address.get(), address.length) < 0 && errno != EINPROGRESS && errno != EINTR) {
    return refuse(call, fd, "connect");
  }
  return Descriptor::wrap(call.addon(), fd);
}

napi_value listenTcp(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const Address address = tcpAddress(call, 0);
  const int backlog = static_cast<int>(call.integer(2, "backlog", 0, 65535));
  if (call.failed()) return nullptr;
  const int fd = socket(address.family(), SOCK_STREAM | kSocketFlags, 0);
  if (fd < 0) return call.failErrno(errno, "socket");
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, address.get(), address.length) < 0) return refuse(call, fd, "bind");
  if (listen(fd, backlog) < 0) return refuse(call, fd, "listen");
  return Descriptor::wrap(call.addon(), fd);
}

napi_value connectUnix(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  Address address;
  if (!pathAddress(call, address, "connect")) return nullptr;
  const int fd = socket(AF_UNIX, SOCK_STREAM | kSocketFlags, 0);
  if (fd < 0) return call.failErrno(errno, "socket");
  int status = 0;
  do status = connect(fd, address.get(), address.length);
  while (status < 0 && errno == EINTR);
  if (status < 0) return refuse(call, fd, "connect");
  return Descriptor::wrap(call.addon(), fd);
}

/**
 * Adds the permission bits that the umask took from the socket file. Through a descriptor of the file itself, so that
 * nothing else is touched when somebody replaced it meanwhile.
 */
int widen(const char* path, mode_t mode) {
  const int file = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0) return -1;
  struct stat status {};
  int result = fstat(file, &status);
  if (result == 0 && S_ISSOCK(status.st_mode) && (status.st_mode & 0777) != mode) {
    result = chmod(("/proc/self/fd/" + std::to_string(file)).c_str(), mode);
  }
  const int error = errno;
  close(file);
  errno = error;
  return result;
}

napi_value listenUnix(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  Address address;
  if (!pathAddress(call, address, "bind")) return nullptr;
  const int backlog = static_cast<int>(call.integer(1, "backlog", 0, 65535));
  const mode_t mode = call.absent(2) ? 0600 : static_cast<mode_t>(call.integer(2, "mode", 0, 0777));
  if (call.failed()) return nullptr;
  const int fd = socket(AF_UNIX, SOCK_STREAM | kSocketFlags, 0);
  if (fd < 0) return call.failErrno(errno, "socket");
  // The file gets the mode of the unbound socket less the umask: never more than asked, not even for an instant, and
  // without the umask, which belongs to all threads.
  if (fchmod(fd, mode) < 0) return refuse(call, fd, "fchmod");
  if (bind(fd, address.get(), address.length) < 0) return refuse(call, fd, "bind");
  const char* path = reinterpret_cast<const sockaddr_un*>(&address.storage)->sun_path;
  const char* failing = widen(path, mode) < 0 ? "chmod" : listen(fd, backlog) < 0 ? "listen" : nullptr;
  if (failing != nullptr) {
    const int error = errno;
    unlink(path);
    errno = error;
    return refuse(call, fd, failing);
  }
  return Descriptor::wrap(call.addon(), fd);
}

napi_value probeUnix(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  Address address;
  if (!pathAddress(call, address, "connect")) return nullptr;
  const int fd = socket(AF_UNIX, SOCK_DGRAM | kSocketFlags, 0);
  if (fd < 0) return call.failErrno(errno, "socket");
  const int error = connect(fd, address.get(), address.length) == 0 ? 0 : errno;
  close(fd);
  // A stream listener refuses a datagram socket by its type, before anything reaches its queue.
  if (error == EPROTOTYPE || error == 0) return call.string("live");
  if (error == ECONNREFUSED) return call.string("stale");
  if (error == ENOENT) return call.string("absent");
  const char* name = errnoName(error);
  return call.string(name != nullptr ? name : "E" + std::to_string(error));
}

napi_value localAddress(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* socket = call.handle<Descriptor>(0, "socket");
  if (call.failed()) return nullptr;
  Address address;
  address.length = sizeof address.storage;
  if (getsockname(socket->fd(), reinterpret_cast<sockaddr*>(&address.storage), &address.length) < 0) {
    return call.failErrno(errno, "getsockname");
  }
  napi_value result = nullptr;
  napi_create_object(env, &result);
  if (address.family() == AF_UNIX) {
    const auto* name = reinterpret_cast<const sockaddr_un*>(&address.storage);
    const size_t length = address.length - offsetof(sockaddr_un, sun_path);
    // A socket that was never bound has no name at all, an abstract one starts with NUL; neither is a path.
    put(env, result, "family", call.string("unix"));
    put(env, result, "path", call.string(std::string(name->sun_path, strnlen(name->sun_path, length))));
    return result;
  }
  if (address.family() != AF_INET && address.family() != AF_INET6) return call.failErrno(EAFNOSUPPORT, "getsockname");
  const bool v4 = address.family() == AF_INET;
  const auto* in4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
  const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
  char host[INET6_ADDRSTRLEN] = "";
  inet_ntop(address.family(), v4 ? static_cast<const void*>(&in4->sin_addr) : &in6->sin6_addr, host, sizeof host);
  put(env, result, "family", call.string(v4 ? "IPv4" : "IPv6"));
  put(env, result, "host", call.string(host));
  put(env, result, "port", call.number(ntohs(v4 ? in4->sin_port : in6->sin6_port)));
  return result;
}

}  // namespace

void exportSocketAddress(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "connectTcp", connectTcp);
  exportFunction(addon, exports, "listenTcp", listenTcp);
  exportFunction(addon, exports, "connectUnix", connectUnix);
  exportFunction(addon, exports, "listenUnix", listenUnix);
  exportFunction(addon, exports, "probeUnix", probeUnix);
  exportFunction(addon, exports, "localAddress", localAddress);
}

}  // namespace uffd
