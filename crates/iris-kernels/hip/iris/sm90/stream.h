// Which tiles a block makes, and which slabs of them.
//
// Tiles go round the blocks, and where they do not come out even, some blocks have nothing to do while others make the last ones. Where
// that costs more than what follows, tiles are *streamed*: the slabs of all tiles, one tile after the other, are one sequence, of which
// each block has an equal part. So a block may begin in the middle of a tile and end in the middle of another. Who has a tile's first
// slabs, its *head*, finishes it. It adds what the blocks after it have made of the tile, in their order, so that sums do not depend on
// who is faster; those leave their sums in memory, each in a place of its own, and raise a flag.
//
// All rows of tiles of a group are streamed beside each other, by as many blocks: a team. So the slabs of B that they have in common are
// read at the same time. A group's tiles are streamed before those of the next.
//
// *Invariant:* nobody waits in a ring. What a head waits for is the first of a group that another block makes, which waits for no block of
// this rank; and a crew that may not go on still makes it (`crews.h`). So these waits need no budget, and nobody leaves them.
//
// Flags are zero between calls: the one who waits for a flag lowers it, and whoever raises it is in a later call of the workspace, which
// begins when this one has ended. A reset zeroes them, should a device have failed.
#pragma once

#include "ring.h"

namespace iris {

/// Blocks that stream at most: the twin of `STREAMERS` in `src/device/fast.rs`.
constexpr u32 STREAMERS = 144;
/// Groups of rows of tiles.
constexpr u32 STREAMS_OF_CALL = 2;
/// Bytes of the flags, of which each warpgroup has its own: the same for every tile, since calls with other tiles use the same memory.
constexpr u32 FLAG_BYTES = STREAMS_OF_CALL * STREAMERS * 2 * 4;
/// Bytes of a tile's sums.
constexpr u32 SUM_BYTES = TILE_M * TILE_N * 4;

/// Slabs `first` to `end` of the tile at a step.
struct Stint {
    u32 step;
    u32 first;
    u32 end;

    IRIS_DEVICE u32 slabs() const { return end - first; }
    IRIS_DEVICE bool is_head() const { return first == 0; }
};

/// Chunks of a thread's sums.
constexpr u32 QUADS = TILE_N / 8;

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
            bool has = rows != 0 && block_index() / rows < u32(op.args.blocks) / rows;
            from[group] = has ? begin_of(group, u32(op.args.blocks), block_index() / rows) : 0;
            until[group] = has ? begin_of(group, u32(op.args.blocks), block_index() / rows + 1) : 0;
        }
    }
    /// Where the part of a group's slabs begins that falls to a team.
    IRIS_DEVICE u32 begin_of(u32 group, u32 blocks, u32 team) const { return across * slabs * team / (blocks / height[group]); }
};

/// A block's stints, one after the other.
template <class Op>
struct Course {
    const Op& op;
    const FastArgs& fast;
    const Streams& streams;
    /// Of tiles that are not streamed, the next step; of others, the current group.
    u32 step;
    /// How many of the group's slabs have been in a stint.
    u32 done = 0;

    IRIS_DEVICE Course(const Op& op, const FastArgs& fast, const Streams& streams)
        : op(op), fast(fast), streams(streams), step(does_stream() ? 0 : block_index()) {}

    IRIS_DEVICE bool does_stream() const { return Op::STREAMS && fast.partials != 0; }

    /// Goes on to the next stint, if there is one.
    IRIS_DEVICE bool next() {
        if (!does_stream()) {
            step += done;
            done = u32(op.args.blocks);
            return step < u32(op.steps());
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
            return {step, 0, u32(slabs_of(op.depths()))};
        }
        u32 height = streams.height[step];
        u32 last = streams.from[step] + done - 1;
        u32 col = last / streams.slabs;
        u32 begin = col * streams.slabs;
        u32 first = streams.from[step] > begin ? streams.from[step] - begin : 0;
        u32 before = step == 0 ? 0 : streams.height[0] * streams.across;
        return {before + Grid::number(block_index() % height, col, height, streams.across), first, last + 1 - begin};
    }

    IRIS_DEVICE u32* flag(u32 block) const {
        u32 nth = (step * STREAMERS + block) * 2 + thread_index() / 128;
        return global<u32>(fast.partials) + nth;
    }
    /// Where the sums of this thread lie in what a block leaves.
    IRIS_DEVICE float4* left_by(u32 block) const {
        u64 place = fast.partials + FLAG_BYTES + u64(step * STREAMERS + block) * SUM_BYTES;
        return global<float4>(place) + thread_index() / 128 * (QUADS * 128) + thread_index() % 128;
    }

    /// Leaves sums to who finishes the tile.
    IRIS_DEVICE void hand_over(const Accumulators& sums) const {
        float4* to = left_by(block_index());
        IRIS_UNROLL
        for (u32 quad = 0; quad < QUADS; ++quad) {
            const f32* d = sums.d + quad * 4;
            to[quad * 128] = {d[0], d[1], d[2], d[3]};
        }
        sync_group(thread_index() / 128);
        if (thread_index() % 128 == 0) {
            store<Order::release, Scope::device>(flag(block_index()), 1u);
        }
    }

    /// Adds to a head's sums what other blocks have made of the tile.
    /// `pause` is called now and then: without something that they cannot look beyond, compilers load all at once, for which there are no
    /// registers.
    template <class Pause>
    IRIS_DEVICE void add_rest(Accumulators& sums, Pause pause) const {
        if (!does_stream()) {
            return;
        }
        u32 end = stint().end;
        // So many slabs of the tile are summed.
        u32 have = end;
        u32 height = streams.height[step];
        IRIS_ROLLED
        for (u32 block = block_index() + height; have < streams.slabs; block += height) {
            // What this block has made ends where `until` is.
            u32 then = end + streams.begin_of(step, u32(op.args.blocks), block / height + 1) - streams.until[step];
            if (then == have) {
                continue; // there are fewer slabs than teams
            }
            have = then;
            if (thread_index() % 128 == 0) {
                while (load<Order::acquire, Scope::device>(flag(block)) == 0) {
                }
                store<Order::relaxed, Scope::device>(flag(block), 0u);
            }
            sync_group(thread_index() / 128);
            const float4* from = left_by(block);
            IRIS_UNROLL
            for (u32 quad = 0; quad < QUADS; ++quad) {
                if (quad % 8 == 0) {
                    pause();
                }
                float4 part = from[quad * 128];
                f32* d = sums.d + quad * 4;
                d[0] += part.x;
                d[1] += part.y;
                d[2] += part.z;
                d[3] += part.w;
            }
        }
    }
};

} // namespace iris
