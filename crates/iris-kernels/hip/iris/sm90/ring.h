// The ring of slabs in shared memory: one wave fills it by copies, running ahead over tiles, and warpgroups multiply from it.
#pragma once

#include "async.h"
#include "wgmma.h"

/// Slabs in the ring.
#ifndef IRIS_STAGES
#define IRIS_STAGES 4
#endif
/// Blocks of a cluster. They have tiles one below the other, and share what they copy of B.
#ifndef IRIS_CLUSTER
#define IRIS_CLUSTER 1
#endif
/// By how many slabs the first warpgroup leads the second, so that one multiplies while the other brings its sums away.
#ifndef IRIS_LEAD
#define IRIS_LEAD 1
#endif

namespace iris {

constexpr u32 STAGES = IRIS_STAGES;
constexpr u32 CLUSTER = IRIS_CLUSTER;
/// Warpgroups that multiply, and the panels of A that each has of a tile.
constexpr u32 GROUPS = IRIS_WARPGROUPS;
constexpr u32 PANELS = TILE_M / 64 / GROUPS;
static_assert(PANELS * 64 * GROUPS == TILE_M, "warpgroups share the tile's rows");
/// Rows of a tile that a warpgroup has.
constexpr u32 GROUP_M = TILE_M / GROUPS;

constexpr u32 A_BYTES = TILE_M * SLAB_K * 2;
constexpr u32 B_BYTES = TILE_N * SLAB_K * 2;
constexpr u32 STAGE_BYTES = A_BYTES + B_BYTES;
/// Bytes from one row of a finished tile to the next: whole 16 bytes, and no multiple of the banks.
constexpr u32 OUT_PITCH = TILE_N * 2 + 16;
constexpr u32 OUT_BYTES = TILE_M * OUT_PITCH;

/// Where things are in the block's dynamic shared memory, from the first multiple of 1024 on.
struct Ring {
    u32 base;

    static constexpr u32 OUT = STAGES * STAGE_BYTES;
    static constexpr u32 BARRIERS = OUT + OUT_BYTES;
    static constexpr u32 BYTES = BARRIERS + (STAGES + GROUPS) * 16;

    IRIS_DEVICE u32 a(u32 stage) const { return base + stage * STAGE_BYTES; }
    IRIS_DEVICE u32 b(u32 stage) const { return base + stage * STAGE_BYTES + A_BYTES; }
    /// Row `row` of a finished tile.
    IRIS_DEVICE u32 out(u32 row) const { return base + OUT + row * OUT_PITCH; }
    /// Its phases end when a slab is there.
    IRIS_DEVICE u32 full(u32 stage) const { return base + BARRIERS + stage * 16; }
    /// Its phases end when a slab has been read, by all blocks that a copy goes to.
    IRIS_DEVICE u32 empty(u32 stage) const { return full(stage) + 8; }
    /// Its phases end when a warpgroup's rows of a tile are there.
    IRIS_DEVICE u32 finished(u32 group) const { return base + BARRIERS + (STAGES + group) * 16; }
    /// Its phases end when they have been read.
    IRIS_DEVICE u32 taken(u32 group) const { return finished(group) + 8; }

    /// Makes the barriers, with one thread.
    IRIS_DEVICE void make() const {
        for (u32 stage = 0; stage < STAGES; ++stage) {
            barrier_init(full(stage), 1);
            barrier_init(empty(stage), GROUPS * CLUSTER);
        }
        for (u32 group = 0; group < GROUPS; ++group) {
            barrier_init(finished(group), 128);
            barrier_init(taken(group), 1);
        }
        barriers_made();
    }
};

/// A place in the sequence of slabs.
struct Place {
    u32 stage = 0;
    u32 parity = 0;

