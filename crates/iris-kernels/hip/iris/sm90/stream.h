// What blocks leave of tiles that others finish, and how it gets there: see `stints.h`.
//
// It lies in memory, wave by wave, and comes into the head's ring by copies, behind the slabs of the tile: so the head's warpgroups, which have no
// registers for it, find it in shared memory, and the loader waits for the flags.
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
/// What a wave leaves, which has the sums of 16 rows: of each chunk those of all its lanes, side by side.
constexpr u32 WAVE_BYTES = QUADS * LANES * 16;
/// Of so many waves a stage of the ring has room for what they leave.
constexpr u32 WAVES_AT_ONCE = STAGE_BYTES / WAVE_BYTES;
static_assert(WAVES_AT_ONCE > 0 || PAIR == 2, "a stage has room for what a wave leaves");

/// What there is to do with the sums of a streamed stint: found out by the loader, and told with the stint's first slab.
struct Duty {
    u32 bits;

    /// `leaves` is whether another block finishes the tile; the ring brings what others have made of it in so many stages.
    IRIS_DEVICE static Duty of(u32 waves, bool leaves, u32 stages) { return {waves | u32(leaves) << 8 | stages << 16}; }
    /// Waves that have sums of the tile's rows. Of rows that are none nothing is ever taken away.
    IRIS_DEVICE u32 waves() const { return bits & 0xff; }
    IRIS_DEVICE bool leaves() const { return (bits >> 8 & 1) != 0; }
    IRIS_DEVICE u32 stages() const { return bits >> 16; }
};

/// That of the current stint, of a tile of so many rows.
template <class Op>
IRIS_DEVICE Duty duty_of(const Course<Op>& course, u32 rows) {
    bool head = course.stint().is_head();
    u32 waves = (rows + 15) / 16;
    u32 each = (waves + WAVES_AT_ONCE - 1) / WAVES_AT_ONCE;
    u32 stages = 0;
    if (head) {
        course.each_of_rest([&](u32) { stages += each; });
    }
    return Duty::of(waves, !head, stages);
}

/// Where what a wave of a block leaves lies.
template <class Op>
IRIS_DEVICE u64 left_by(const Course<Op>& course, u32 block, u32 wave) {
    return course.fast.partials + FLAG_BYTES + u64(course.place_of(block)) * SUM_BYTES + wave * WAVE_BYTES;
}
/// The flag of a block's warpgroup.
template <class Op>
IRIS_DEVICE u32* flag_of(const Course<Op>& course, u32 block, u32 group) {
    return global<u32>(course.fast.partials) + course.place_of(block) * 2 + group;
}

/// Leaves sums to who finishes the tile.
template <class Op>
IRIS_DEVICE void hand_over(const Course<Op>& course, const Accumulators& sums, Duty duty) {
    u32 me = u32(block_index());
    u32 wave = thread_index() / LANES;
    float4* to = global<float4>(left_by(course, me, wave)) + lane_index();
    bool has_rows = wave < duty.waves();
    IRIS_UNROLL
    for (u32 quad = 0; quad < QUADS && has_rows; ++quad) {
        const f32* d = sums.d + quad * 4;
        to[quad * LANES] = {d[0], d[1], d[2], d[3]};
    }
    sync_group(thread_index() / 128);
    if (thread_index() % 128 == 0) {
        store<Order::release, Scope::device>(flag_of(course, me, thread_index() / 128), 1u);
    }
}

/// Waits, with a wave, until other blocks have made the rest of the current tile. Their flags are looked at side by side, as far as there are lanes.
template <class Op>
IRIS_DEVICE void await_rest(const Course<Op>& course) {
    u32 count = 0;
    u32 from = 0;
    IRIS_ROLLED
    do {
        u32* flag = nullptr;
        count = 0;
        course.each_of_rest([&](u32 block) {
            if (count == from + lane_index() / GROUPS) {
                flag = flag_of(course, block, lane_index() % GROUPS);
            }
            ++count;
        });
        if (flag != nullptr) {
            while (load<Order::acquire, Scope::device>(flag) == 0) {
                spin();
            }
            store<Order::relaxed, Scope::device>(flag, 0u);
        }
        from += LANES / GROUPS;
    } while (from < count);
}

/// Fills the ring with what other blocks have made of a head's tile, with one wave: block by block, in the order of their slabs.
template <class Op>
IRIS_DEVICE void load_rest(const Course<Op>& course, const Ring& ring, Place& place, Duty duty) {
    await_rest(course);
    fence_async(); // what they have stored is read by copies
    sync_wave();
    if (elected()) {
        course.each_of_rest([&](u32 block) {
            for (u32 first = 0; first < duty.waves(); first += WAVES_AT_ONCE) {
                u32 bytes = u32(smaller(WAVES_AT_ONCE, duty.waves() - first)) * WAVE_BYTES;
                u32 full = ring.full(place.stage);
                await_phase(ring.empty(place.stage), place.parity ^ 1);
                arrive_expecting(full, bytes);
                copy_bytes(ring.a(place.stage), global<u8>(left_by(course, block, first)), full, bytes);
                place.advance();
            }
        });
    }
    sync_wave();
}

/// Adds what `load_rest` brings to a head's sums.
IRIS_DEVICE void add_rest(Accumulators& sums, const Ring& ring, Place& place, Duty duty) {
    u32 wave = same_in_wave(thread_index() / LANES);
    u32 first = 0;
    IRIS_ROLLED
    for (u32 left = duty.stages(); left != 0; --left) {
        await_phase(ring.full(place.stage), place.parity);
        if (wave >= first && wave < smaller(first + WAVES_AT_ONCE, duty.waves())) {
            u32 from = ring.a(place.stage) + (wave - first) * WAVE_BYTES + lane_index() * 16;
            IRIS_UNROLL
            for (u32 quad = 0; quad < QUADS; ++quad) {
                Vec16 part = load_shared(from + quad * LANES * 16);
                IRIS_UNROLL
                for (u32 each = 0; each < 4; ++each) {
                    sums.d[quad * 4 + each] += __builtin_bit_cast(f32, part.x[each]);
                }
            }
        }
        first = first + WAVES_AT_ONCE < duty.waves() ? first + WAVES_AT_ONCE : 0;
        sync_group(thread_index() / 128);
        if (thread_index() % 128 == 0) {
            arrive(ring.empty(place.stage));
        }
        place.advance();
    }
}

} // namespace iris
