// `matmul_all_gather`: each rank multiplies its rows, and stores them into everybody's output.
//
// No staging. The output is symmetric, or bounced.

#include "iris/operation.h"

using namespace iris;

namespace {

/// Adds the bias to a chunk, and stores it to all outputs.
struct Store {
    const Rank& rank;
    Block block;
    /// The first of this rank's rows.
    u64 first;

    IRIS_DEVICE void operator()(u32 row, u32 col, f32 (&values)[CHUNK<Element>], u32 count) const {
        add_bias(values, rank.bias(), block.col + col, count);
        rank.store_to_all(first + block.row + row, block.col + col, values, count);
    }
};

} // namespace

IRIS_KERNEL(THREADS) iris_matmul_all_gather(const Args args) {
    IRIS_SHARED(Shared, shared);
    Rank rank(args, shared);
    Call& call = rank.call;
    auto rows = [&](u64 owner) {
        const Args& again = reread(args);
        return shard(again.m, again.world, owner);
    };
    auto grid = [&] {
        const Args& again = reread(args);
        return Grid{rows(again.rank).len(), again.n};
    };

    if (!call.begin() || !call.gate(grid().len() != 0, [](u64) { return u64(0); })) {
        return;
    }
    for (u64 tile = block_index(); tile < grid().len(); tile += reread(args).blocks) {
        Block block = grid().block(tile);
        Sums sums;
        sums.clear();
        if (reread(args).given == 0) {
            multiply(sums, shared.slabs, rank.a().from(block.row, 0), block.rows, rank.b().from(block.col, 0), block.cols,
                     reread(args).k);
        }
        // The first tile is multiplied before waiting for anybody.
        if (!call.meet()) {
            return;
        }
        call.stall(Phase::store);
        block = grid().block(opaque_scalar(tile)); // once more, so that it takes no registers in between
        Store store{rank, block, rows(reread(args).rank).start};
        if (reread(args).given == 0) {
            drain<Element>(sums, shared.strip, block.rows, block.cols, store);
        } else {
            drain_given(rank.a().from(block.row, block.col), block.rows, block.cols, store);
        }
    }
    if (call.finish_gathered([&](u64 owner) { return !rows(owner).empty(); })) {
        rank.take_bounced();
    }
}
