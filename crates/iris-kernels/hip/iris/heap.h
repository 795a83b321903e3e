// The symmetric heap: every rank's allocation lies at the same offset, so that an address on one rank is one on any other.
#pragma once

#include "atomics.h"

namespace iris {

/// Where this device sees the symmetric heaps of all ranks.
struct Heap {
    /// The address of each rank's heap.
    const u64* bases;
    /// This rank.
    u64 rank;

    /// What lies `offset` bytes into the heap of `peer`.
    template <class T>
    IRIS_DEVICE T* at(u64 peer, u64 offset) const {
        return global<T>(bases[peer] + offset);
    }

    /// What is for `peer` what `mine` is for this rank.
    template <class T>
    IRIS_DEVICE T* translate(T* mine, u64 peer) const {
        return global<T>(reinterpret_cast<u64>(mine) - bases[rank] + bases[peer]);
    }

    /// Loads what `mine` names from the heap of `peer`. Relaxed: follow it with a wait or a fence where that matters.
    template <class T>
    IRIS_DEVICE T load(const T* mine, u64 peer) const {
        return iris::load<Order::relaxed, Scope::system>(translate(mine, peer));
    }

    /// Stores to what `mine` names in the heap of `peer`. Relaxed: a signal with release order makes it known.
    template <class T>
    IRIS_DEVICE void store(T* mine, T value, u64 peer) const {
        iris::store<Order::relaxed, Scope::system>(translate(mine, peer), value);
    }
};

/// Copies `bytes` bytes with all threads of the block, 16 at a time where both addresses allow it. The two do not overlap.
/// Nothing is ordered: signal or synchronise afterwards.
IRIS_DEVICE void copy(void* to, const void* from, u64 bytes, u32 threads) {
    u64 done = 0;
    if (aligned16(reinterpret_cast<u64>(to) | reinterpret_cast<u64>(from))) {
        Vec16* wide_to = static_cast<Vec16*>(to);
        const Vec16* wide_from = static_cast<const Vec16*>(from);
        for (u64 at = thread_index(); at < bytes / 16; at += threads) {
            wide_to[at] = wide_from[at];
        }
        done = bytes / 16 * 16;
    }
    for (u64 at = done + thread_index(); at < bytes; at += threads) {
        static_cast<u8*>(to)[at] = static_cast<const u8*>(from)[at];
    }
}

/// Copies `count` elements of this rank's memory to what `mine` names in the heap of `peer`, with all threads of the block.
template <class T>
IRIS_DEVICE void put(const Heap& heap, T* mine, const T* from, u64 count, u64 peer, u32 threads) {
    copy(heap.translate(mine, peer), from, count * sizeof(T), threads);
}

/// Copies `count` elements from what `mine` names in the heap of `peer` to this rank's memory, with all threads of the block.
template <class T>
IRIS_DEVICE void get(const Heap& heap, T* to, const T* mine, u64 count, u64 peer, u32 threads) {
    copy(to, heap.translate(mine, peer), count * sizeof(T), threads);
}

} // namespace iris
