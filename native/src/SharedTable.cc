#include "SharedTable.h"

#include <time.h>

#include <cerrno>
#include <utility>

#include "Descriptor.h"

namespace uffd {

namespace {

/** Tells descriptors' tokens from mappings', whose generations leave the bit clear. */
constexpr uint64_t kDescriptorToken = uint64_t{1} << 63;
constexpr uint32_t kGenerations = 0x7fffffff;

uint64_t tokenOf(uint32_t slot, uint32_t generation) { return static_cast<uint64_t>(generation) << 32 | slot; }

}  // namespace

Hold& Hold::operator=(Hold&& other) noexcept {
  if (this != &other) {
    release();
    mapping_ = std::exchange(other.mapping_, nullptr);
  }
  return *this;
}

void Hold::release() {
  if (mapping_ != nullptr) SharedTable::process().leave(std::exchange(mapping_, nullptr));
}

SharedTable& SharedTable::process() {
  static auto* table = new SharedTable();
  return *table;
}

// Starts somewhere, so that a token kept from another process is not taken for one of ours.
SharedTable::SharedTable() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  firstGeneration_ = (static_cast<uint32_t>(now.tv_nsec) | 1) & kGenerations;
  lastGroup_ = kDescriptorToken | static_cast<uint64_t>(firstGeneration_) << 32;
}

Hold SharedTable::enter(std::shared_ptr<Mapping> mapping) {
  std::lock_guard lock(lock_);
  uint32_t slot = 0;
  if (vacant_.empty()) {
    slot = static_cast<uint32_t>(slots_.size());
    slots_.push_back({firstGeneration_, nullptr});
  } else {
    slot = vacant_.back();
    vacant_.pop_back();
  }
  slots_[slot].tenant = mapping;
  mapping->token_ = tokenOf(slot, slots_[slot].generation);
  mapping->holders_ = 1;
  return Hold(std::move(mapping));
}

Hold SharedTable::again(const Hold& hold) {
  std::lock_guard lock(lock_);
  ++hold->holders_;
  return Hold(hold.mapping_);
}

Hold SharedTable::adopt(uint64_t token) {
  std::lock_guard lock(lock_);
  const auto slot = static_cast<uint32_t>(token);
  if (slot >= slots_.size() || slots_[slot].tenant == nullptr) return {};
  if (tokenOf(slot, slots_[slot].generation) != token) return {};
  ++slots_[slot].tenant->holders_;
  return Hold(slots_[slot].tenant);
}

uint64_t SharedTable::token(const Hold& hold) const {
  std::lock_guard lock(lock_);
  return hold->token_;
}

size_t SharedTable::holders(const Mapping& mapping) const {
  std::lock_guard lock(lock_);
  return mapping.holders_;
}

void SharedTable::leave(std::shared_ptr<Mapping> mapping) {
  std::shared_ptr<Mapping> tenant;
  {
    std::lock_guard lock(lock_);
    if (--mapping->holders_ > 0) return;
    const auto slot = static_cast<uint32_t>(mapping->token_);
    tenant = std::exchange(slots_[slot].tenant, nullptr);
    slots_[slot].generation = (slots_[slot].generation + 1) & kGenerations;
    vacant_.push_back(slot);
  }
  // The unmapping happens when both references go, outside the lock: it may wait for a reader of its UNMAP event.
}

std::shared_ptr<Mapping> SharedTable::covering(uint64_t address, uint64_t length) const {
  std::lock_guard lock(lock_);
  for (const Slot& slot : slots_) {
    if (slot.tenant == nullptr) continue;
    const uint64_t start = slot.tenant->address();
    const uint64_t size = slot.tenant->length();
    if (address >= start && address - start <= size && length <= size - (address - start)) return slot.tenant;
  }
  return nullptr;
}

void SharedTable::registered(std::shared_ptr<Mapping> mapping) {
  std::lock_guard lock(lock_);
  std::erase_if(registered_, [&](const auto& each) {
    return each.expired() || (!each.owner_before(mapping) && !mapping.owner_before(each));
  });
  registered_.push_back(mapping);
}

void SharedTable::unregistered(uint64_t address, uint64_t length) {
  std::vector<std::shared_ptr<Mapping>> mappings;
  {
    std::lock_guard lock(lock_);
    for (const auto& each : registered_) mappings.push_back(each.lock());
  }
  // Outside the lock: one of these may be the last reference, whose end is an unmapping.
  for (const auto& mapping : mappings) {
    if (mapping != nullptr) mapping->unregistered(address, length);
  }
}

uint64_t SharedTable::claim(int fd, const Origin& origin) {
  std::lock_guard lock(lock_);
  Claim& claim = claims_[fd];
  // A number that is claimed still was closed behind our back: its old group has lost it.
  if (claim.number != 0) forget(fd, claim.origin.group);
  claim = {++lastClaim_, origin};
  if (claim.origin.group == 0) claim.origin.group = ++lastGroup_;
  groups_[claim.origin.group].push_back(fd);
  return lastClaim_;
}

bool SharedTable::disclaim(int fd, uint64_t claim) {
  std::lock_guard lock(lock_);
  const auto found = claims_.find(fd);
  if (found == claims_.end() || found->second.number != claim) return false;
  forget(fd, found->second.origin.group);
  claims_.erase(found);
  return true;
}

bool SharedTable::claimed(int fd) const {
  std::lock_guard lock(lock_);
  return claims_.contains(fd);
}

void SharedTable::forget(int fd, uint64_t group) {
  const auto found = groups_.find(group);
  if (found == groups_.end()) return;
  std::erase(found->second, fd);
  if (found->second.empty()) groups_.erase(found);
}

uint64_t SharedTable::descriptorToken(int fd, uint64_t claim) const {
  std::lock_guard lock(lock_);
  const auto found = claims_.find(fd);
  return found == claims_.end() || found->second.number != claim ? 0 : found->second.origin.group;
}

int SharedTable::adoptDescriptor(uint64_t token, Origin& origin) const {
  std::lock_guard lock(lock_);
  const auto found = groups_.find(token);
  if (found == groups_.end()) return -ESTALE;
  // Under the lock: whoever closes one of these numbers disclaims it first.
  const int from = found->second.front();
  origin = claims_.at(from).origin;
  const int fd = duplicate(from);
  return fd < 0 ? -errno : fd;
}

}  // namespace uffd
