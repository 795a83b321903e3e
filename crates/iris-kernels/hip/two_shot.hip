// `matmul_all_reduce`, two-shot: each tile is reduced by its owner, who stores the sum into everybody's output.
//
// Each rank owns a share of the tiles that follow each other, so that what its peers make for it has much of A and B in common.
// Staging: a slot for every tile that a rank owns at the largest m, TILE_M x TILE_N elements each. The output is symmetric, or bounced.
//
// Crews make a rank's own tiles behind the peers', or on more than two ranks by turns with them (`rounds`), and add the peers' parts to them as they
// multiply them. Then nobody tells the owner itself of them.

// There is nothing for movers to do.
#define IRIS_COURIERS 3
#include "iris/kernel.h"

using namespace iris;

namespace {

/// Parts of its share that a rank makes by turns with peers' tiles.
constexpr u64 PARTS = 8;
/// Of a share of so many tiles, or more, it makes twice as many parts.
constexpr u64 MANY = 512;

struct TwoShot : Operation {
    using Operation::Operation;
    static constexpr To TO = To::slots;
    static constexpr bool REDUCES = !CREWS;
    [[maybe_unused]] static constexpr bool MERGES = CREWS;
    [[maybe_unused]] static constexpr To OWN = To::outputs;

    IRIS_DEVICE Grid grid() const {
        const Args& args = reread(this->args);
        return {args.m, args.n};
    }
    IRIS_DEVICE Range owned(u64 owner) const { return shard(grid().len(), ceil_div(grid().len(), world()), owner); }
    IRIS_DEVICE bool has_depth() const { return !rank.depth(me()).empty(); }

    IRIS_DEVICE bool begin() {
        bool writes = has_depth();
        return rank.call.begin() && rank.gate(writes, [&](u64 owner) {
            return writes && !(MERGES && owner == me()) ? owned(owner).len() : 0;
        });
    }

    /// Of two ranks each broadcasts as much while it makes its own tiles as it sent before. Of more, most would be broadcast at the end: so own
    /// tiles go by turns with the peers', a round behind, unless they are less than a wave of blocks. On 4 H200 2048, 4096, 8192 rows of
    /// (8192, 3584) take 231, 435, 844 us by turns, 243, 467, 903 with all own tiles at the end; 512 and 1024 rows 89 and 138, 79 and 133.
    IRIS_DEVICE Rounds rounds() const {
        u64 share = owned(0).len();
        if (!MERGES || world() <= 2 || share < reread(args).blocks) {
            return Rounds::apart(world(), share);
        }
        return {world(), share, ceil_div(share, share < MANY ? PARTS : 2 * PARTS), 1};
    }
    IRIS_DEVICE u64 steps() const { return rounds().len(); }
    IRIS_DEVICE Work work(u64 step) const {
        Item tile = rounds().at(step, me());
        Range range = owned(tile.rank);
        if (tile.index >= range.len() || (!has_depth() && !(MERGES && tile.rank == me()))) {
            return {};
        }
        Block block = grid().block(range.start + tile.index);
        return {block, block.row, tile.rank, tile.index, false};
    }
    IRIS_DEVICE u64 depths() const { return rank.depth(me()).len(); }
    IRIS_DEVICE const Element* bias() const { return MERGES ? rank.bias() : nullptr; }
    IRIS_DEVICE bool may_store(const Work& work) { return !MERGES || work.rank != me() || rank.call.meet(); }
    IRIS_DEVICE void tell(const Work& work) { rank.call.push_ready(work.rank, work.index); }

    IRIS_DEVICE bool reduce() {
        if (!rank.call.meet()) {
            return false;
        }
        return reduce_each(owned(me()).len(), [&](const Piece& piece) {
            Block block = grid().block(owned(me()).start + piece.slot);
            return rank.reduce(piece, block.col, block.rows, block.cols,
                               [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32 count) {
                                   rank.store_to_all(block.row + row, block.col + col, values, count);
                               });
        });
    }

    IRIS_DEVICE void finish() {
        if (rank.call.finish_gathered([&](u64 owner) { return !owned(owner).empty(); })) {
            rank.take_bounced();
        }
    }
};

} // namespace

IRIS_OPERATION(iris_two_shot, TwoShot)
