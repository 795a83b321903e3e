// What measuring needs of its own: random operands made on the device, and memory read as fast as it can be.

#include "iris/types.h"

using namespace iris;

#ifndef IRIS_DTYPE
#define IRIS_DTYPE f32
#endif

/// Threads of a block, of both kernels.
constexpr u32 THREADS = 512;

/// The twin of `Fill` in src/random.rs.
struct Fill {
    u64 to;
    u64 rows;
    u64 cols;
    u64 stride;
    u64 row;
    u64 col;
    u64 width;
    u64 transposed;
    u64 key;
    u64 blocks;
};

/// A number drawn evenly from [-1, 1) in steps of 2^-23, by its place. The twin of `Draw::at` in src/random.rs.
IRIS_DEVICE f32 draw(u64 key, u64 at) {
    u64 x = key + at * 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    return f32(u32(x >> 40)) * 1.1920928955078125e-7f - 1.0f;
}

/// Fills a part of a matrix, stored by rows, with what stands there in the whole one; or, transposed, with what stands there in the
/// transpose of the whole one.
IRIS_KERNEL(THREADS) iris_fill(const Fill args) {
    IRIS_DTYPE* to = global<IRIS_DTYPE>(args.to);
    u64 step = args.blocks * THREADS;
    for (u64 at = u64(block_index()) * THREADS + thread_index(); at < args.rows * args.cols; at += step) {
        u64 row = at / args.cols;
        u64 col = at % args.cols;
        u64 whole = args.transposed != 0 ? (args.row + col) * args.width + args.col + row
                                         : (args.row + row) * args.width + args.col + col;
        to[row * args.stride + col] = from_f32<IRIS_DTYPE>(draw(args.key, whole));
    }
}

/// The twin of `Read` in src/bandwidth.rs.
struct Read {
    u64 from;
    u64 chunks;
    u64 sink;
    u64 blocks;
};

/// Reads all chunks of 16 bytes, and writes nothing: all of them together would have to come to a value that they do not.
IRIS_KERNEL(THREADS) iris_read(const Read args) {
    const Vec16* from = global<const Vec16>(args.from);
    constexpr u32 AT_ONCE = 8;
    u64 step = args.blocks * THREADS;
    u64 at = u64(block_index()) * THREADS + thread_index();
    u32 all = 0;
    for (; at + (AT_ONCE - 1) * step < args.chunks; at += AT_ONCE * step) {
        Vec16 chunks[AT_ONCE];
        IRIS_UNROLL
        for (u32 i = 0; i < AT_ONCE; ++i) {
            chunks[i] = from[at + i * step];
        }
        IRIS_UNROLL
        for (u32 i = 0; i < AT_ONCE; ++i) {
            all |= chunks[i].x[0] | chunks[i].x[1] | chunks[i].x[2] | chunks[i].x[3];
        }
    }
    for (; at < args.chunks; at += step) {
        all |= from[at].x[0] | from[at].x[1] | from[at].x[2] | from[at].x[3];
    }
    // The memory is zeroed, which the compiler does not know.
    if (all != 0) {
        *global<u32>(args.sink) = all;
    }
}
