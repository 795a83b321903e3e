// Which tiles a block makes, and which slabs of them.
//
// Tiles go round the blocks, and where they do not come out even, some blocks have nothing to do while others make the last ones. Where
// that costs more than what follows, tiles are *streamed*: the slabs of all tiles, one tile after the other, are one sequence, of which
// each block has an equal part. So a block may begin in the middle of a tile and end in the middle of another. Who has what comes
// first of a tile, its *head*, finishes it. It adds what the blocks after it have made of the tile, in their order, so that sums do not
// depend on who is faster; those leave their sums in memory, each in a place of its own, and raise a flag.
//
// The sequence goes through a tile from its last slab to its first, though each block goes from the first of its own on: so who begins in
// the middle of a tile has the first depths of it, and the head, which has something else to do before, the last. What peers send comes in
// the order of its depth.
//
// All rows of tiles of a group are streamed beside each other, by as many blocks: a team. So the slabs of B that they have in common are
// read at the same time. A group's tiles are streamed before those of the next.
//
// *Invariant:* nobody waits in a ring. What a head waits for is the first of a group that another block makes, which waits for no block of
// this rank; and a crew that may not go on still makes it (`crews.h`). So these waits need no budget, and nobody leaves them.
//
// Flags are zero between calls: the one who waits for a flag lowers it, and whoever raises it is in a later call of the workspace, which
// begins when this one has ended. A reset zeroes them, should a device have failed.
//
// This is all arithmetic, which runs anywhere: `stream.h` leaves and adds sums as Hopper's blocks have them.
#pragma once

#include "../tile.h"
#include "args.h"

namespace iris {

/// Boxes of a slab, by depth.
#ifndef IRIS_BOXES
#define IRIS_BOXES 1
#endif
constexpr u32 BOXES = IRIS_BOXES;
/// Depth of a box: what 128 bytes hold of the elements.
constexpr u32 BOX_K = 64;
/// Depth of a slab.
constexpr u32 SLAB_K = BOX_K * BOXES;

/// The slabs of a tile. Without depth it is one, of zeros: it lies outside of what the maps then map, which is less than a slab.
IRIS_DEVICE u64 slabs_of(u64 depths) {
    return depths == 0 ? 1 : ceil_div(depths, SLAB_K);
}

/// Tiles of which a block makes slabs at the same time, side by side: its own, and its partner's where blocks go in pairs (`pair.h`).
#if defined(IRIS_PAIRED)
constexpr u32 PAIR = 2;
#else
constexpr u32 PAIR = 1;
#endif

/// Blocks that stream at most: the twin of `STREAMERS` in `src/device/fast.rs`.
constexpr u32 STREAMERS = 144;

/// Slabs `first` to `end` of a tile, by depth.
struct Stint {
    /// The step at which it comes; of one that is streamed, which column of tiles it is in.
    u32 step;
    u32 first;
    u32 end;
    /// If the tile is streamed, how many slabs it has, and which row of tiles it is in, in the order of their groups.
    u32 whole = 0;
    u32 row = 0;

    IRIS_DEVICE u32 slabs() const { return end - first; }
    /// Whether the tile is finished after them.
    IRIS_DEVICE bool is_head() const { return end >= whole; }
};

/// The tile at a step, without rows where there is none.
template <class Op>
IRIS_DEVICE auto work_at(const Op& op, u32 step) {
    return PAIR == 1 || step < u32(op.steps()) ? op.work(step) : decltype(op.work(step)){};
}

/// The tile of a stint, likewise.
template <class Op>
IRIS_DEVICE auto work_of(const Op& op, const Stint& stint) {
    if constexpr (Op::STREAMS && PAIR == 1) {
        if (stint.whole != 0) {
            return op.tile(stint.row, stint.step);
        }
    }
    return work_at(op, stint.step);
}

/// A block's stints, one after the other.
template <class Op>
struct Course {
    const Op& op;
    const FastArgs& fast;
    /// Of tiles that are not streamed, the next step; of others, the current group.
    u32 step;
    /// How many of the group's slabs have been in a stint; and which tile of its row the current one is of.
    u32 done = 0;
    u32 col = 0;