    IRIS_DEVICE void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/// How the operands lie, and what copies them.
struct Operands {
    TensorMap a;
    TensorMap b;
    /// Whether depth is what lies side by side.
    u64 a_deep;
    u64 b_deep;
    /// Bytes of a slab: a deep A may have boxes of fewer rows than a tile.
    u64 bytes;
};

/// Copies a slab of both operands to where `place` is, with one thread.
IRIS_DEVICE void copy_slab(const Ring& ring, Place place, const Operands& operands, u64 row, u64 col, u64 depth, u32 part) {
    await_phase(ring.empty(place.stage), place.parity ^ 1);
    u32 full = ring.full(place.stage);
    arrive_expecting(full, u32(operands.bytes));
    u32 a = ring.a(place.stage);
    u32 b = ring.b(place.stage);
    if (operands.a_deep) {
        copy_box(a, operands.a, full, i32(depth), i32(row));
    } else {
        IRIS_UNROLL
        for (u32 at = 0; at < TILE_M; at += 64) {
            copy_box(a + at * 128, operands.a, full, i32(row + at), i32(depth));
        }
    }
    constexpr u32 SHARE = TILE_N / CLUSTER;
    u32 first = part * SHARE;
    auto copy_b = [&](u32 at, i32 x, i32 y) {
        if constexpr (CLUSTER == 1) {
            copy_box(b + at * 128, operands.b, full, x, y);
        } else {
            copy_box_to(u16((1 << CLUSTER) - 1), b + at * 128, operands.b, full, x, y);
        }
    };
    if (operands.b_deep) {
        copy_b(first, i32(depth), i32(col + first));
    } else {
        IRIS_UNROLL
        for (u32 at = 0; at < SHARE; at += 64) {
            copy_b(first + at, i32(col + first + at), i32(depth));
        }
    }
}

/// A thread's part of a tile of the product.
struct Accumulators {
    f32 d[PANELS][TILE_N / 2];
};

/// Lets the slab at `stage` be overwritten, once all of a warpgroup has read it.
IRIS_DEVICE void release_slab(const Ring& ring, u32 stage) {
    if constexpr (CLUSTER == 1) {
        if (thread_index() % 128 == 0) {
            arrive(ring.empty(stage));
        }
    } else {
        if (thread_index() % 128 < CLUSTER) {
            arrive_at(ring.empty(stage), thread_index() % 128);
        }
    }
}

/// Multiplies `slabs` slabs, from `place` on.
template <bool A_DEEP, bool B_DEEP>
IRIS_DEVICE void multiply_slabs(Accumulators& sums, const Ring& ring, Place& place, u32 slabs, u32 lead) {
    u32 share = thread_index() / 128;
    u32 previous = place.stage;
    u32 add = 0;
    for (u32 slab = 0; slab < slabs; ++slab) {
        await_phase(ring.full(place.stage), place.parity);
        u64 a = describe(ring.a(place.stage) + share * PANELS * PANEL_BYTES);
        u64 b = describe(ring.b(place.stage));
        begin_multiplying();
        IRIS_UNROLL
        for (u32 step = 0; step < SLAB_K / STEP_K; ++step) {
            IRIS_UNROLL
            for (u32 panel = 0; panel < PANELS; ++panel) {
                Multiply<Element, TILE_N, A_DEEP, B_DEEP>::add(sums.d[panel], a + step * STEP<A_DEEP> + panel * (PANEL_BYTES >> 4),
                                                                b + step * STEP<B_DEEP>, add);
            }
            add = 1;
        }
        commit_multiplying();
        if (lead != 0 && slab == smaller(lead, slabs) - 1) {
            asm volatile("bar.arrive 3, 256;" ::: "memory");
        }
        if (slab > 0) {
            await_multiplied<1>();
            release_slab(ring, previous);
        }
        previous = place.stage;
        place.advance();
    }
    await_multiplied<0>();
    if (slabs > 0) {
        release_slab(ring, previous);
    }
}

IRIS_DEVICE void multiply_slabs(Accumulators& sums, const Ring& ring, Place& place, u32 slabs, const Operands& operands, u32 lead = 0) {
    if (operands.a_deep) {
        if (operands.b_deep) {
            multiply_slabs<true, true>(sums, ring, place, slabs, lead);
        } else {
            multiply_slabs<true, false>(sums, ring, place, slabs, lead);
        }
    } else {
        if (operands.b_deep) {
            multiply_slabs<false, true>(sums, ring, place, slabs, lead);
        } else {
            multiply_slabs<false, false>(sums, ring, place, slabs, lead);
        }
    }
}

} // namespace iris
