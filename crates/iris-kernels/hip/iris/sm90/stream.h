// What blocks leave of tiles that others finish, and how it gets there: see `stints.h`.
#pragma once

#include "ring.h"
#include "stints.h"

namespace iris {

/// Bytes of the flags, of which each warpgroup has its own: the same for every tile, since calls with other tiles use the same memory.
constexpr u32 FLAG_BYTES = STREAMS_OF_CALL * STREAMERS * 2 * 4;
/// Bytes of a tile's sums.
constexpr u32 SUM_BYTES = TILE_M * TILE_N * 4;

/// Chunks of a thread's sums.
constexpr u32 QUADS = TILE_N / 8;

/// Whether this thread's wave has sums of rows of the current tile: each wave has those of 16. Of rows that are none nothing is ever taken away.
template <class Op>
IRIS_DEVICE bool wave_has_rows(const Course<Op>& course) {
    return thread_index() / 32 * 16 < course.op.work(course.stint().step).block.rows;
}

/// Where the sums of this thread lie in what a block leaves.
template <class Op>
IRIS_DEVICE float4* left_by(const Course<Op>& course, u32 block) {
    u64 left = course.partials + FLAG_BYTES + u64(course.place_of(block)) * SUM_BYTES;
    return global<float4>(left) + thread_index() / 128 * (QUADS * 128) + thread_index() % 128;
}
/// The flag of this thread's warpgroup there.
template <class Op>
IRIS_DEVICE u32* flag_of(const Course<Op>& course, u32 block) {
    return global<u32>(course.partials) + course.place_of(block) * 2 + thread_index() / 128;
}

/// Leaves sums to who finishes the tile.
template <class Op>
IRIS_DEVICE void hand_over(const Course<Op>& course, const Accumulators& sums) {
    float4* to = left_by(course, u32(block_index()));
    bool has_rows = wave_has_rows(course);
    IRIS_UNROLL
    for (u32 quad = 0; quad < QUADS && has_rows; ++quad) {
        const f32* d = sums.d + quad * 4;
        to[quad * 128] = {d[0], d[1], d[2], d[3]};
    }
    sync_group(thread_index() / 128);
    if (thread_index() % 128 == 0) {
        store<Order::release, Scope::device>(flag_of(course, u32(block_index())), 1u);
    }
}

/// Adds to a head's sums what other blocks have made of the tile. `pause` is called now and then: without something that they cannot look
/// beyond, compilers load all at once, for which there are no registers.
template <class Op, class Pause>
IRIS_DEVICE void add_rest(const Course<Op>& course, Accumulators& sums, Pause pause) {
    course.each_of_rest([&](u32 block) {
        if (thread_index() % 128 == 0) {
            u32* flag = flag_of(course, block);
            while (load<Order::acquire, Scope::device>(flag) == 0) {
                spin();
            }
            store<Order::relaxed, Scope::device>(flag, 0u);
        }
        sync_group(thread_index() / 128);
        bool has_rows = wave_has_rows(course);
        const float4* from = left_by(course, block);
        IRIS_UNROLL
        for (u32 quad = 0; quad < QUADS && has_rows; ++quad) {
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
    });
}

} // namespace iris
