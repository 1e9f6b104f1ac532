// What a descriptor or a socket is and how it stands.

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "Arguments.h"
#include "Descriptor.h"
#include "Exports.h"

namespace uffd {

namespace {

/** An integer socket option, or nothing and errno. */
std::optional<int> option(int fd, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0) return std::nullopt;
  return value;
}

napi_value socketError(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* socket = call.handle<Descriptor>(0, "socket");
  if (call.failed()) return nullptr;
  const std::optional<int> error = option(socket->fd(), SO_ERROR);
  return error ? call.number(*error) : call.failErrno(errno, "getsockopt SO_ERROR");
}

napi_value unsentBytes(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* socket = call.handle<Descriptor>(0, "socket");
  if (call.failed()) return nullptr;
  int bytes = 0;
  // TIOCOUTQ is the same number as SIOCOUTQ, and needs no header of the kernel.
  return call.number(ioctl(socket->fd(), TIOCOUTQ, &bytes) == 0 ? bytes : -errno);
}

const char* kindOf(int fd, mode_t mode) {
  if (S_ISSOCK(mode)) return "socket";
  if (S_ISFIFO(mode)) return "pipe";
  if (S_ISREG(mode)) return "file";
  return S_ISCHR(mode) && isatty(fd) ? "tty" : "other";
}

napi_value describe(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* descriptor = call.handle<Descriptor>(0, "descriptor");
  if (call.failed()) return nullptr;
  const int fd = descriptor->fd();
  struct stat status {};
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fstat(fd, &status) < 0) return call.failErrno(errno, flags < 0 ? "fcntl F_GETFL" : "fstat");
  const int access = flags & O_ACCMODE;
  const bool isSocket = S_ISSOCK(status.st_mode);
  const int type = isSocket ? option(fd, SO_TYPE).value_or(0) : 0;
  const int domain = isSocket ? option(fd, SO_DOMAIN).value_or(0) : 0;
  const bool tcp = (domain == AF_INET || domain == AF_INET6) && option(fd, SO_PROTOCOL) == IPPROTO_TCP;
  napi_value result = nullptr;
  napi_create_object(env, &result);
  put(env, result, "access", call.string(access == O_RDWR ? "rw" : access == O_WRONLY ? "w" : "r"));
  put(env, result, "kind", call.string(kindOf(fd, status.st_mode)));
  put(env, result, "socketType", call.number(type));
  put(env, result, "family", isSocket ? call.string(domain == AF_UNIX ? "unix" : tcp ? "tcp" : "other") : call.null());
  put(env, result, "listening", call.boolean(isSocket && option(fd, SO_ACCEPTCONN).value_or(0) != 0));
  return result;
}

napi_value peerCredentials(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* socket = call.handle<Descriptor>(0, "socket");
  if (call.failed()) return nullptr;
  const std::optional<int> domain = option(socket->fd(), SO_DOMAIN);
  if (!domain) return call.failErrno(errno, "getsockopt SO_PEERCRED");
  ucred credentials{};
  socklen_t size = sizeof credentials;
  // Other families answer too, with nobody's numbers.
  if (*domain != AF_UNIX) return call.failErrno(ENOTSUP, "getsockopt SO_PEERCRED", "not a unix socket");
  if (getsockopt(socket->fd(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) {
    return call.failErrno(errno, "getsockopt SO_PEERCRED");
  }
  if (credentials.pid == 0) return call.failErrno(ENOTCONN, "getsockopt SO_PEERCRED");
  napi_value result = nullptr;
  napi_create_object(env, &result);
  put(env, result, "pid", call.number(credentials.pid));
  put(env, result, "uid", call.number(credentials.uid));
  put(env, result, "gid", call.number(credentials.gid));
  return result;
}

}  // namespace

void exportSocketState(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "socketError", socketError);
  exportFunction(addon, exports, "unsentBytes", unsentBytes);
  exportFunction(addon, exports, "describe", describe);
  exportFunction(addon, exports, "peerCredentials", peerCredentials);
}

}  // namespace uffd
