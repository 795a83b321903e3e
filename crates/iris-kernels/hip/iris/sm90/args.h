// The argument of a kernel whose blocks consist of crews.
#pragma once

#include "../args.h"

namespace iris {

/// What `cuTensorMapEncodeTiled` makes: where a matrix lies, and in what boxes it is copied.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

/// Groups of rows of tiles that are streamed, one after the other.
constexpr u32 STREAMS_OF_CALL = 2;

/// What falls to whom where tiles are streamed: see `stints.h`, which says what a team is.
struct Streams {
    /// Slabs of a tile.
    u64 slabs;
    /// Of each group the rows of tiles, and 2^16 divided by that and rounded up.
    u64 height[STREAMS_OF_CALL];
    u64 inverse[STREAMS_OF_CALL];
    /// Its teams. Each has so many of a row's slabs, and the first `more` of them one more.
    u64 teams[STREAMS_OF_CALL];
    u64 share[STREAMS_OF_CALL];
    u64 more[STREAMS_OF_CALL];
};

/// The argument of a kernel whose blocks consist of crews.
struct FastArgs {
    Args args;
    /// Whether A's, and B's, depth is what lies side by side.
    u64 a_deep;
    u64 b_deep;
    /// Bytes of a box of A, and of one of the gathered A: they may have fewer rows than a tile.
    u64 a_bytes;
    u64 gathered_bytes;
    /// Whether `c` is C; if not, C is not aligned to 16 bytes.
    u64 c_mapped;
    /// Where parts of tiles are left for who finishes them, if tiles are streamed; else 0. See `stream.h`.
    u64 partials;
    /// For how long the device's cache is to keep B: see `copy_box_by`.
    u64 b_policy;
    /// What is streamed, if tiles are.
    Streams streams;
    /// A, in boxes of 64 depths by up to TILE_M rows if deep, else of 64 rows by 64 depths.
    TensorMap a;
    /// B, in boxes of 64 depths by TILE_N columns if deep, else of 64 columns by 64 depths.
    TensorMap b;
    /// This rank's C, in boxes of 64 columns by 64 rows: its output, where peers store into that.
    TensorMap c;
    /// The A that is gathered in this rank's staging, of both banks one after the other, in boxes of 64 depths by up to TILE_M rows.
    TensorMap gathered;
};

static_assert(sizeof(FastArgs) == 704 + 4 * sizeof(TensorMap), "aligned to 64 bytes, with no gap but before the maps");

} // namespace iris
