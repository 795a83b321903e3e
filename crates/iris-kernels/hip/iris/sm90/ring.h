// The ring of slabs in a block's shared memory: the loader fills it by copies, and the warpgroups multiply from it.
#pragma once

#include "wgmma.h"

/// Slabs in the ring.
#ifndef IRIS_STAGES
#define IRIS_STAGES 3
#endif

namespace iris {

constexpr u32 STAGES = IRIS_STAGES;
/// Warpgroups that multiply, and the rows of a tile that each has.
constexpr u32 GROUPS = IRIS_WARPGROUPS;
constexpr u32 GROUP_M = 64;
static_assert(GROUPS * GROUP_M == TILE_M, "warpgroups share the tile's rows");

/// A slab consists of boxes of A, one behind the other, and then of those of B. Where it has room for fewer rows of A than a tile has, the
/// warpgroup multiplies as the others whatever follows, and nobody takes away what comes out.
constexpr u32 A_BOX = A_ROWS * BOX_K * 2;
constexpr u32 B_BOX = PAIR * TILE_N * BOX_K * 2;
constexpr u32 A_BYTES = A_BOX * BOXES;
constexpr u32 B_BYTES = B_BOX * BOXES;
constexpr u32 STAGE_BYTES = A_BYTES + B_BYTES;
constexpr u32 OUT_BYTES = TILE_M * TILE_N * 2;
/// What a partner gives: its sums of a tile.
constexpr u32 EXCHANGE_BYTES = PAIR == 1 ? 0 : TILE_M * TILE_N * 4;
/// Slabs of B that a block asks for at a time beside A that is under way: some 64 KiB. Half of that does not keep the memory busy, which
/// `copy_ahead` makes use of.
constexpr u32 FLIGHT = 65536 / B_BYTES;

/// Where things are in the block's dynamic shared memory, from the first multiple of 1024 on.
struct Ring {
    u32 base;

    static constexpr u32 OUT = STAGES * STAGE_BYTES;
    static constexpr u32 EXCHANGE = OUT + OUT_BYTES;
    static constexpr u32 BARRIERS = EXCHANGE + EXCHANGE_BYTES;
    static constexpr u32 ACROSS_PAIR = BARRIERS + (STAGES + GROUPS) * 16 + STAGES * 8;
    static constexpr u32 BYTES = ACROSS_PAIR + (PAIR - 1) * GROUPS * 16;

    IRIS_DEVICE u32 a(u32 stage) const { return base + stage * STAGE_BYTES; }
    IRIS_DEVICE u32 b(u32 stage) const { return base + stage * STAGE_BYTES + A_BYTES; }
    /// Where a chunk of a finished tile lies: as in a slot.
    IRIS_DEVICE u32 out(u32 row, u32 col) const { return base + OUT + in_slot(row, col); }
    /// Its phases end when a slab is there.
    IRIS_DEVICE u32 full(u32 stage) const { return base + BARRIERS + stage * 16; }
    /// Its phases end when a slab has been read.
    IRIS_DEVICE u32 empty(u32 stage) const { return full(stage) + 8; }
    /// Its phases end when a warpgroup's rows of a tile are there.
    IRIS_DEVICE u32 finished(u32 group) const { return base + BARRIERS + (STAGES + group) * 16; }
    /// Its phases end when they have been taken away.
    IRIS_DEVICE u32 taken(u32 group) const { return finished(group) + 8; }
    /// Its first phase ends when the slab of B is there that was asked for ahead of A.
    IRIS_DEVICE u32 flight(u32 stage) const { return base + BARRIERS + (STAGES + GROUPS) * 16 + stage * 8; }

    /// Where the partner leaves what it gives to a warpgroup; the barrier whose phases end when it is there; and the one whose phases end when
    /// the partner has read what it was given.
    IRIS_DEVICE u32 exchange(u32 group) const { return base + EXCHANGE + group * (EXCHANGE_BYTES / GROUPS); }
    IRIS_DEVICE u32 given(u32 group) const { return base + ACROSS_PAIR + group * 16; }
    IRIS_DEVICE u32 read(u32 group) const { return given(group) + 8; }

    /// Makes the barriers, with one thread. Besides the loader, `fillers` waves fill a slab.
    IRIS_DEVICE void make(u32 fillers) const {
        for (u32 stage = 0; stage < STAGES; ++stage) {
            barrier_init(full(stage), 1 + fillers);
            barrier_init(empty(stage), GROUPS);
            barrier_init(flight(stage), 1);
        }
        for (u32 group = 0; group < GROUPS; ++group) {
            barrier_init(finished(group), 128);
            barrier_init(taken(group), 1);
            if (PAIR == 2) {
                barrier_init(given(group), 1);
                barrier_init(read(group), 1);
            }
        }
        barriers_made();
    }
};

/// A place in the sequence of slabs.
struct Place {
    u32 stage = 0;
    u32 parity = 0;

    /// That of the slab before which there were so many.
    IRIS_DEVICE static Place of(u32 slabs) { return {slabs % STAGES, slabs / STAGES % 2}; }

    /// That of the slab so many before this one, fewer than the ring has.
    IRIS_DEVICE Place before(u32 slabs) const {
        return stage < slabs ? Place{stage + STAGES - slabs, parity ^ 1} : Place{stage - slabs, parity};
    }
    IRIS_DEVICE void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/// The rows of A that a tile is made of, as they are copied: of this rank's A, or of the one that is gathered here. Found out once for all its slabs,
/// since what a lane does from one slab to the next is how fast slabs come.
struct Rows {
    const TensorMap* map;
    i32 first;
    /// Whether the depth is what lies side by side; and bytes of a slab of them.
    bool deep;
    u32 bytes;

