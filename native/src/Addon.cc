#include "Addon.h"

#include <unistd.h>

#include <cstdint>
#include <utility>

#include "Descriptor.h"
#include "Failure.h"
#include "Mapping.h"
#include "SharedTable.h"

namespace uffd {

namespace {

// A random number, and the address of something of this very copy of the addon: another copy in the same process, of
// another version perhaps, lays out its handles in its own way, and its objects are foreign here.
constexpr uint64_t kTag = 0x7b6d0f2e4c9a4f11;

napi_type_tag tagOf(ClassId id) {
  static const char here = 0;
  return {kTag + static_cast<uint64_t>(id), reinterpret_cast<uintptr_t>(&here)};
}

void finalizeHandle(napi_env, void* data, void*) { delete static_cast<Handle*>(data); }

// Before Node 22.3 a Buffer, and so an external ArrayBuffer, ends at 4 GiB; since then at the largest safe integer.
double longestBuffer(napi_env env) {
  const napi_node_version* version = nullptr;
  if (napi_get_node_version(env, &version) != napi_ok) return 4294967296.0;
  const bool wide = version->major > 22 || (version->major == 22 && version->minor >= 3);
  return wide ? 9007199254740991.0 : 4294967296.0;
}

}  // namespace

Handle::Handle(Addon& addon, Rank rank) : addon_(&addon), rank_(rank) {
  Handle*& head = addon.handles_[static_cast<size_t>(rank)];
  next_ = head;
  if (head != nullptr) head->previous_ = this;
  head = this;
}

Handle::~Handle() {
  if (addon_ == nullptr) return;
  addon_->bound_.erase(this);
  if (previous_ != nullptr) {
    previous_->next_ = next_;
  } else {
    addon_->handles_[static_cast<size_t>(rank_)] = next_;
  }
  if (next_ != nullptr) next_->previous_ = previous_;
}

Addon* Addon::create(napi_env env) {
  auto* addon = new Addon(env);
  if (napi_set_instance_data(env, addon, onDelete, nullptr) != napi_ok) {
    delete addon;
    napi_throw_error(env, nullptr, "userfaultfd-napi: no instance data");
    return nullptr;
  }
  if (napi_get_uv_event_loop(env, &addon->loop_) != napi_ok ||
      napi_add_async_cleanup_hook(env, onEnd, addon, &addon->hook_) != napi_ok) {
    napi_throw_error(env, nullptr, "userfaultfd-napi: no event loop in this environment");
    return nullptr;
  }
  addon->bufferLimit_ = longestBuffer(env);
  return addon;
}

void Addon::define(napi_value exports, ClassId id, const char* name, napi_callback construct, size_t count,
                   const napi_property_descriptor* properties) {
  napi_value constructor = nullptr;
  const napi_status status =
      napi_define_class(env_, name, NAPI_AUTO_LENGTH, construct, this, count, properties, &constructor);
  if (status != napi_ok) return;
  napi_create_reference(env_, constructor, 1, &constructors_[static_cast<size_t>(id)]);
  napi_set_named_property(env_, exports, name, constructor);
}

napi_value Addon::instantiate(ClassId id, std::unique_ptr<Handle> handle) {
  napi_value constructor = nullptr;
  napi_value result = nullptr;
  if (napi_get_reference_value(env_, constructors_[static_cast<size_t>(id)], &constructor) != napi_ok) return nullptr;
  constructing_ = std::move(handle);
  const napi_status status = napi_new_instance(env_, constructor, 0, nullptr, &result);
  constructing_.reset();
  return status == napi_ok ? result : nullptr;
}

bool Addon::bind(ClassId id, napi_value self, std::unique_ptr<Handle> handle) {
  // SAFETY: from here the object's finalizer owns the handle, so it is released exactly when the wrap succeeded.
  if (napi_wrap(env_, self, handle.get(), finalizeHandle, nullptr, nullptr) != napi_ok) {
    throwType(env_, "this object cannot own a native handle");
    return false;
  }
  bound_.emplace(handle.get(), id);
  handle.release();
  const napi_type_tag tag = tagOf(id);
  if (napi_type_tag_object(env_, self, &tag) != napi_ok) {
    throwType(env_, "this object cannot be tagged");
    return false;
  }
  return true;
}

Handle* Addon::unwrap(ClassId id, napi_value value) const {
  napi_valuetype type = napi_undefined;
  if (napi_typeof(env_, value, &type) != napi_ok || type != napi_object) return nullptr;
  void* data = nullptr;
  if (napi_unwrap(env_, value, &data) != napi_ok) return nullptr;
  // SAFETY: what is in the table is a living Handle of that class. What another addon wrapped is not in it, and is not
  // looked at. Asking for the type tag instead costs as much as the rest of a call (bench: 7 calls a page fault).
  const auto known = bound_.find(static_cast<Handle*>(data));
  return known != bound_.end() && known->second == id ? known->first : nullptr;
}

bool Addon::pin(napi_value buffer, std::shared_ptr<Mapping> mapping) {
  napi_ref reference = nullptr;
  if (napi_create_reference(env_, buffer, 1, &reference) != napi_ok) return false;
  pins_.push_back({reference, std::move(mapping)});
  return true;
}

const Pin* Addon::pinOf(const Mapping& mapping) const {
  for (const Pin& pin : pins_) {
    if (pin.mapping.get() == &mapping) return &pin;
  }
  return nullptr;
}

void Addon::sweepPins() {
  std::erase_if(pins_, [this](const Pin& pin) {
    if (!pin.mapping->abandoned()) return false;
    napi_delete_reference(env_, pin.buffer);
    return true;
  });
}

void Addon::loopHandleClosed() {
  --loopHandles_;
  if (ending_ && loopHandles_ == 0) napi_remove_async_cleanup_hook(hook_);
}

// Pollers first: no callback may come while the rest goes. Descriptors before regions: the unmapping of a range that
// is registered with EVENT_UNMAP waits until somebody reads the event, which this thread no longer does; once the
// userfaultfd is closed nothing waits. The pins go last, when no access through this environment is left.
void Addon::shut() {
  for (Handle*& head : handles_) {
    while (head != nullptr) {
      Handle* handle = head;
      head = handle->next_;
      if (head != nullptr) head->previous_ = nullptr;
      handle->shut();
      handle->addon_ = nullptr;
    }
  }
  for (const Pin& pin : pins_) {
    pin.mapping->end();
    napi_delete_reference(env_, pin.buffer);
  }
  pins_.clear();
  for (const int fd : forked_) {
    // Another environment may have adopted it, or somebody closed it and the number is another file's now.
    if (!SharedTable::process().claimed(fd) && isUserfaultfd(fd)) ::close(fd);
  }
  forked_.clear();
}

uint8_t* Addon::scratch() {
  constexpr size_t alignment = 4096;
  if (scratch_ == nullptr) scratch_.reset(static_cast<uint8_t*>(std::aligned_alloc(alignment, kScratch)));
  return scratch_.get();
}

void Addon::onEnd(napi_async_cleanup_hook_handle hook, void* data) {
  auto* addon = static_cast<Addon*>(data);
  addon->ending_ = true;
  addon->shut();
  if (addon->loopHandles_ == 0) napi_remove_async_cleanup_hook(hook);
}

void Addon::onDelete(napi_env, void* data, void*) { delete static_cast<Addon*>(data); }

napi_value constructPrivately(napi_env env, napi_callback_info info, ClassId id) {
  napi_value self = nullptr;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, nullptr, nullptr, &self, &data) != napi_ok) return nullptr;
  auto* addon = static_cast<Addon*>(data);
  std::unique_ptr<Handle> handle = addon->takeConstructing();
  if (handle == nullptr) {
    throwType(env, "illegal constructor: use the static functions of the class");
    return nullptr;
  }
  return addon->bind(id, self, std::move(handle)) ? self : nullptr;
}

}  // namespace uffd
