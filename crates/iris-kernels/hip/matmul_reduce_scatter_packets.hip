// `matmul_reduce_scatter`, for few rows: every rank hands every row of its product to the row's owner in packets that carry their own
// signal.
//
// Here the tiles are those of all rows: a tile has as many owners as its rows have. B, which few rows have to be multiplied by, is
// then read once, and not once for each owner.
//
// Packets: a slot for every column of tiles, of as many rows as a rank owns at the largest m that this is used for.

#include "iris/kernel.h"

using namespace iris;

namespace {

struct ReduceScatterPackets : Operation {
    using Operation::Operation;
    static constexpr To TO = To::packets;

    IRIS_DEVICE Grid grid() const {
        const Args& args = reread(this->args);
        return {args.m, args.n};
    }
    IRIS_DEVICE Range rows(u64 owner) const {
        const Args& args = reread(this->args);
        return shard(args.m, args.m_share, owner);
    }
    IRIS_DEVICE bool has_depth() const { return !rank.depth(me()).empty(); }

    IRIS_DEVICE bool begin() {
        bool writes = has_depth();
        if (!rank.call.begin() || !rank.call.gate(writes, [](u64) { return u64(0); })) {
            return false;
        }
        rank.packets().clear([&](u64 target, u64 slot, u32 row, u32 chunk) {
            return writes && row < rows(target).len() && slot * TILE_N + chunk * CHUNK<Element> < reread(args).n;
        });
        return true;
    }

    IRIS_DEVICE u64 steps() const { return has_depth() ? grid().len() : 0; }
    IRIS_DEVICE Work work(u64 step) const {
        Block block = grid().block(step);
        return {block, block.row, me(), block.col / TILE_N, false};
    }
    IRIS_DEVICE u64 depths() const { return rank.depth(me()).len(); }
    /// Hands a chunk of a tile to its row's owner.
    IRIS_DEVICE void push(const Packets& packets, const Work& work, u32 row, u32 chunk, const Vec16& data) const {
        u32 share = u32(reread(args).m_share);
        u32 at = u32(work.block.row) + row;
        packets.push(at / share, work.index, at % share, chunk, data);
    }

    // This rank's rows of tile t are reduced by the block that has made it.
    IRIS_DEVICE bool reduce() {
        for (u64 tile = block_index(); tile < grid().len(); tile += reread(args).blocks) {
            Range own = rows(me());
            Block block = grid().block(tile);
            u64 start = block.row > own.start ? block.row : own.start;
            u64 end = smaller(block.row + block.rows, own.end);
            if (start >= end) {
                continue;
            }
            block.row = start - own.start;
            block.rows = u32(end - start);
            bool whole = rank.reduce_packets(block.col / TILE_N, u32(block.row), block,
                                             [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32 count) {
                                                 rank.store_own(block.row + row, block.col + col, values, count);
                                             });
            if (!whole) {
                return false;
            }
        }
        // While the packets were under way, `entered` has come; of crews, the couriers have met all.
        return CREWS || rank.call.meet();
    }

    IRIS_DEVICE void finish() { rank.call.finish(); }
};

} // namespace

IRIS_OPERATION(iris_matmul_reduce_scatter_packets, ReduceScatterPackets)