    IRIS_DEVICE Course(const Op& op, const FastArgs& fast) : op(op), fast(fast), step(does_stream() ? 0 : u32(block_index())) {}

    IRIS_DEVICE bool does_stream() const { return Op::STREAMS && PAIR == 1 && fast.partials != 0; }

    // What follows is made without divisions, as far as it can be: a block that begins has no time for them. The host has made them.

    /// Rows of tiles of the current group.
    IRIS_DEVICE u32 height() const { return u32(fast.streams.height[step]); }
    /// The team of a block, which has the team's row of tiles; and which.
    IRIS_DEVICE u32 team_of(u32 block) const { return block * u32(fast.streams.inverse[step]) >> 16; }
    IRIS_DEVICE u32 row_of(u32 block) const { return block - team_of(block) * height(); }
    /// Where a team's part of a row's slabs begins: those before it have one more, or as many of them as there are.
    IRIS_DEVICE u32 begin_of(u32 team) const {
        return u32(fast.streams.share[step]) * team + u32(smaller(team, fast.streams.more[step]));
    }
    /// Where this block's part begins and ends, of which there may be none: blocks behind the last team have none.
    IRIS_DEVICE u32 from() const { return begin_of(u32(smaller(team_of(u32(block_index())), fast.streams.teams[step]))); }
    IRIS_DEVICE u32 until() const { return begin_of(u32(smaller(team_of(u32(block_index())) + 1, fast.streams.teams[step]))); }

    /// Goes on to the next stint, if there is one.
    IRIS_DEVICE bool next() {
        if (!does_stream()) {
            step += done;
            done = u32(op.args.blocks);
            return step / PAIR * PAIR < u32(op.steps());
        }
        while (from() + done == until()) {
            if (++step == STREAMS_OF_CALL) {
                return false;
            }
            done = 0;
        }
        u32 at = from() + done;
        col = at / slabs();
        done += u32(smaller((col + 1) * slabs() - at, until() - at));
        return true;
    }

    /// The current one. Most of it is found out anew each time, so that it takes no registers while it is multiplied.
    IRIS_DEVICE Stint stint() const {
        if (!does_stream()) {
            u32 slabs = u32(slabs_of(op.depths()));
            u32 half = (slabs + PAIR - 1) / PAIR;
            return step % PAIR == 0 ? Stint{step, 0, half} : Stint{step, half, slabs};
        }
        u32 last = from() + done - 1;
        u32 begin = col * slabs();
        u32 after = from() > begin ? from() - begin : 0;
        u32 above = step == 0 ? 0 : u32(fast.streams.height[0]);
        return {col, begin + slabs() - 1 - last, slabs() - after, slabs(), above + row_of(u32(block_index()))};
    }

    /// Slabs of a tile.
    IRIS_DEVICE u32 slabs() const { return u32(fast.streams.slabs); }

    /// The number of a block's place, among those in which parts of this group's tiles are left.
    IRIS_DEVICE u32 place_of(u32 block) const { return step * STREAMERS + block; }

    /// Calls `each(block)` for those that have made the rest of the current stint's tile, of which it is the head, in the order of the slabs.
    template <class Each>
    IRIS_DEVICE void each_of_rest(Each each) const {
        if (!does_stream()) {
            return;
        }
        u32 own = stint().slabs();
        // So many slabs of the tile are made. Where there are fewer slabs than teams, the last teams have none, and are not come to.
        u32 have = own;
        u32 block = u32(block_index());
        u32 team = team_of(block);
        IRIS_ROLLED
        while (have < slabs()) {
            block += height();
            ++team;
            // What this block has made ends where its team's part does.
            have = own + begin_of(team + 1) - until();
            each(block);
        }
    }
};

} // namespace iris
