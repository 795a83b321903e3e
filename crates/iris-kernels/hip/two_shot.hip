// `matmul_all_reduce`, two-shot: each tile is reduced by its owner, who stores the sum into everybody's output.
//
// Tile t belongs to rank t mod W, as its t/W-th. Staging: a slot for every tile that a rank owns at the largest m, TILE_M x TILE_N
// elements each. The output is symmetric, or bounced.

#include "iris/operation.h"

using namespace iris;

IRIS_KERNEL(THREADS) iris_two_shot(const Args args) {
    IRIS_SHARED(Shared, shared);
    Rank rank(args, shared);
    Call& call = rank.call;
    u64 me = args.rank;
    u64 world = args.world;
    Grid grid{args.m, args.n};
    auto owned = [&](u64 owner) { return dealt(grid.len(), world, owner); };
    bool has_depth = !rank.depth(me).empty();

    if (!call.begin() || !call.gate(has_depth, [&](u64 owner) { return has_depth ? owned(owner) : 0; })) {
        return;
    }

    // Beginning with the next rank's tile, so that not all ranks hand their first tile to rank 0.
    u64 all = has_depth ? grid.len() : 0;
    for (u64 step = block_index(); step < all; step += args.blocks) {
        u64 tile = (step + me + 1) % grid.len();
        Block block = grid.block(tile);
        u8* slot = rank.staged(tile % world, me, tile / world);
        rank.produce(block.row, block.col, block.rows, block.cols, rank.depth(me).len(),
                     [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32) { Rank::stage(slot, row, col, narrow<Element>(values)); });
        call.push_ready(tile % world, tile / world);
    }

    if (!call.meet()) {
        return;
    }
    for (u64 slot = block_index(); slot < owned(me); slot += args.blocks) {
        u64 tile = me + slot * world;
        Block block = grid.block(tile);
        bool reduced = rank.reduce(slot, block.col, block.rows, block.cols,
                                   [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32 count) {
                                       rank.store_to_all(block.row + row, block.col + col, values, count);
                                   });
        if (!reduced) {
            return;
        }
    }
    if (call.finish_gathered([&](u64 owner) { return owned(owner) > 0; })) {
        rank.take_bounced();
    }
}
