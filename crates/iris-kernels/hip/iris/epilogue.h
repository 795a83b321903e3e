// What becomes of a tile: its sums go through LDS, so that they leave in whole rows, 16 bytes a thread.
#pragma once

#include "chunks.h"
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

} // namespace iris
