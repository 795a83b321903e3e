// The product of one tile: depth is staged in LDS slab by slab, and multiplied from there.
#pragma once

#include "mma.h"

namespace iris {

/// Elements from one line to the next in LDS: whole 16 bytes, and no multiple of the banks.
template <class T>
constexpr u32 PITCH = TILE_K + CHUNK<T>;

/// Where a slab of A and one of B lie in LDS.
template <class T>
struct Slabs {
    alignas(16) T a[TILE_M * PITCH<T>];
    alignas(16) T b[TILE_N * PITCH<T>];
};

constexpr u32 WAVE_M = TILE_M / WAVES_M;
constexpr u32 WAVE_N = TILE_N / WAVES_N;
/// Instructions along the rows, and the columns, of a wave's part of the tile.
constexpr u32 STEPS_M = WAVE_M / Mma::M;
constexpr u32 STEPS_N = WAVE_N / Mma::N;
static_assert(STEPS_M * Mma::M * WAVES_M == TILE_M, "waves share the tile's rows");
static_assert(STEPS_N * Mma::N * WAVES_N == TILE_N, "waves share the tile's columns");
static_assert(TILE_K % Mma::K == 0, "instructions share a slab's depth");

/// Steps along a slab's depth that are unrolled. The plain path's are long already: unrolled, they would not fit the registers.
constexpr u32 UNROLL_K = Mma::K < 16 ? 1 : TILE_K / Mma::K;

/// A thread's part of a tile of the product.
struct Sums {
    f32 x[STEPS_M][STEPS_N][Mma::ACCUMULATORS];

    IRIS_DEVICE void clear() {
        IRIS_UNROLL
        for (u32 i = 0; i < STEPS_M; ++i) {
            IRIS_UNROLL
            for (u32 j = 0; j < STEPS_N; ++j) {
                IRIS_UNROLL
                for (u32 at = 0; at < Mma::ACCUMULATORS; ++at) {
                    x[i][j][at] = 0.0f;
                }
            }
        }
    }
};

/// A thread's part of a slab of `LINES` lines on its way from global memory to LDS.
template <class T, u32 LINES>
struct SlabInFlight {
    static constexpr u32 CHUNKS = LINES * TILE_K / CHUNK<T>;
    static constexpr u32 EACH = (CHUNKS + THREADS - 1) / THREADS;
    Vec16 chunks[EACH];

    /// Whether chunks lie along the depth, else across the lines.
    IRIS_DEVICE static bool along_depth(const Lines<T>& from) { return from.depth_stride == 1 || from.line_stride != 1; }

    /// Loads depths `depth..depth + TILE_K` of `lines` lines. What lies outside is zero: a masked edge adds nothing.
    IRIS_DEVICE void load(const Lines<T>& matrix, u32 lines, u64 depth, u64 depths) {
        Lines<T> from{matrix.data, opaque_scalar(matrix.line_stride), opaque_scalar(matrix.depth_stride)};
        bool deep = along_depth(from);
        u64 inner = deep ? from.depth_stride : from.line_stride;
        u64 outer = deep ? from.line_stride : from.depth_stride;
        // `depth` is a multiple of TILE_K, so the first chunk of a line is aligned if the line is.
        bool wide = inner == 1 && aligned16(reinterpret_cast<u64>(from.data) | outer * sizeof(T));
        IRIS_UNROLL
        for (u32 each = 0; each < EACH; ++each) {
            u32 chunk = opaque(each * THREADS + thread_index());
            chunks[each] = {};
            if (CHUNKS % THREADS != 0 && chunk >= CHUNKS) {
                continue;
            }
            u32 line = deep ? chunk / (TILE_K / CHUNK<T>) : chunk % (LINES / CHUNK<T>) * CHUNK<T>;
            u64 at = depth + (deep ? chunk % (TILE_K / CHUNK<T>) * CHUNK<T> : chunk / (LINES / CHUNK<T>));
            if (line >= lines || at >= depths) {
                continue;
            }
            u64 rest = deep ? depths - at : lines - line;
            const T* first = from.data + line * from.line_stride + at * from.depth_stride;
            if (wide && rest >= CHUNK<T>) {
                chunks[each] = *reinterpret_cast<const Vec16*>(first);
            } else {
                chunks[each] = gather(first, inner, smaller(rest, CHUNK<T>));
            }
        }
    }

