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
/// Groups of rows of tiles.
constexpr u32 STREAMS_OF_CALL = 2;

/// Slabs `first` to `end` of the tile at a step, by depth.
struct Stint {
    u32 step;
    u32 first;
    u32 end;
    /// If the tile is streamed, how many it has.
    u32 whole = 0;

    IRIS_DEVICE u32 slabs() const { return end - first; }
    /// Whether the tile is finished after them.
    IRIS_DEVICE bool is_head() const { return end >= whole; }
};

/// What a block streams: made once, since warpgroups have no registers to keep it in.
struct Streams {
    /// Slabs of a tile, and tiles of a row.
    u32 slabs;
    u32 across;
    /// Of each group the rows of tiles; and, among its slabs row of tiles by row, what falls to this block.
    u32 height[STREAMS_OF_CALL];
    u32 from[STREAMS_OF_CALL];
    u32 until[STREAMS_OF_CALL];

    template <class Op>
    IRIS_DEVICE void make(const Op& op) {
        slabs = u32(slabs_of(op.depths()));
        across = u32(ceil_div(op.cols(op.me()), TILE_N));
        for (u32 group = 0; group < STREAMS_OF_CALL; ++group) {
            u32 rows = op.rows_of_group(group);
            height[group] = rows;
            bool has = rows != 0 && u32(block_index()) / rows < u32(op.args.blocks) / rows;
            from[group] = has ? begin_of(group, u32(op.args.blocks), u32(block_index()) / rows) : 0;
            until[group] = has ? begin_of(group, u32(op.args.blocks), u32(block_index()) / rows + 1) : 0;
        }
    }
    /// Where the part of a group's slabs begins that falls to a team.
    IRIS_DEVICE u32 begin_of(u32 group, u32 blocks, u32 team) const { return across * slabs * team / (blocks / height[group]); }
};

/// A block's stints, one after the other.
template <class Op>
struct Course {
    const Op& op;
    const Streams& streams;
    /// Where blocks leave parts of tiles, if these are streamed; else 0.
    const u64& partials;
    /// Of tiles that are not streamed, the next step; of others, the current group.
    u32 step;
    /// How many of the group's slabs have been in a stint.
    u32 done = 0;

    IRIS_DEVICE Course(const Op& op, const Streams& streams, const u64& partials)
        : op(op), streams(streams), partials(partials), step(does_stream() ? 0 : u32(block_index())) {}

    IRIS_DEVICE bool does_stream() const { return Op::STREAMS && PAIR == 1 && partials != 0; }

    /// Goes on to the next stint, if there is one.
    IRIS_DEVICE bool next() {
        if (!does_stream()) {
            step += done;
            done = u32(op.args.blocks);
            return step / PAIR * PAIR < u32(op.steps());
        }
        while (streams.from[step] + done == streams.until[step]) {
            if (++step == STREAMS_OF_CALL) {
                return false;
            }
            done = 0;
        }
        u32 at = streams.from[step] + done;
        done += u32(smaller(streams.slabs - at % streams.slabs, streams.until[step] - at));
        return true;
    }

    /// The current one. It is found out anew each time, so that it takes no registers while it is multiplied.
    IRIS_DEVICE Stint stint() const {
        if (!does_stream()) {
            u32 slabs = u32(slabs_of(op.depths()));
            u32 half = (slabs + PAIR - 1) / PAIR;
            return step % PAIR == 0 ? Stint{step, 0, half} : Stint{step, half, slabs};
        }
        u32 height = streams.height[step];
        u32 last = streams.from[step] + done - 1;
        u32 col = last / streams.slabs;
        u32 begin = col * streams.slabs;
        u32 after = streams.from[step] > begin ? streams.from[step] - begin : 0;
        u32 before = step == 0 ? 0 : streams.height[0] * streams.across;
        return {before + Grid::number(u32(block_index()) % height, col, height, streams.across), begin + streams.slabs - 1 - last,
                streams.slabs - after, streams.slabs};
    }

    /// The number of a block's place, among those in which parts of this group's tiles are left.
    IRIS_DEVICE u32 place_of(u32 block) const { return step * STREAMERS + block; }

    /// Calls `each(block)` for those that have made the rest of the current stint's tile, of which it is the head, in the order of the slabs.
    template <class Each>
    IRIS_DEVICE void each_of_rest(Each each) const {
        if (!does_stream()) {
            return;
        }
        u32 own = stint().slabs();
        // So many slabs of the tile are made.
        u32 have = own;
        u32 height = streams.height[step];
        IRIS_ROLLED
        for (u32 block = u32(block_index()) + height; have < streams.slabs; block += height) {
            // What this block has made ends where `until` is.
            u32 then = own + streams.begin_of(step, u32(op.args.blocks), block / height + 1) - streams.until[step];
            if (then == have) {
                continue; // there are fewer slabs than teams
            }
            have = then;
            each(block);
        }
    }
};

} // namespace iris
