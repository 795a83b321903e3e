// `matmul_reduce_scatter`: each rank reduces, and keeps, its rows of the sum.
//
// The tile grid restarts at each owner's first row, so that no tile has two owners. Staging: a slot for every tile of a rank's
// rows at the largest m, TILE_M x TILE_N elements each.

#include "iris/operation.h"

using namespace iris;

IRIS_KERNEL(THREADS) iris_matmul_reduce_scatter(const Args args) {
    IRIS_SHARED(Shared, shared);
    Rank rank(args, shared);
    Call& call = rank.call;
    u64 me = args.rank;
    auto rows = [&](u64 owner) { return shard(args.m, args.world, owner); };
    auto grid = [&](u64 owner) { return Grid{rows(owner).len(), args.n}; };
    auto tiles = [&](u64 owner) { return grid(owner).len(); };
    bool has_depth = !rank.depth(me).empty();

    if (!call.begin() || !call.gate(has_depth, [&](u64 owner) { return has_depth ? tiles(owner) : 0; })) {
        return;
    }

    // Peers' tiles first, beginning with the next rank's, so that not all ranks hand their first tile to rank 0.
    u64 all = has_depth ? items(args.world, tiles) : 0;
    for (u64 at = block_index(); at < all; at += args.blocks) {
        Item tile = item_of(at, next_rank(me, args.world), args.world, tiles);
        Block block = grid(tile.rank).block(tile.index);
        u8* slot = rank.staged(tile.rank, me, tile.index);
        rank.produce(rows(tile.rank).start + block.row, block.col, block.rows, block.cols, rank.depth(me).len(),
                     [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32) { Rank::stage(slot, row, col, narrow<Element>(values)); });
        call.push_ready(tile.rank, tile.index);
    }

    if (!rows(me).empty() && !call.meet()) {
        return;
    }
    for (u64 tile = block_index(); tile < tiles(me); tile += args.blocks) {
        Block block = grid(me).block(tile);
        bool reduced = rank.reduce(tile, block.col, block.rows, block.cols,
                                   [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32 count) {
                                       rank.store_own(block.row + row, block.col + col, values, count);
                                   });
        if (!reduced) {
            return;
        }
    }
    call.finish();
}
