// Tiles leave in *chunks*: as many neighbouring elements of one row as 16 bytes hold. A sink is called as
// `sink(row, col, values, count)`, with the chunk's place in the tile, its values in f32, and how many of them lie inside.
#pragma once

#include "tile.h"

namespace iris {

/// Hands a part of a matrix that is there already to the sink: row `r` and column `c` of the tile is line `r` and depth `c`.
template <class T, class Sink>
IRIS_DEVICE void drain_given(const Lines<T>& matrix, u32 rows, u32 cols, Sink sink) {
    u32 across = (cols + CHUNK<T> - 1) / CHUNK<T>;
    for (u32 chunk = thread_index(); chunk < rows * across; chunk += threads()) {
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

/// Loads a vector from a multiple of 16 bytes.
template <class T>
IRIS_DEVICE Vec16 load_whole(const T* from) {
#if defined(IRIS_EMULATED)
    iris_emulator_moves_whole(from);
#endif
    return *reinterpret_cast<const Vec16*>(from);
}

/// Stores a vector, at a multiple of 16 bytes. Word by word: of a copy of the whole clang would keep a vector in scratch memory.
template <class T>
IRIS_DEVICE void store_whole(T* to, const Vec16& chunk) {
#if defined(IRIS_EMULATED)
    iris_emulator_moves_whole(to);
#endif
    *reinterpret_cast<Vec16*>(to) = {{chunk.x[0], chunk.x[1], chunk.x[2], chunk.x[3]}};
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
