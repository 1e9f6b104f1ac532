// What all sockets made here have in common.
#pragma once

#include <sys/socket.h>

namespace uffd {

constexpr int kSocketFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;

}  // namespace uffd
