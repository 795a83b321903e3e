// How matrices are split among ranks, and products into tiles: the twin of `iris-kernels`' `geometry.rs`. And the order in which
// the blocks of a grid walk through what there is to do.
#pragma once

#include "args.h"

/// The type of the matrices' elements: f32, f16 or bf16.
#ifndef IRIS_DTYPE
#define IRIS_DTYPE f32
#endif
/// Rows and columns of a tile, the unit of signalling and of a block's work; and the depth that is staged in LDS at a time.
#ifndef IRIS_TILE_M
#define IRIS_TILE_M 128
#endif
#ifndef IRIS_TILE_N
#define IRIS_TILE_N 128
#endif
/// Rows of tiles that are gone through together, column by column, so that what blocks have in common of A and B stays in caches.
#ifndef IRIS_RASTER
#define IRIS_RASTER 1
#endif
#ifndef IRIS_TILE_K
#define IRIS_TILE_K 32
#endif
/// Rows of A that are multiplied at a time: fewer than a tile has in kernels that are for few rows, to have room for more of B.
#ifndef IRIS_A_ROWS
#define IRIS_A_ROWS IRIS_TILE_M
#endif
/// How the waves of a block share a tile.
#ifndef IRIS_WAVES_M
#define IRIS_WAVES_M 2
#endif
#ifndef IRIS_WAVES_N
#if IRIS_LANES == 64
#define IRIS_WAVES_N 2
#else
#define IRIS_WAVES_N 4
#endif
#endif

namespace iris {

using Element = IRIS_DTYPE;
constexpr u32 TILE_M = IRIS_TILE_M;
constexpr u32 TILE_N = IRIS_TILE_N;
constexpr u32 TILE_K = IRIS_TILE_K;
constexpr u32 A_ROWS = IRIS_A_ROWS;
constexpr u32 WAVES_M = IRIS_WAVES_M;
constexpr u32 WAVES_N = IRIS_WAVES_N;
#if defined(IRIS_SM90)
/// Threads of a crew.
IRIS_DEVICE u32 threads() {
    return crew_of(block_thread()).threads;
}
#else
/// Threads of a block.
constexpr u32 THREADS = WAVES_M * WAVES_N * LANES;
static_assert(THREADS > MAX_RANKS, "a thread for each rank, and one more");
IRIS_DEVICE constexpr u32 threads() {
    return THREADS;
}
#endif

static_assert(TILE_M % 8 == 0 && TILE_N % 8 == 0 && TILE_K % 8 == 0, "a tile's sides are whole chunks of 16 bytes");

IRIS_DEVICE u64 ceil_div(u64 a, u64 b) {
    return (a + b - 1) / b;
}

IRIS_DEVICE u64 smaller(u64 a, u64 b) {
    return a < b ? a : b;
}

/// The rank after `rank`, around.
IRIS_DEVICE u64 next_rank(u64 rank, u64 world) {
    return rank + 1 == world ? 0 : rank + 1;
}

/// A half-open range.
struct Range {
    u64 start;
    u64 end;

    IRIS_DEVICE u64 len() const { return end - start; }
    IRIS_DEVICE bool empty() const { return end == start; }
};

/// The part of `total` that falls to `rank`: min(total, r*c) .. min(total, (r+1)*c) with c = ceil(total / world), which is `size`.
IRIS_DEVICE Range shard(u64 total, u64 size, u64 rank) {
    return {smaller(total, rank * size), smaller(total, (rank + 1) * size)};
}

/// A matrix of any strides, in elements. What runs along the depth of a product is `depth_stride`, what runs along rows of A, or
/// columns of B, is `line_stride`.
template <class T>
struct Lines {
    const T* data;
    u64 line_stride;
    u64 depth_stride;

    /// The same from line `line` and depth `depth` on.
    IRIS_DEVICE Lines from(u64 line, u64 depth) const {
        return {data + line * line_stride + depth * depth_stride, line_stride, depth_stride};
    }
};

/// One tile's place in a matrix. At the lower and right edge it may be smaller than a whole tile.
struct Block {
    u64 row;
    u64 col;
    u32 rows;
    u32 cols;
};

/// The tiles that cover a matrix, numbered in the order in which they are made: some rows of them together, column by column.
struct Grid {
    u64 rows;
    u64 cols;