    /// The same of lines that come chunk by chunk, along the depth.
    template <class From>
    IRIS_DEVICE void load(const From& from, u32 lines, u64 depth, u64 depths) {
        IRIS_UNROLL
        for (u32 each = 0; each < EACH; ++each) {
            u32 chunk = opaque(each * THREADS + thread_index());
            u32 line = chunk / (TILE_K / CHUNK<T>);
            u64 at = depth + chunk % (TILE_K / CHUNK<T>) * CHUNK<T>;
            bool inside = (CHUNKS % THREADS == 0 || chunk < CHUNKS) && line < lines && at < depths;
            chunks[each] = inside ? from.chunk(line, at) : Vec16{};
        }
    }
    template <class From>
    IRIS_DEVICE static bool along_depth(const From&) {
        return true;
    }

    /// Stores what was loaded from the same matrix.
    template <class From>
    IRIS_DEVICE void store(const From& from, T* to) const {
        bool deep = along_depth(from);
        IRIS_UNROLL
        for (u32 each = 0; each < EACH; ++each) {
            u32 chunk = each * THREADS + thread_index();
            if (CHUNKS % THREADS != 0 && chunk >= CHUNKS) {
                continue;
            }
            if (deep) {
                u32 line = chunk / (TILE_K / CHUNK<T>);
                u32 at = chunk % (TILE_K / CHUNK<T>) * CHUNK<T>;
                *reinterpret_cast<Vec16*>(to + line * PITCH<T> + at) = chunks[each];
            } else {
                u32 line = chunk % (LINES / CHUNK<T>) * CHUNK<T>;
                u32 at = chunk / (LINES / CHUNK<T>);
                IRIS_UNROLL
                for (u32 element = 0; element < CHUNK<T>; ++element) {
                    to[(line + element) * PITCH<T> + at] = get<T>(chunks[each], element);
                }
            }
        }
    }
};

/// Adds to `sums` the product of `rows` lines of `a` and `cols` lines of `b`, over `depths`. Beyond, it adds zero.
template <class T, class A>
IRIS_DEVICE void multiply(Sums& sums, Slabs<T>& slabs, const A& a, u32 rows, const Lines<T>& b, u32 cols, u64 depths) {
    u32 lane = lane_index();
    u32 wave = wave_index();
    const T* wave_a = slabs.a + wave / WAVES_N * WAVE_M * PITCH<T>;
    const T* wave_b = slabs.b + wave % WAVES_N * WAVE_N * PITCH<T>;
    SlabInFlight<T, TILE_M> next_a;
    SlabInFlight<T, TILE_N> next_b;
    if (depths > 0) {
        next_a.load(a, rows, 0, depths);
        next_b.load(b, cols, 0, depths);
    }
    for (u64 depth = 0; depth < depths; depth += TILE_K) {
        sync_block(); // the previous slab, or whatever was in its place, is no longer read
        next_a.store(a, slabs.a);
        next_b.store(b, slabs.b);
        sync_block();
        if (depth + TILE_K < depths) {
            // On its way while this slab is multiplied.
            next_a.load(a, rows, depth + TILE_K, depths);
            next_b.load(b, cols, depth + TILE_K, depths);
        }
#pragma unroll UNROLL_K
        for (u32 k = 0; k < TILE_K; k += Mma::K) {
            Mma::A part_a[STEPS_M];
            IRIS_UNROLL
            for (u32 i = 0; i < STEPS_M; ++i) {
                Mma::load_a(part_a[i], wave_a + i * Mma::M * PITCH<T> + k, PITCH<T>, lane);
            }
            IRIS_UNROLL
            for (u32 j = 0; j < STEPS_N; ++j) {
                Mma::B part_b;
                Mma::load_b(part_b, wave_b + j * Mma::N * PITCH<T> + k, PITCH<T>, lane);
                IRIS_UNROLL
                for (u32 i = 0; i < STEPS_M; ++i) {
                    Mma::multiply(sums.x[i][j], part_a[i], part_b);
                }
            }
        }
    }
}

} // namespace iris
