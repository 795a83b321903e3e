// Signal values, and where each of a workspace's words lies: the twin of `iris_sync`'s `signal.rs` and `layout.rs`.
#pragma once

#include "args.h"

/// The type of a word, and the largest value it is signalled with, which must be odd and at least 7.
#ifndef IRIS_WORD
#define IRIS_WORD i32
#endif
#ifndef IRIS_WORD_MAX
#define IRIS_WORD_MAX 2147483647
#endif

namespace iris {

using Word = IRIS_WORD;
constexpr u64 WORD_MAX = IRIS_WORD_MAX;
static_assert(WORD_MAX % 2 == 1 && WORD_MAX >= 7, "an odd ring of at least 7");

/// What the shares of all blocks of a call come to, by which each advances the index: more than there are blocks.
constexpr u64 ALL_SHARES = 1 << 20;

/// The value of the call with index `index`, where the one with index 0 has `first`: in 1..=MAX, never 0.
IRIS_DEVICE u64 signal_value(u64 first, u64 index) {
    u64 at = first - 1 + index % WORD_MAX;
    return 1 + (at < WORD_MAX ? at : at - WORD_MAX);
}

/// Whether a word that reads `seen` holds `target` or one of the half lap of values after it.
///
/// The gates see to it that a word is at most 1 call behind what is waited for, and 3 ahead.
IRIS_DEVICE bool reached(u64 seen, u64 target) {
    u64 ahead = seen >= target ? seen - target : seen + WORD_MAX - target;
    return seen != 0 && ahead <= (WORD_MAX - 1) / 2;
}

/// The number of copies of what a rank announces. A reader is at most two calls behind the writer, so that with four copies
/// it reads its own call's.
constexpr u64 ANNOUNCED = 4;

/// What a rank tells its peers of a call beside `entered`.
struct Announcement {
    /// The rows of this call.
    u64 m;
    /// The offset of the rank's output.
    u64 output;
    /// The elements from one row of it to the next.
    u64 row;
};

/// The place of each word and cell. A word is written by one rank, its source, and lies with the rank that waits for it.
struct Layout {
    u64 world;
    u64 tiles;

    IRIS_DEVICE u64 entered(u64 source) const { return source; }
    IRIS_DEVICE u64 gathered(u64 source) const { return world + source; }
    IRIS_DEVICE u64 abort(u64 source) const { return 2 * world + source; }
    IRIS_DEVICE u64 added(u64 bank, u64 source) const { return (3 + bank) * world + source; }
    IRIS_DEVICE u64 ready(u64 bank, u64 source, u64 tile) const {
        return 5 * world + (bank * world + source) * tiles + tile;
    }
    IRIS_DEVICE u64 lock(u64 lock) const { return world * (5 + 2 * tiles) + lock; }

    /// The index of the next call, how many this rank has completed since the last reset, times `ALL_SHARES`: what lies below are the shares of
    /// blocks that have arrived in the call that is under way.
    IRIS_DEVICE u64 index_cell() const { return 0; }
    /// Not 0 once a call has faulted.
    IRIS_DEVICE u64 poison_cell() const { return 1; }
    /// How many `ready` words this rank used at `peer` in the latest call of `bank`.
    IRIS_DEVICE u64 used_cell(u64 bank, u64 peer) const { return 2 + bank * world + peer; }
    /// Three cells, of an `Announcement`.
    IRIS_DEVICE u64 announced_cell(u64 index, u64 source) const {
        return 2 + 2 * world + (index % ANNOUNCED * world + source) * 3;
    }
    /// How many blocks of the call in progress have arrived. 0 between calls.
    IRIS_DEVICE u64 arrivals_cell() const { return 2 + 2 * world + ANNOUNCED * world * 3; }
};

} // namespace iris
