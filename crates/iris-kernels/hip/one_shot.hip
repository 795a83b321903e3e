// `matmul_all_reduce`, one-shot: every rank hands every tile to every rank, and reduces all of them itself.
//
// Staging: a slot for every tile of the largest m, TILE_M x TILE_N elements each.

#include "iris/operation.h"

using namespace iris;

IRIS_KERNEL(THREADS) iris_one_shot(const Args args) {
    IRIS_SHARED(Shared, shared);
    Rank rank(args, shared);
    Call& call = rank.call;
    u64 me = args.rank;
    Grid grid{args.m, args.n};
    bool has_depth = !rank.depth(me).empty();

    if (!call.begin() || !call.gate(has_depth, [&](u64) { return has_depth ? grid.len() : 0; })) {
        return;
    }

    u64 all = has_depth ? grid.len() : 0;
    for (u64 tile = block_index(); tile < all; tile += args.blocks) {
        Block block = grid.block(tile);
        rank.produce(block.row, block.col, block.rows, block.cols, rank.depth(me).len(),
                     [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32) {
                         Vec16 chunk = narrow<Element>(values);
                         u64 target = me;
                         IRIS_ROLLED
                         for (u64 step = 0; step < args.world; ++step) {
                             target = next_rank(target, args.world);
                             Rank::stage(rank.staged(target, me, tile), row, col, chunk);
                         }
                     });
        call.push_ready_to(tile, [](u64) { return true; });
    }

    if (!call.meet()) {
        return;
    }
    for (u64 tile = block_index(); tile < grid.len(); tile += args.blocks) {
        Block block = grid.block(tile);
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
