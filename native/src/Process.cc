// Acts on the whole process or the calling thread: leaving, replacing the image, who and when.

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string>
#include <vector>

#include "Arguments.h"
#include "Exports.h"

namespace uffd {

namespace {

/** Far above what execve(2) takes; keeps a wrong array from being copied at length. */
constexpr uint32_t kMostStrings = 65536;
/** MAX_ARG_STRLEN: the longest single string of execve(2). */
constexpr size_t kMostBytes = 131071;

napi_value exitNow(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  const int status = static_cast<int>(call.integer(0, "status", 0, 255));
  if (call.failed()) return nullptr;
  _exit(status);
}

/** The elements of an array of strings. Runs JavaScript when an element is a getter. */
std::vector<std::string> stringsOf(Arguments& call, napi_value array, const char* name) {
  std::vector<std::string> strings;
  bool is = false;
  uint32_t length = 0;
  if (call.failed()) return strings;
  if (napi_is_array(call.env(), array, &is) != napi_ok || !is ||
      napi_get_array_length(call.env(), array, &length) != napi_ok) {
    call.failType(std::string(name) + " is not an array");
    return strings;
  }
  if (length > kMostStrings) call.failRange(std::string(name) + " has more than 65536 elements");
  for (uint32_t i = 0; i < length && !call.failed(); ++i) {
    napi_value value = nullptr;
    if (napi_get_element(call.env(), array, i, &value) != napi_ok) {
      call.fail();
      break;
    }
    strings.push_back(call.textOf(value, name, kMostBytes));
  }
  return strings;
}

/** NAME=value of every own enumerable property. */
std::vector<std::string> environmentOf(Arguments& call, size_t index) {
  std::vector<std::string> result;
  if (!call.failed() && call.absent(index)) call.failType("env is not an object");
  if (!call.object(index, "env")) return result;
  napi_value names = nullptr;
  if (napi_get_all_property_names(call.env(), call[index], napi_key_own_only,
                                  static_cast<napi_key_filter>(napi_key_enumerable | napi_key_skip_symbols),
                                  napi_key_numbers_to_strings, &names) != napi_ok) {
    call.fail();
    return result;
  }
  for (const std::string& name : stringsOf(call, names, "env")) {
    napi_value value = call.property(index, name.c_str());
    // An absent variable, as child_process leaves it out too.
    if (value == nullptr) continue;
    result.push_back(name + "=" + call.textOf(value, name.c_str(), kMostBytes));
  }
  return result;
}

std::vector<int> keptNumbers(Arguments& call, size_t index) {
  std::vector<int> numbers;
  bool is = false;
  uint32_t length = 0;
  if (call.failed()) return numbers;
  if (napi_is_array(call.env(), call[index], &is) != napi_ok || !is ||
      napi_get_array_length(call.env(), call[index], &length) != napi_ok) {
    call.failType("keep is not an array");
    return numbers;
  }
  for (uint32_t i = 0; i < length && !call.failed(); ++i) {
    napi_value value = nullptr;
    if (napi_get_element(call.env(), call[index], i, &value) != napi_ok) {
      call.fail();
      break;
    }
    numbers.push_back(static_cast<int>(call.integerOf(value, "keep", 0, INT_MAX)));
  }
  return numbers;
}

std::vector<char*> pointersOf(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

/** What survives an execve and was changed for it: undone when the call returns. */
class Inheritance {
 public:
  /** Clears close-on-exec of one number. False and errno when it is not open. */
  bool keep(int fd) {
    const int flags = fcntl(fd, F_GETFD);
    if (flags < 0) return false;
    if ((flags & FD_CLOEXEC) == 0) return true;
    if (fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC) < 0) return false;
    cleared_.push_back(fd);
    return true;
  }
  /** Node ignores SIGPIPE, and an ignored or blocked signal stays so in the next image. */
  void resetSignals() {
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    sigaction(SIGPIPE, &plain, &pipe_);
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, &mask_);
    signals_ = true;
  }
  ~Inheritance() {
    if (signals_) {
      sigaction(SIGPIPE, &pipe_, nullptr);
      pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
    }
    for (const int fd : cleared_) fcntl(fd, F_SETFD, FD_CLOEXEC);
  }

 private:
  std::vector<int> cleared_;
  struct sigaction pipe_ {};
  sigset_t mask_{};
  bool signals_ = false;
};

napi_value execute(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  std::string file = call.text(0, "file", PATH_MAX);
  std::vector<std::string> args = stringsOf(call, call[1], "args");
  std::vector<std::string> environment = environmentOf(call, 2);
  const std::vector<int> kept = keptNumbers(call, 3);
  if (call.failed()) return nullptr;
  args.insert(args.begin(), file);

  int error = 0;
  const char* failing = "execve";
  {
    Inheritance inheritance;
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) inheritance.keep(fd);
    for (const int fd : kept) {
      if (error == 0 && !inheritance.keep(fd)) {
        error = errno;
        failing = "fcntl F_SETFD";
      }
    }
    if (error == 0) {
      std::vector<char*> argv = pointersOf(args);
      std::vector<char*> envp = pointersOf(environment);
      inheritance.resetSignals();
      execve(file.c_str(), argv.data(), envp.data());
      error = errno;
    }
  }
  return call.failErrno(error, failing, error == EBADF ? "a number of keep is not open" : file);
}

napi_value threadId(napi_env env, napi_callback_info info) {
  return Arguments(env, info).number(static_cast<double>(syscall(SYS_gettid)));
}

napi_value monotonicNanos(napi_env env, napi_callback_info info) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return Arguments(env, info).number(static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec));
}

}  // namespace

void exportProcess(Addon& addon, napi_value exports) {
  exportFunction(addon, exports, "exitNow", exitNow);
  exportFunction(addon, exports, "execute", execute);
  exportFunction(addon, exports, "threadId", threadId);
  exportFunction(addon, exports, "monotonicNanos", monotonicNanos);
}

}  // namespace uffd
