// `matmul_all_reduce`, one-shot: every rank hands every tile to every rank, and reduces all of them itself.
//
// Staging: a slot for every tile of the largest m, TILE_M x TILE_N elements each.

#include "iris/kernel.h"

using namespace iris;

namespace {

struct OneShot : Operation {
    using Operation::Operation;
    static constexpr To TO = To::slots;
    static constexpr bool REDUCES = true;

    IRIS_DEVICE Grid grid() const {
        const Args& args = reread(this->args);
        return {args.m, args.n};
    }
    IRIS_DEVICE bool has_depth() const { return !rank.depth(me()).empty(); }

    IRIS_DEVICE bool begin() {
        bool writes = has_depth();
        return rank.call.begin() && rank.gate(writes, [&](u64) { return writes ? grid().len() : 0; });
    }

    IRIS_DEVICE u64 steps() const { return has_depth() ? grid().len() : 0; }
    IRIS_DEVICE Work work(u64 step) const {
        Block block = grid().block(step);
        return {block, block.row, me(), step, false};
    }
    IRIS_DEVICE u64 depths() const { return rank.depth(me()).len(); }
    IRIS_DEVICE u64 targets() const { return world(); }
    IRIS_DEVICE u64 target(const Work&, u64 nth) const { return (me() + 1 + nth) % world(); }
    IRIS_DEVICE void tell(const Work& work) {
        rank.call.push_ready_to(work.index, [](u64) { return true; });
    }

    IRIS_DEVICE bool reduce() {
        if (!rank.call.meet()) {
            return false;
        }
        return reduce_each(grid().len(), [&](const Piece& piece) {
            Block block = grid().block(piece.slot);
            return rank.reduce(piece, block.col, block.rows, block.cols,
                               [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32 count) {
                                   rank.store_own(block.row + row, block.col + col, values, count);
                               });
        });
    }

    IRIS_DEVICE void finish() { rank.call.finish_unowned(); }
};

} // namespace

IRIS_OPERATION(iris_one_shot, OneShot)
