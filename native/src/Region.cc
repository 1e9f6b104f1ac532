#include "Region.h"

#include <cerrno>
#include <iterator>
#include <utility>

#include "Descriptor.h"
#include "Failure.h"
#include "RegionSource.h"

namespace uffd {

namespace {

napi_value constructRegion(napi_env env, napi_callback_info info) {
  return constructPrivately(env, info, ClassId::region);
}

napi_value regionAddress(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  return call.failed() ? nullptr : call.number(static_cast<double>(self->address()));
}

napi_value regionLength(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  return call.failed() ? nullptr : call.number(static_cast<double>(self->length()));
}

napi_value regionPageSize(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  return call.failed() ? nullptr : call.number(static_cast<double>(self->pageSize()));
}

napi_value regionClosed(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  return call.failed() ? nullptr : call.boolean(self->closed());
}

/** The owner, when it can be used; else null with the error thrown. */
Region* usable(Arguments& call, const char* operation) {
  auto* self = call.owner<Region>();
  if (call.failed()) return nullptr;
  const int refused = self->unusable();
  if (refused == 0) return self;
  call.failErrno(-refused, operation);
  return nullptr;
}

napi_value regionDescriptor(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  Region* self = usable(call, "descriptor");
  if (self == nullptr) return nullptr;
  if (self->hold()->fd() < 0) return call.null();
  const int fd = duplicate(self->hold()->fd());
  if (fd < 0) return call.failErrno(errno, "fcntl F_DUPFD_CLOEXEC");
  return Descriptor::wrap(call.addon(), fd);
}

napi_value regionBuffer(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  Region* self = usable(call, "buffer");
  return self == nullptr ? nullptr : self->buffer();
}

napi_value regionShare(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  Region* self = usable(call, "share");
  if (self == nullptr) return nullptr;
  napi_value token = nullptr;
  napi_create_bigint_uint64(env, SharedTable::process().token(self->hold()), &token);
  return token;
}

// Signed accesses. The views are read last: nothing may run JavaScript between that and the access.

napi_value regionRead(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  const uint64_t offset = call.integer(0, "offset");
  const View<uint8_t> into = call.bytes(1, "into");
  const uint64_t intoOffset = call.integer(2, "intoOffset");
  const uint64_t length = call.integer(3, "length");
  uint8_t* to = call.part(into, intoOffset, length, "into");
  if (call.failed()) return nullptr;
  const int refused = self->unusable();
  return call.number(static_cast<double>(refused != 0 ? refused : self->hold()->read(offset, to, length)));
}

napi_value regionWrite(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  const uint64_t offset = call.integer(0, "offset");
  const View<uint8_t> from = call.bytes(1, "from");
  const uint64_t fromOffset = call.integer(2, "fromOffset");
  const uint64_t length = call.integer(3, "length");
  const uint8_t* source = call.part(from, fromOffset, length, "from");
  if (call.failed()) return nullptr;
  const int refused = self->unusable();
  return call.number(static_cast<double>(refused != 0 ? refused : self->hold()->write(offset, source, length)));
}

napi_value regionFillByte(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  const uint64_t offset = call.integer(0, "offset");
  const uint64_t length = call.integer(1, "length", 1);
  if (call.failed()) return nullptr;
  const int refused = self->unusable();
  return call.number(static_cast<double>(refused != 0 ? refused : self->hold()->fillByte(offset, length)));
}

napi_value regionMadvise(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  const uint64_t offset = call.integer(0, "offset");
  const uint64_t length = call.integer(1, "length");
  const int advice = static_cast<int>(call.integer(2, "advice", 0, 1000));
  if (call.failed()) return nullptr;
  const int refused = self->unusable();
  return call.number(static_cast<double>(refused != 0 ? refused : self->hold()->advise(offset, length, advice)));
}

napi_value regionProtectNone(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  const uint64_t offset = call.integer(0, "offset");
  const uint64_t length = call.integer(1, "length");
  if (call.failed()) return nullptr;
  const int refused = self->unusable();
  return call.number(static_cast<double>(refused != 0 ? refused : self->hold()->protectNone(offset, length)));
}

napi_value regionClose(napi_env env, napi_callback_info info) {
  Arguments call(env, info);
  auto* self = call.owner<Region>();
  if (call.failed()) return nullptr;
  self->shut();
  return call.undefined();
}

void dropBuffer(napi_env, void*, void* hint) { delete static_cast<Hold*>(hint); }

}  // namespace

Region::Region(Addon& addon, Hold hold)
    : Handle(addon, Rank::region),
      hold_(std::move(hold)),
      address_(hold_->address()),
      length_(hold_->length()),
      pageSize_(hold_->pageSize()) {}

void Region::shut() {
  if (!hold_) return;
  if (buffer_ != nullptr) napi_delete_reference(addon_->env(), std::exchange(buffer_, nullptr));
  hold_.release();
  addon_->sweepPins();
}

int Region::unusable() {
  if (!hold_) return -EBADF;
  if (hold_->kind() != Mapping::Kind::buffer) return 0;
  if (hold_->stale()) return -ESTALE;
  const Pin* pin = addon_->pinOf(*hold_);
  if (pin == nullptr) return 0;
  // Only the owner can see this: a buffer that was transferred, or a WebAssembly memory that has grown.
  napi_value value = nullptr;
  bool detached = false;
  napi_get_reference_value(addon_->env(), pin->buffer, &value);
  if (napi_is_detached_arraybuffer(addon_->env(), value, &detached) != napi_ok || !detached) return 0;
  hold_->detach();
  return -ESTALE;
}

napi_value Region::buffer() {
  napi_env env = addon_->env();
  napi_value value = nullptr;
  if (hold_->kind() == Mapping::Kind::buffer) {
    const Pin* pin = addon_->pinOf(*hold_);
    if (pin == nullptr) {
      throwErrno(env, ENOTSUP, "buffer", "the ArrayBuffer belongs to another thread");
      return nullptr;
    }
    napi_get_reference_value(env, pin->buffer, &value);
    return value;
  }
  if (buffer_ != nullptr) {
    if (napi_get_reference_value(env, buffer_, &value) == napi_ok && value != nullptr) return value;
    napi_delete_reference(env, std::exchange(buffer_, nullptr));
  }
  return externalBuffer();
}

napi_value Region::externalBuffer() {
  napi_env env = addon_->env();
  if (static_cast<double>(length_) > addon_->bufferLimit()) {
    throwRange(env, "a region of " + std::to_string(length_) + " bytes does not fit an ArrayBuffer of this Node");
    return nullptr;
  }
  napi_value value = nullptr;
  auto* hold = new Hold(SharedTable::process().again(hold_));
  // SAFETY: the buffer has a hold of its own, so the mapping outlives it, whatever happens to this region.
  auto* memory = reinterpret_cast<void*>(address_);
  if (napi_create_external_arraybuffer(env, memory, length_, dropBuffer, hold, &value) != napi_ok) {
    // Within the limit this happens only when nothing may run any more; the hold is then left to the process's end,
    // since a second owner would be worse.
    throwErrno(env, ENOMEM, "napi_create_external_arraybuffer");
    return nullptr;
  }
  napi_create_reference(env, value, 0, &buffer_);
  return value;
}

napi_value Region::wrap(Addon& addon, Hold hold) {
  return addon.instantiate(kClass, std::make_unique<Region>(addon, std::move(hold)));
}

void Region::define(Addon& addon, napi_value exports) {
  void* data = &addon;
  constexpr auto fixed = static_cast<napi_property_attributes>(napi_static | napi_default_method);
  const napi_property_descriptor properties[] = {
      {"address", nullptr, nullptr, regionAddress, nullptr, nullptr, napi_enumerable, data},
      {"length", nullptr, nullptr, regionLength, nullptr, nullptr, napi_enumerable, data},
      {"pageSize", nullptr, nullptr, regionPageSize, nullptr, nullptr, napi_enumerable, data},
      {"closed", nullptr, nullptr, regionClosed, nullptr, nullptr, napi_enumerable, data},
      {"descriptor", nullptr, regionDescriptor, nullptr, nullptr, nullptr, napi_default_method, data},
      {"buffer", nullptr, regionBuffer, nullptr, nullptr, nullptr, napi_default_method, data},
      {"share", nullptr, regionShare, nullptr, nullptr, nullptr, napi_default_method, data},
      {"read", nullptr, regionRead, nullptr, nullptr, nullptr, napi_default_method, data},
      {"write", nullptr, regionWrite, nullptr, nullptr, nullptr, napi_default_method, data},
      {"fillByte", nullptr, regionFillByte, nullptr, nullptr, nullptr, napi_default_method, data},
      {"madvise", nullptr, regionMadvise, nullptr, nullptr, nullptr, napi_default_method, data},
      {"protectNone", nullptr, regionProtectNone, nullptr, nullptr, nullptr, napi_default_method, data},
      {"close", nullptr, regionClose, nullptr, nullptr, nullptr, napi_default_method, data},
      {"anonymous", nullptr, source::anonymous, nullptr, nullptr, nullptr, fixed, data},
      {"memfd", nullptr, source::memfd, nullptr, nullptr, nullptr, fixed, data},
      {"map", nullptr, source::map, nullptr, nullptr, nullptr, fixed, data},
      {"ofBuffer", nullptr, source::ofBuffer, nullptr, nullptr, nullptr, fixed, data},
      {"adopt", nullptr, source::adopt, nullptr, nullptr, nullptr, fixed, data}};
  addon.define(exports, kClass, kName, constructRegion, std::size(properties), properties);
}

}  // namespace uffd
