// `matmul_all_reduce`, two-shot: each tile is reduced by its owner, who stores the sum into everybody's output.
//
// Tile t belongs to rank t mod W, as its t/W-th. Staging: a slot for every tile that a rank owns at the largest m, TILE_M x TILE_N
// elements each. The output is symmetric, or bounced.

#include "iris/kernel.h"

using namespace iris;

namespace {

struct TwoShot : Operation {
    using Operation::Operation;
    static constexpr To TO = To::slots;
    static constexpr bool REDUCES = true;

    IRIS_DEVICE Grid grid() const {
        const Args& args = reread(this->args);
        return {args.m, args.n};
    }
    IRIS_DEVICE u64 owned(u64 owner) const { return dealt(grid().len(), world(), owner); }
    IRIS_DEVICE bool has_depth() const { return !rank.depth(me()).empty(); }

    IRIS_DEVICE bool begin() {
        bool writes = has_depth();
        return rank.call.begin() && rank.gate(writes, [&](u64 owner) { return writes ? owned(owner) : 0; });
    }

    IRIS_DEVICE u64 steps() const { return has_depth() ? grid().len() : 0; }
    IRIS_DEVICE Work work(u64 step) const {
        // Beginning with the next rank's tile, so that not all ranks hand their first tile to rank 0.
        u64 tile = (step + me() + 1) % grid().len();
        Block block = grid().block(tile);
        return {block, block.row, tile % world(), tile / world()};
    }
    IRIS_DEVICE Stretch stretch(const Work& work, u32) const { return {me(), work.a_row, 0, 0, rank.depth(me()).len()}; }
    IRIS_DEVICE void tell(const Work& work) { rank.call.push_ready(work.rank, work.index); }

    IRIS_DEVICE bool reduce() {
        if (!rank.call.meet()) {
            return false;
        }
        return reduce_each(owned(me()), [&](const Piece& piece) {
            Block block = grid().block(me() + piece.slot * world());
            return rank.reduce(piece, block.col, block.rows, block.cols,
                               [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32 count) {
                                   rank.store_to_all(block.row + row, block.col + col, values, count);
                               });
        });
    }

    IRIS_DEVICE void finish() {
        if (rank.call.finish_gathered([&](u64 owner) { return owned(owner) > 0; })) {
            rank.take_bounced();
        }
    }
};

} // namespace

IRIS_OPERATION(iris_two_shot, TwoShot)
