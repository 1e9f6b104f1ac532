// The state of one environment (the main thread or a worker thread): the classes, the open handles and the pinned
// ArrayBuffers. Everything that the kernel must get back is a Handle in one of this struct's lists, and the
// environment's clean-up hook shuts them all, whatever JavaScript still refers to. Only that environment's thread
// comes here; what several threads share is in SharedTable.
#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <unordered_map>
#include <vector>

namespace uffd {

class Addon;
class Mapping;

enum class ClassId : size_t { descriptor, poller, faultPoller, region };
constexpr size_t kClassCount = 4;

/** The order in which handles are shut at the environment's end; the reason is at Addon::shut. */
enum class Rank : size_t { poller, descriptor, region };
constexpr size_t kRankCount = 3;

/** What a wrapped JS object owns. Deleted by the object's finalizer, shut by then or earlier. */
class Handle {
 public:
  Handle(Addon& addon, Rank rank);
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  virtual ~Handle();
  /** Gives everything back to the kernel. Idempotent. */
  virtual void shut() = 0;

 protected:
  /** Null after the environment's end, when only memory is left to be freed. */
  Addon* addon_;

 private:
  friend class Addon;
  const Rank rank_;
  Handle* previous_ = nullptr;
  Handle* next_ = nullptr;
};

/** An ArrayBuffer kept alive for the Mapping over its memory. */
struct Pin {
  napi_ref buffer;
  std::shared_ptr<Mapping> mapping;
};

class Addon {
 public:
  /** Creates the state and installs its hooks; null with a pending exception on failure. */
  static Addon* create(napi_env env);

  napi_env env() const { return env_; }
  uv_loop_s* loop() const { return loop_; }
  /** Longest ArrayBuffer of this Node, bytes. */
  double bufferLimit() const { return bufferLimit_; }

  /** Defines a class whose constructor is `construct` and exports it. */
  void define(napi_value exports, ClassId id, const char* name, napi_callback construct, size_t count,
              const napi_property_descriptor* properties);
  /** A new JS object that owns `handle` (also when that fails: it is deleted then). Null with a pending exception. */
  napi_value instantiate(ClassId id, std::unique_ptr<Handle> handle);
  /** Makes `self` the owner of `handle` and tags it. False with a pending exception. */
  bool bind(ClassId id, napi_value self, std::unique_ptr<Handle> handle);
  /** The handle of an object of exactly that class, else null. Nothing is thrown. */
  Handle* unwrap(ClassId id, napi_value value) const;
  /** The handle that instantiate hands to the constructor; null when JS called the constructor. */
  std::unique_ptr<Handle> takeConstructing() { return std::move(constructing_); }

  /** Keeps `buffer` alive while its mapping has holders. */
  bool pin(napi_value buffer, std::shared_ptr<Mapping> mapping);
  /** The pin of a mapping over memory of this environment, else null. */
  const Pin* pinOf(const Mapping& mapping) const;
  /** Lets go of buffers whose last holder went away, possibly in another thread. */
  void sweepPins();

  /** A descriptor that came with a fork event has no owner until it is adopted; the end of this environment closes it. */
  void noteForked(int fd) { forked_.push_back(fd); }
  void takeForked(int fd) { std::erase(forked_, fd); }
  /** A page-aligned buffer of kScratch bytes, the same every time; null when there is no memory. */
  uint8_t* scratch();
  static constexpr size_t kScratch = 256 * 1024;

  /** Open and closing uv handles: the environment may not end before their close callbacks ran. */
  void loopHandleOpened() { ++loopHandles_; }
  void loopHandleClosed();

 private:
  friend class Handle;
  explicit Addon(napi_env env) : env_(env) {}
  static void onEnd(napi_async_cleanup_hook_handle hook, void* data);
  static void onDelete(napi_env env, void* data, void* hint);
  void shut();

  const napi_env env_;
  uv_loop_s* loop_ = nullptr;
  double bufferLimit_ = 0;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  bool ending_ = false;
  size_t loopHandles_ = 0;
  napi_ref constructors_[kClassCount] = {};
  Handle* handles_[kRankCount] = {};
  std::unique_ptr<Handle> constructing_;
  /** Handles that a JS object of the class owns. */
  std::unordered_map<Handle*, ClassId> bound_;
  std::vector<Pin> pins_;
  std::vector<int> forked_;
  std::unique_ptr<uint8_t, void (*)(void*)> scratch_{nullptr, std::free};
};

/** The body of a class's constructor that only native code may call. */
napi_value constructPrivately(napi_env env, napi_callback_info info, ClassId id);

}  // namespace uffd