    IRIS_DEVICE u64 across() const { return ceil_div(cols, TILE_N); }
    IRIS_DEVICE u64 len() const { return ceil_div(rows, TILE_M) * across(); }
    IRIS_DEVICE Block block(u64 index) const {
        // There are fewer than 2^32 tiles.
        u64 row = 0;
        u64 col = 0;
        if constexpr (IRIS_RASTER == 1) {
#if defined(IRIS_SM90)
            row = u64(u32(index) / u32(across())) * TILE_M;
            col = u64(u32(index) % u32(across())) * TILE_N;
#else
            // Registers that ptxas chooses for sm_80 do not do for a division of 32 bits here.
            row = index / across() * TILE_M;
            col = index % across() * TILE_N;
#endif
        } else {
            u32 group = u32(index) / (IRIS_RASTER * u32(across()));
            u32 within = u32(index) % (IRIS_RASTER * u32(across()));
            u32 height = u32(smaller(IRIS_RASTER, ceil_div(rows, TILE_M) - group * IRIS_RASTER));
            row = u64(group * IRIS_RASTER + within % height) * TILE_M;
            col = u64(within / height) * TILE_N;
        }
        return at(row, col);
    }
    /// The one that begins there.
    IRIS_DEVICE Block at(u64 row, u64 col) const {
        return {row, col, u32(smaller(TILE_M, rows - row)), u32(smaller(TILE_N, cols - col))};
    }
};

/// One of a number of items that each rank has some of.
struct Item {
    u64 rank;
    u64 index;
};

/// The item with number `at` if all items of rank `first` come first, then those of the next rank, and so on around; `count(r)`
/// is how many rank r has.
template <class Count>
IRIS_DEVICE Item item_of(u64 at, u64 first, u64 world, Count count) {
    u64 rank = first;
    IRIS_ROLLED
    for (u64 step = 1; step < world; ++step) {
        u64 here = count(rank);
        if (at < here) {
            break;
        }
        at -= here;
        rank = next_rank(rank, world);
    }
    return {rank, at};
}

/// The order in which a rank makes tiles that each have an owner, of which an owner has up to `share`: in rounds of `height` tiles of each
/// owner, the last one of what is left. Its own tiles of a round come `lag` rounds behind the peers' ones, whose makers have meanwhile sent
/// their parts of them, or behind all peers' tiles where these are fewer rounds.
///
/// Nobody waits in a ring if own tiles wait for the peers' parts of them, which have the same index: before a peer's tile a block makes of
/// its own only such with a smaller index. So what an own tile waits for waits for own tiles with smaller indices alone, and those with the
/// smallest for none. Heights and lags may differ among ranks.
struct Rounds {
    u64 world;
    u64 share;
    u64 height;
    u64 lag;

    /// All peers' tiles, then its own.
    IRIS_DEVICE static Rounds apart(u64 world, u64 share) { return {world, share, share == 0 ? 1 : share, 0}; }

    /// Own tiles among the peers', each at least `blocks` steps behind the peers' of its index, or behind all of them: these are made and on
    /// their way by then. A block, whose tiles are `blocks` steps apart, goes two rounds and about one owner's part of a round further each
    /// time: so all blocks have about as many own tiles, which are more work.
    IRIS_DEVICE static Rounds by_turns(u64 world, u64 share, u64 blocks) {
        if (world == 1) {
            return apart(world, share);
        }
        u64 parts = 2 * world + 1;
        u64 height = blocks < parts ? 1 : blocks / parts;
        return {world, share, height, ceil_div(blocks - height, (world - 1) * height)};
    }

    IRIS_DEVICE u64 len() const { return world * share; }
    /// The owner and the number of the tile at `step`. The number may not be below what the owner has, if that is less than `share`.
    IRIS_DEVICE Item at(u64 step, u64 me) const {
        u32 each = u32(height);
        u32 peers = u32(world - 1);
        u32 at = u32(step);
        // Which round of the peers' it is in, and how many of its own are before; and where in them it is.
        u32 round = 0;
        u32 own = 0;
        if (each < u32(share)) {
            u32 last = (u32(share) - 1) / each;
            u32 behind = u32(smaller(lag, last));
            u32 alone = behind * peers * each;
            if (at < alone) {
                round = at / (peers * each);
                at -= round * peers * each;
            } else {
                at -= alone;
                own = u32(smaller(at / (u32(world) * each), last - behind));
                at -= own * u32(world) * each;
                round = own + behind;
            }
        }
        u32 here = tiles(round);
        if (at >= peers * here) {
            return {me, u64(own) * each + at - peers * here};
        }
        // Beginning with the next rank's, so that not all ranks hand their first tile to rank 0.
        u32 owner = u32(me) + 1 + at / here;
        return {owner < u32(world) ? owner : owner - u32(world), u64(round) * each + at % here};
    }

  private:
    /// Tiles of an owner in a round.
    IRIS_DEVICE u32 tiles(u32 round) const { return u32(smaller(share - round * height, height)); }
};

/// How many items all ranks have together.
template <class Count>
IRIS_DEVICE u64 items(u64 world, Count count) {
    u64 sum = 0;
    IRIS_ROLLED
    for (u64 rank = 0; rank < world; ++rank) {
        sum += count(rank);
    }
    return sum;
}

} // namespace iris
