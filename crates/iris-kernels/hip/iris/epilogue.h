// What becomes of a tile: its sums go through LDS, so that they leave in whole rows, 16 bytes a thread.
//
// Tiles leave in *chunks*: as many neighbouring elements of one row as 16 bytes hold. A sink is called as
// `sink(row, col, values, count)`, with the chunk's place in the tile, its values in f32, and how many of them lie inside.
#pragma once

#include "gemm.h"

namespace iris {

/// Rows that leave at a time: those of one instruction of each row of waves.
constexpr u32 STRIP_M = WAVES_M * Mma::M;
constexpr u32 STRIP_PITCH = TILE_N + 4;

/// Where the strip lies in LDS.
struct Strip {
    alignas(16) f32 x[STRIP_M * STRIP_PITCH];
};

/// Hands `sums`, of which `rows` by `cols` lie inside, to the sink.
template <class T, class Sink>
IRIS_DEVICE void drain(const Sums& sums, Strip& strip, u32 rows, u32 cols, Sink sink) {
    u32 lane = lane_index();
    u32 wave = wave_index();
    IRIS_UNROLL
    for (u32 i = 0; i < STEPS_M; ++i) {
        sync_block(); // what was in this place is no longer read
        IRIS_UNROLL
        for (u32 j = 0; j < STEPS_N; ++j) {
            IRIS_UNROLL
            for (u32 at = 0; at < Mma::ACCUMULATORS; ++at) {
                u32 row = wave / WAVES_N * Mma::M + Mma::row(lane, at);
                u32 col = wave % WAVES_N * WAVE_N + j * Mma::N + Mma::col(lane, at);
                strip.x[row * STRIP_PITCH + col] = sums.x[i][j][at];
            }
        }
        sync_block();
        IRIS_ROLLED
        for (u32 chunk = opaque(thread_index()); chunk < STRIP_M * TILE_N / CHUNK<T>; chunk += THREADS) {
            u32 strip_row = chunk / (TILE_N / CHUNK<T>);
            u32 row = strip_row / Mma::M * WAVE_M + i * Mma::M + strip_row % Mma::M;
            u32 col = chunk % (TILE_N / CHUNK<T>) * CHUNK<T>;
            if (row < rows && col < cols) {
                f32 values[CHUNK<T>];
                IRIS_UNROLL
                for (u32 at = 0; at < CHUNK<T>; ++at) {
                    values[at] = strip.x[strip_row * STRIP_PITCH + col + at];
                }
                sink(row, col, values, u32(smaller(CHUNK<T>, cols - col)));
            }
        }
    }
}

/// Hands a part of a matrix that is there already to the sink: row `r` and column `c` of the tile is line `r` and depth `c`.
template <class T, class Sink>
IRIS_DEVICE void drain_given(const Lines<T>& matrix, u32 rows, u32 cols, Sink sink) {
    u32 across = (cols + CHUNK<T> - 1) / CHUNK<T>;
    for (u32 chunk = thread_index(); chunk < rows * across; chunk += THREADS) {
        u32 row = chunk / across;
        u32 col = chunk % across * CHUNK<T>;
        u32 count = u32(smaller(CHUNK<T>, cols - col));
        const T* first = matrix.data + row * matrix.line_stride + col * matrix.depth_stride;
        f32 values[CHUNK<T>];
        IRIS_UNROLL
        for (u32 at = 0; at < CHUNK<T>; ++at) {
            values[at] = at < count ? to_f32(first[at * matrix.depth_stride]) : 0.0f;
        }
        sink(row, col, values, count);
    }
}

/// Stores the first `count` elements of a vector, side by side.
template <class T>
IRIS_DEVICE void store_chunk(T* to, const Vec16& chunk, u32 count) {
    if (count == CHUNK<T> && aligned16(reinterpret_cast<u64>(to))) {
        *reinterpret_cast<Vec16*>(to) = chunk;
    } else {
        IRIS_UNROLL
        for (u32 at = 0; at < CHUNK<T>; ++at) {
            if (at < count) {
                to[at] = get<T>(chunk, at);
            }
        }
    }
}

/// Adds to each value the bias of its column.
template <class T>
IRIS_DEVICE void add_bias(f32 (&values)[CHUNK<T>], const T* bias, u64 col, u32 count) {
    if (bias != nullptr) {
        IRIS_UNROLL
        for (u32 at = 0; at < CHUNK<T>; ++at) {
            if (at < count) {
                values[at] += to_f32(bias[col + at]);
            }
        }
    }
}

} // namespace iris
