// How fast a block stores to its peers while it multiplies.
//
// Stores to a peer that come faster than the links take them wait where a multiprocessor's accesses leave it, and the loader's requests
// wait behind them, though they go elsewhere: a tile of 58 thousand cycles then takes up to 85. That is so where all blocks send at the
// same time, as after their first tiles, which all finish together; the same bytes sent to this device's own memory cost nothing. So
// what is sent beside a product is spread over the time that the product takes, which on average is less than the links can carry.
// Where it is more, as for little depth, stores are further apart than that anyway. What nothing is multiplied beside is not kept
// waiting.
#pragma once

#include "ring.h"

namespace iris {

/// Keeps steps of a thread apart.
struct Pace {
    /// Cycles from one step to the next, at least.
    u32 apart = 0;
    /// When the last one was.
    u32 last = 0;

    /// So that `steps` steps take three fifths of the time in which a block multiplies `slabs` slabs, at 2048 products a cycle.
    IRIS_DEVICE static Pace beside(u64 slabs, u64 steps) {
        constexpr u64 SLAB_CYCLES = u64(TILE_M) * TILE_N * SLAB_K / 2048;
        u32 cycles = u32(smaller(slabs * SLAB_CYCLES * 3 / 5, u32(-1)));
        return {u32(smaller(cycles / (steps == 0 ? 1 : u32(steps)), LONGEST)), clock()};
    }

    /// So many cycles apart, as the host has found out.
    IRIS_DEVICE static Pace of(u32 apart) { return {apart, clock()}; }

    /// Waits until the next step may be made.
    IRIS_DEVICE void keep() {
        // By a clock: a sleep takes anything up to twice as long as it is asked to, so it is asked for as many quarters of a nanosecond
        // as there are cycles left, of which there are less than two a nanosecond.
        for (u32 now = clock(); now - last < apart; now = clock()) {
            sleep((apart - (now - last)) / 4);
        }
        last = clock();
    }

    /// Should depths be such that all this is far from the truth.
    static constexpr u64 LONGEST = 40000;
};

/// Bytes that a rank's links take in a nanosecond, at most.
constexpr u64 LINK_BYTES = 400;

/// Waits for the turn of what stands behind `bytes` bytes that this rank sends from `since` on. Blocks that each send something at the same
/// time share the links, so that nothing is there before all is. By turns, what is waited for first is there first, and nothing later.
IRIS_DEVICE void await_turn(u64 since, u64 bytes) {
    while (now_ns() - since < bytes / LINK_BYTES) {
        sleep(40);
    }
}

} // namespace iris
