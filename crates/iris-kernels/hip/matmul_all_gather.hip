// `matmul_all_gather`: each rank multiplies its rows, and stores them into everybody's output.
//
// No staging. The output is symmetric, or bounced.

// There is nothing for movers to do.
#define IRIS_COURIERS 3
#include "iris/kernel.h"

using namespace iris;

namespace {

struct MatmulAllGather : Operation {
    using Operation::Operation;
    static constexpr To TO = To::outputs;

    IRIS_DEVICE Range rows(u64 owner) const {
        const Args& args = reread(this->args);
        return shard(args.m, args.m_share, owner);
    }
    IRIS_DEVICE Grid grid() const {
        const Args& args = reread(this->args);
        return {rows(args.rank).len(), args.n};
    }

    IRIS_DEVICE bool begin() {
        return rank.call.begin() && rank.gate(grid().len() != 0, [](u64) { return u64(0); });
    }

    IRIS_DEVICE u64 steps() const { return grid().len(); }
    IRIS_DEVICE Work work(u64 step) const {
        Block block = grid().block(step);
        u64 row = block.row;
        block.row += rows(me()).start;
        return {block, row, me(), step, false};
    }
    IRIS_DEVICE u64 depths() const { return reread(args).k; }
    IRIS_DEVICE const Element* bias() const { return rank.bias(); }
    IRIS_DEVICE bool may_store(const Work&) {
        if (!rank.call.meet()) {
            return false;
        }
        rank.call.stall(Phase::store);
        return true;
    }

    IRIS_DEVICE void finish() {
        if (rank.call.finish_gathered([&](u64 owner) { return !rows(owner).empty(); })) {
            rank.take_bounced();
        }
    }
};

} // namespace

IRIS_OPERATION(iris_matmul_all_gather, MatmulAllGather)