    IRIS_DEVICE static Rows of(const FastArgs& fast, bool gathered, u32 first) {
        u64 bytes = gathered ? fast.gathered_bytes : fast.a_bytes;
        return {gathered ? &fast.gathered : &fast.a, i32(first), gathered || fast.a_deep, u32(bytes) * BOXES};
    }
};

/// Copies a slab of A to where `place` is, with one lane: the depths from `depth` on.
IRIS_DEVICE void copy_a(const Ring& ring, Place place, const Rows& rows, i32 depth) {
    u32 full = ring.full(place.stage);
    IRIS_UNROLL
    for (u32 box = 0; box < BOXES; ++box, depth += BOX_K) {
        u32 a = ring.a(place.stage) + box * A_BOX;
        if (rows.deep) {
            copy_box(a, *rows.map, full, depth, rows.first);
        } else {
            IRIS_UNROLL
            for (u32 at = 0; at < TILE_M; at += 64) {
                copy_box(a + at * 128, *rows.map, full, rows.first + at, depth);
            }
        }
    }
}

/// Where the columns of tiles begin of which a slab has B.
struct Columns {
    i32 from[PAIR];
};

/// The same of B: of these columns. The barrier `full` is told.
IRIS_DEVICE void copy_b(const Ring& ring, Place place, u32 full, const FastArgs& fast, const Columns& cols, i32 depth) {
    IRIS_UNROLL
    for (u32 box = 0; box < BOXES; ++box, depth += BOX_K) {
        IRIS_UNROLL
        for (u32 nth = 0; nth < PAIR; ++nth) {
            u32 b = ring.b(place.stage) + box * B_BOX + nth * (TILE_N * 128);
            i32 col = cols.from[nth];
            if (fast.b_deep) {
                copy_box_by(fast.b_policy, b, fast.b, full, depth, col);
            } else {
                IRIS_UNROLL
                for (u32 at = 0; at < TILE_N; at += 64) {
                    copy_box_by(fast.b_policy, b + at * 128, fast.b, full, col + at, depth);
                }
            }
        }
    }
}

/// A thread's part of the tiles that a block makes slabs of, one behind the other; and of its own alone when it has come from both blocks of
/// a pair.
struct Accumulators {
    f32 d[PAIR * TILE_N / 2];
};

/// Sums of nothing.
IRIS_DEVICE void clear(Accumulators& sums) {
    IRIS_UNROLL
    for (u32 at = 0; at < PAIR * TILE_N / 2; ++at) {
        sums.d[at] = 0.0f;
    }
}

/// Keeps what is done to sums before this apart from the multiplication that follows. If ptxas takes it for a part of that, it waits for
/// each instruction (its remark C7515, which tests look for).
IRIS_DEVICE void settle(Accumulators& sums) {
    IRIS_UNROLL
    for (u32 at = 0; at < PAIR * TILE_N / 2; ++at) {
        keep_apart(sums.d[at]);
    }
}

/// Adds the product of `slabs` slabs, at least one, from `place` on.
template <bool A_DEEP, bool B_DEEP>
IRIS_DEVICE void multiply_slabs(Accumulators& sums, const Ring& ring, Place& place, u32 slabs) {
    // Matrix instructions take their operands from all lanes together.
    u32 group = same_in_wave(thread_index() / 128);
    // One thread lets a slab be overwritten, once all of its warpgroup have read it.
    bool speaks = thread_index() % 128 == 0;
    u32 previous = place.stage;
    settle(sums);
    for (u32 slab = 0; slab < slabs; ++slab) {
        u32 stage = same_in_wave(place.stage);
        u64 a = describe(ring.a(stage) + group * PANEL_BYTES);
        u64 b = describe(ring.b(stage));
        await_phase(ring.full(place.stage), place.parity);
        begin_multiplying();
        IRIS_UNROLL
        for (u32 box = 0; box < BOXES; ++box) {
            IRIS_UNROLL
            for (u32 step = 0; step < BOX_K / STEP_K; ++step) {
                Multiply<Element, PAIR * TILE_N, A_DEEP, B_DEEP>::add(sums.d, a + (box * A_BOX >> 4) + step * STEP<A_DEEP>,
                                                                      b + (box * B_BOX >> 4) + step * STEP<B_DEEP>);
            }
        }
        commit_multiplying();
        if (slab > 0) {
            await_multiplied<1>();
            if (speaks) {
                arrive(ring.empty(previous));
            }
        }
        previous = place.stage;
        place.advance();
    }
    await_multiplied<0>();
    if (speaks) {
        arrive(ring.empty(previous));
    }
}

IRIS_DEVICE void multiply_slabs(Accumulators& sums, const Ring& ring, Place& place, u32 slabs, const FastArgs& fast) {
    // What is gathered is deep, and only where A is.
    if (fast.a_deep) {
        if (fast.b_deep) {
            multiply_slabs<true, true>(sums, ring, place, slabs);
        } else {
            multiply_slabs<true, false>(sums, ring, place, slabs);
        }
    } else {
        if (fast.b_deep) {
            multiply_slabs<false, true>(sums, ring, place, slabs);
        } else {
            multiply_slabs<false, false>(sums, ring, place, slabs);
        }
    }
}

} // namespace iris
