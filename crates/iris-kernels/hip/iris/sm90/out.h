// What becomes of a tile: the warpgroups leave it in shared memory, and a wave takes it from there to where it belongs, by copies
// that run while the next tile is multiplied.
#pragma once

#include "ring.h"

namespace iris {

/// Two values rounded to the elements' type, the first one in the lower half.
IRIS_DEVICE u32 narrow2(f32 low, f32 high) {
    u32 both;
    if constexpr (SAME<Element, f16>) {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    } else {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    }
    return both;
}

/// Leaves a warpgroup's rows in shared memory: the sums and, where asked for, the bias of the tile's columns, of which `cols` lie
/// inside, rounded once.
template <bool BIAS>
IRIS_DEVICE void leave_rows(const Accumulators& sums, const Ring& ring, const Element* bias, u32 cols) {
    u32 lane = lane_index();
    // Lane l tells where row l % 8 of the 8 x 8 matrix l / 8 goes: the upper and lower rows at 8 columns, then at the next 8.
    u32 row = thread_index() / 128 * GROUP_M + wave_index() % 4 * 16 + lane % 16;
    IRIS_UNROLL
    for (u32 col = 0; col < TILE_N; col += 16) {
        f32 more[4] = {};
        if constexpr (BIAS) {
            IRIS_UNROLL
            for (u32 at = 0; at < 4; ++at) {
                u32 of = col + at / 2 * 8 + lane % 4 * 2 + at % 2;
                more[at] = of < cols ? to_f32(bias[of]) : 0.0f;
            }
        }
        IRIS_UNROLL
        for (u32 panel = 0; panel < PANELS; ++panel) {
            const f32* d = sums.d[panel] + col / 2;
            u32 packed[4];
            IRIS_UNROLL
            for (u32 at = 0; at < 4; ++at) {
                f32 low = BIAS ? d[at * 2] + more[at / 2 * 2] : d[at * 2];
                f32 high = BIAS ? d[at * 2 + 1] + more[at / 2 * 2 + 1] : d[at * 2 + 1];
                packed[at] = narrow2(low, high);
            }
            u32 to = ring.out(row + panel * 64) + (lane / 16 * 8 + col) * 2;
            asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(packed[0]),
                         "r"(packed[1]), "r"(packed[2]), "r"(packed[3])
                         : "memory");
        }
    }
}

/// Copies `bytes` bytes, a multiple of 16, from shared memory at `from`, as part of this thread's current group of copies.
IRIS_DEVICE void copy_out(void* to, u32 from, u32 bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes) : "memory");
}

/// Ends this thread's group of copies.
IRIS_DEVICE void commit_copies() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/// Waits until all but this thread's latest `PENDING` groups have been read.
template <u32 PENDING>
IRIS_DEVICE void await_copies_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

/// Waits until all of this thread's copies have been written, and orders them before what it does next.
IRIS_DEVICE void await_copies() {
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    fence_async();
}

/// Copies `count` elements from shared memory, one after the other.
IRIS_DEVICE void copy_elements(Element* to, u32 from, u32 count) {
    IRIS_ROLLED
    for (u32 at = 0; at < count; ++at) {
        u16 bits;
        asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bits) : "r"(from + at * 2) : "memory");
        to[at] = Element{bits};
    }
}

} // namespace iris
