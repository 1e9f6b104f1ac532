// The only process-wide state: one locked table of the mappings that environments hold, counted by holder, and of the
// descriptor numbers that this package owns. Both cross to another environment as a token that holds nothing itself. Of
// a mapping it names a slot and the generation of its tenant, of a descriptor the group of numbers that were adopted
// from one another; a token whose tenant or group is gone is recognised for ever.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "Mapping.h"

namespace uffd {

/** One holder of a mapping. Moves, and lets go when it is destroyed; an empty one holds nothing. */
class Hold {
 public:
  Hold() = default;
  Hold(Hold&& other) noexcept : mapping_(std::move(other.mapping_)) { other.mapping_.reset(); }
  Hold& operator=(Hold&& other) noexcept;
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;
  ~Hold() { release(); }
  /** Idempotent. The last one unmaps. */
  void release();
  explicit operator bool() const { return mapping_ != nullptr; }
  Mapping* operator->() const { return mapping_.get(); }
  Mapping& operator*() const { return *mapping_; }
  const std::shared_ptr<Mapping>& shared() const { return mapping_; }

 private:
  friend class SharedTable;
  explicit Hold(std::shared_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
  std::shared_ptr<Mapping> mapping_;
};

/** What is known of a descriptor beyond its number; goes along to its duplicates. */
struct Origin {
  /** 0: a group of its own. */
  uint64_t group = 0;
  /** A userfaultfd that was opened here: its addresses are of this process. */
  bool own = false;
  /** It tells of unmappings, which wait until that is read. */
  bool unmapEvents = false;
};

class SharedTable {
 public:
  /** The table of this process. Never destroyed: worker threads may outlive the static destructors. */
  static SharedTable& process();

  /** Enters a mapping and holds it. */
  Hold enter(std::shared_ptr<Mapping> mapping);
  /** One more holder. */
  Hold again(const Hold& hold);
  /** A further holder by token; empty when the tenant is gone. */
  Hold adopt(uint64_t token);
  uint64_t token(const Hold& hold) const;
  size_t holders(const Mapping& mapping) const;
  /** The mapping that has all of a range of addresses; null when there is none. */
  std::shared_ptr<Mapping> covering(uint64_t address, uint64_t length) const;
  /** Notes that some of a mapping is registered, also when its last holder has gone since. */
  void registered(std::shared_ptr<Mapping> mapping);
  /** Tells whoever had something registered in a range of addresses that it no longer is. */
  void unregistered(uint64_t address, uint64_t length);

  /** Notes that this package owns a descriptor number; the claim to be given to `disclaim`. */
  uint64_t claim(int fd, const Origin& origin);
  /** False when the number was closed behind our back and belongs to a later claim: it must not be closed. */
  bool disclaim(int fd, uint64_t claim);
  bool claimed(int fd) const;
  /** The token of the claim's group; 0 when the claim does not hold any more. */
  uint64_t descriptorToken(int fd, uint64_t claim) const;
  /** A duplicate out of the group, to be claimed with `origin`; -ESTALE when the group is gone, or -errno. */
  int adoptDescriptor(uint64_t token, Origin& origin) const;

 private:
  friend class Hold;
  struct Slot {
    uint32_t generation;
    std::shared_ptr<Mapping> tenant;
  };
  struct Claim {
    uint64_t number;
    Origin origin;
  };
  SharedTable();
  void leave(std::shared_ptr<Mapping> mapping);
  /** Under the lock. */
  void forget(int fd, uint64_t group);

  mutable std::mutex lock_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> vacant_;
  std::vector<std::weak_ptr<Mapping>> registered_;
  std::unordered_map<int, Claim> claims_;
  /** Which numbers are open of a group; groups without any are not listed. */
  std::unordered_map<uint64_t, std::vector<int>> groups_;
  uint64_t lastClaim_ = 0;
  uint64_t lastGroup_;
  uint32_t firstGeneration_;
};

}  // namespace uffd
