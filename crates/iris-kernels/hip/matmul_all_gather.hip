// `matmul_all_gather`: each rank multiplies its rows, and stores them into everybody's output.
//
// No staging. The output is symmetric, or bounced.

#include "iris/operation.h"

using namespace iris;

IRIS_KERNEL(THREADS) iris_matmul_all_gather(const Args args) {
    IRIS_SHARED(Shared, shared);
    Rank rank(args, shared);
    Call& call = rank.call;
    auto rows = [&](u64 owner) { return shard(args.m, args.world, owner); };
    u64 first = rows(args.rank).start;
    Grid grid{rows(args.rank).len(), args.n};

    if (!call.begin() || !call.gate(grid.len() != 0, [](u64) { return u64(0); })) {
        return;
    }
    for (u64 tile = block_index(); tile < grid.len(); tile += args.blocks) {
        Block block = grid.block(tile);
        Sums sums;
        sums.clear();
        if (args.given == 0) {
            multiply(sums, shared.slabs, rank.a().from(block.row, 0), block.rows, rank.b().from(block.col, 0), block.cols, args.k);
        }
        // The first tile is multiplied before waiting for anybody.
        if (!call.meet()) {
            return;
        }
        call.stall(Phase::store);
        auto store = [&](u32 row, u32 col, f32(&values)[CHUNK<Element>], u32 count) {
            add_bias(values, rank.bias(), block.col + col, count);
            rank.store_to_all(first + block.row + row, block.col + col, values, count);
        };
        if (args.given == 0) {
            drain<Element>(sums, shared.strip, block.rows, block.cols, store);
        } else {
            drain_given(rank.a().from(block.row, block.col), block.rows, block.cols, store);
        }
    }
    if (call.finish_gathered([&](u64 owner) { return !rows(owner).empty(); })) {
        rank.take_bounced();
    }
}
