// `matmul_reduce_scatter`: each rank reduces, and keeps, its rows of the sum.
//
// The tile grid restarts at each owner's first row, so that no tile has two owners. Staging: a slot for every tile of a rank's
// rows at the largest m, TILE_M x TILE_N elements each.
//
// Crews make a rank's own tiles behind the peers', all of them or by turns, and add the peers' parts to them as they multiply them. Then nobody tells the owner
// itself of them.

// There is nothing for movers to do.
#define IRIS_COURIERS 3
#include "iris/kernel.h"

using namespace iris;

namespace {

/// Up to such a depth of a rank's the links take longer than the product, and it makes its own tiles by turns with peers'. On 4 H200, of 1024,
/// its own tiles at the end took 48 us in which nothing was sent, of 397.
constexpr u64 LINKED_DEPTH = 2048;

struct ReduceScatter : Operation {
    using Operation::Operation;
    static constexpr To TO = To::slots;
    static constexpr bool REDUCES = !CREWS;
    [[maybe_unused]] static constexpr bool MERGES = CREWS;
    [[maybe_unused]] static constexpr To OWN = To::own;

    IRIS_DEVICE Range rows(u64 owner) const {
        const Args& args = reread(this->args);
        return shard(args.m, args.m_share, owner);
    }
    IRIS_DEVICE Grid grid(u64 owner) const { return {rows(owner).len(), reread(args).n}; }
    IRIS_DEVICE u64 tiles(u64 owner) const { return grid(owner).len(); }
    IRIS_DEVICE bool has_depth() const { return !rank.depth(me()).empty(); }

    IRIS_DEVICE bool begin() {
        bool writes = has_depth();
        return rank.call.begin() && rank.gate(writes, [&](u64 owner) {
            return writes && !(MERGES && owner == me()) ? tiles(owner) : 0;
        });
    }

    IRIS_DEVICE Rounds rounds() const {
        const Args& args = reread(this->args);
        u64 share = tiles(0);
        // Of more depth turns were slower, by up to 16 %: docs/performance.md.
        bool linked = MERGES && args.k_share <= LINKED_DEPTH && share >= args.blocks;
        return linked ? Rounds::by_turns(world(), share, args.blocks) : Rounds::apart(world(), share);
    }
    IRIS_DEVICE u64 steps() const { return rounds().len(); }
    IRIS_DEVICE Work work(u64 step) const {
        Item tile = rounds().at(step, me());
        if (tile.index >= tiles(tile.rank) || (!has_depth() && !(MERGES && tile.rank == me()))) {
            return {};
        }
        Block block = grid(tile.rank).block(tile.index);
        return {block, rows(tile.rank).start + block.row, tile.rank, tile.index, false};
    }
    IRIS_DEVICE u64 depths() const { return rank.depth(me()).len(); }
    IRIS_DEVICE u64 c_rows() const { return rows(me()).len(); }
    IRIS_DEVICE const Element* bias() const { return MERGES ? rank.bias() : nullptr; }
    IRIS_DEVICE void tell(const Work& work) { rank.call.push_ready(work.rank, work.index); }

    IRIS_DEVICE bool reduce() {
        if (!rows(me()).empty() && !rank.call.meet()) {
            return false;
        }
        return reduce_each(tiles(me()), [&](const Piece& piece) {
            Block block = grid(me()).block(piece.slot);
            return rank.reduce(piece, block.col, block.rows, block.cols,
                               [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32 count) {
                                   rank.store_own(block.row + row, block.col + col, values, count);
                               });
        });
    }

    IRIS_DEVICE void finish() { rank.call.finish(); }
};

} // namespace

IRIS_OPERATION(iris_matmul_reduce_scatter, ReduceScatter)
