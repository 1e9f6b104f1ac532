#include "Failure.h"

#include <cctype>
#include <cerrno>
#include <cstring>

namespace uffd {

namespace {

struct Name {
  int error;
  const char* name;
};

// Aliases (EWOULDBLOCK, EDEADLOCK, ENOTSUP) are left out: the name on the left of errno(3) is the one given.
#define N(name) {name, #name}
constexpr Name kNames[] = {
    N(EPERM), N(ENOENT), N(ESRCH), N(EINTR), N(EIO), N(ENXIO), N(E2BIG), N(ENOEXEC), N(EBADF), N(ECHILD), N(EAGAIN),
    N(ENOMEM), N(EACCES), N(EFAULT), N(ENOTBLK), N(EBUSY), N(EEXIST), N(EXDEV), N(ENODEV), N(ENOTDIR), N(EISDIR),
    N(EINVAL), N(ENFILE), N(EMFILE), N(ENOTTY), N(ETXTBSY), N(EFBIG), N(ENOSPC), N(ESPIPE), N(EROFS), N(EMLINK),
    N(EPIPE), N(EDOM), N(ERANGE), N(EDEADLK), N(ENAMETOOLONG), N(ENOLCK), N(ENOSYS), N(ENOTEMPTY), N(ELOOP), N(ENOMSG),
    N(EIDRM), N(ENOSTR), N(ENODATA), N(ETIME), N(ENOSR), N(EREMOTE), N(ENOLINK), N(EPROTO), N(EMULTIHOP), N(EBADMSG),
    N(EOVERFLOW), N(ENOTUNIQ), N(EBADFD), N(EREMCHG), N(EILSEQ), N(ERESTART), N(EUSERS), N(ENOTSOCK), N(EDESTADDRREQ),
    N(EMSGSIZE), N(EPROTOTYPE), N(ENOPROTOOPT), N(EPROTONOSUPPORT), N(ESOCKTNOSUPPORT), N(EPFNOSUPPORT),
    N(EAFNOSUPPORT), N(EADDRINUSE), N(EADDRNOTAVAIL), N(ENETDOWN), N(ENETUNREACH), N(ENETRESET), N(ECONNABORTED),
    N(ECONNRESET), N(ENOBUFS), N(EISCONN), N(ENOTCONN), N(ESHUTDOWN), N(ETOOMANYREFS), N(ETIMEDOUT), N(ECONNREFUSED),
    N(EHOSTDOWN), N(EHOSTUNREACH), N(EALREADY), N(EINPROGRESS), N(ESTALE), N(EUCLEAN), N(EREMOTEIO), N(EDQUOT),
    N(ENOMEDIUM), N(EMEDIUMTYPE), N(ECANCELED), N(ENOKEY), N(EKEYEXPIRED), N(EKEYREVOKED), N(EKEYREJECTED),
    N(EOWNERDEAD), N(ENOTRECOVERABLE), N(ERFKILL), N(EHWPOISON),
    // The kernel has one number for both; ENOTSUP is what the documentation of this package promises.
    {EOPNOTSUPP, "ENOTSUP"}};
#undef N

napi_value text(napi_env env, const std::string& value) {
  napi_value result = nullptr;
  napi_create_string_utf8(env, value.data(), value.size(), &result);
  return result;
}

// strerror_r comes in two forms: glibc returns the text, which need not be in the buffer, musl and POSIX a status.
[[maybe_unused]] const char* explained(const char* text, const char*) { return text; }
[[maybe_unused]] const char* explained(int status, const char* buffer) { return status == 0 ? buffer : "unknown error"; }

// strerror(3) of a fixed locale starts with a capital; messages of this package start lower case.
std::string explain(int error) {
  char buffer[128] = "";
  std::string words = explained(strerror_r(error, buffer, sizeof buffer), buffer);
  if (words.size() > 1 && std::islower(static_cast<unsigned char>(words[1]))) {
    words[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(words[0])));
  }
  return words;
}

}  // namespace

const char* errnoName(int error) {
  for (const Name& entry : kNames) {
    if (entry.error == error) return entry.name;
  }
  return nullptr;
}

void throwErrno(napi_env env, int error, const char* syscall, const std::string& detail) {
  const char* known = errnoName(error);
  const std::string code = known != nullptr ? known : "E" + std::to_string(error);
  std::string message = code + ": " + explain(error) + ", " + syscall;
  if (!detail.empty()) message += " (" + detail + ")";
  napi_value failure = nullptr;
  napi_value number = nullptr;
  if (napi_create_error(env, text(env, code), text(env, message), &failure) != napi_ok) return;
  napi_create_int32(env, error, &number);
  napi_set_named_property(env, failure, "errno", number);
  napi_set_named_property(env, failure, "syscall", text(env, syscall));
  napi_throw(env, failure);
}

void throwType(napi_env env, const std::string& message) {
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message.c_str());
}

void throwRange(napi_env env, const std::string& message) {
  napi_throw_range_error(env, "ERR_OUT_OF_RANGE", message.c_str());
}

}  // namespace uffd
