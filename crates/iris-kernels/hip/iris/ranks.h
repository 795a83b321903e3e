// The ranks of a world, for a kernel of one's own: what `Args` tells of them, and nothing of a call.
#pragma once

#include "args.h"
#include "heap.h"

namespace iris {

/// A field of a kernel's argument, passed by value. The host makes it: `iris_kernels::device::Ranks`.
struct Ranks {
    /// Where this device sees the symmetric heap of each rank.
    u64 heap[MAX_RANKS];
    /// The number of ranks, at most MAX_RANKS.
    u64 world;
    /// This rank.
    u64 rank;

    /// The symmetric heap, as this rank sees it. Valid as long as this.
    IRIS_DEVICE Heap view() const { return Heap{heap, rank}; }

    /// The rank after this one, around the world, and the one before it.
    IRIS_DEVICE u64 next() const { return rank + 1 == world ? 0 : rank + 1; }
    IRIS_DEVICE u64 previous() const { return (rank == 0 ? world : rank) - 1; }
};

static_assert(sizeof(Ranks) == 8 * (MAX_RANKS + 2), "8-byte fields without gaps");

} // namespace iris
