// What becomes of a tile: each wave brings its part into rows, through shared memory of its own.
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

/// Rounds the sums, of which `rows` by `cols` lie inside, and hands them to `sink(row, col, chunk, count)`: chunks of 16 bytes,
/// of which `count` elements lie inside. `bias`, where there is one, is that of the tile's columns.
template <class Sink>
IRIS_DEVICE void drain(const Accumulators& sums, const Ring& ring, const Element* bias, u32 rows, u32 cols, Sink sink) {
    u32 lane = lane_index();
    u32 strip = ring.strip(wave_index());
    u32 first = PINGPONG ? 0 : thread_index() / 128 * (PANELS * 64);
    // Lane l tells where row l % 8 of the 8 x 8 matrix l / 8 goes: the upper and lower rows at one chunk, then at the next.
    u32 to = strip + lane % 16 * 128;
    IRIS_UNROLL
    for (u32 panel = 0; panel < PANELS; ++panel) {
        u32 row_of_wave = first + panel * 64 + wave_index() % 4 * 16;
        IRIS_UNROLL
        for (u32 col = 0; col < TILE_N; col += 64) {
            __syncwarp();
            IRIS_UNROLL
            for (u32 pair = 0; pair < 4; ++pair) {
                u32 packed[4];
                IRIS_UNROLL
                for (u32 half = 0; half < 2; ++half) {
                    const f32* d = sums.d[panel] + (col / 8 + pair * 2 + half) * 4;
                    f32 low = 0.0f;
                    f32 high = 0.0f;
                    if (bias != nullptr) {
                        u32 at = col + (pair * 2 + half) * 8 + lane % 4 * 2;
                        low = at < cols ? to_f32(bias[at]) : 0.0f;
                        high = at + 1 < cols ? to_f32(bias[at + 1]) : 0.0f;
                    }
                    packed[half * 2] = narrow2(d[0] + low, d[1] + high);
                    packed[half * 2 + 1] = narrow2(d[2] + low, d[3] + high);
                }
                asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                                 to + ((pair * 2 + lane / 16) ^ lane % 8) * 16),
                             "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3])
                             : "memory");
            }
            __syncwarp();
            IRIS_UNROLL
            for (u32 part = 0; part < 4; ++part) {
                u32 row = part * 4 + lane / 8;
                u32 at = col + lane % 8 * 8;
                Vec16 chunk;
                asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(chunk.x[0]), "=r"(chunk.x[1]), "=r"(chunk.x[2]), "=r"(chunk.x[3])
                             : "r"(strip + row * 128 + (lane % 8 ^ row % 8) * 16)
                             : "memory");
                if (row_of_wave + row < rows && at < cols) {
                    sink(row_of_wave + row, at, chunk, u32(smaller(8, cols - at)));
                }
            }
        }
    }
}

} // namespace iris
