// `matmul_all_reduce`, one-shot, for few rows: every rank hands every tile to every rank in packets that carry their own signal, and
// reduces all of them itself.
//
// Packets: a slot for every tile of the largest m that this is used for, of no more rows than that has.

#include "iris/kernel.h"

using namespace iris;

namespace {

struct OneShotPackets : Operation {
    using Operation::Operation;
    static constexpr To TO = To::packets;

    IRIS_DEVICE Grid grid() const {
        const Args& args = reread(this->args);
        return {args.m, args.n};
    }
    IRIS_DEVICE bool has_depth() const { return !rank.depth(me()).empty(); }

    IRIS_DEVICE bool begin() {
        bool writes = has_depth();
        if (!rank.call.begin() || !rank.call.gate(writes, [](u64) { return u64(0); })) {
            return false;
        }
        rank.packets().clear([&](u64, u64 slot, u32 row, u32 chunk) {
            if (!writes || slot >= grid().len()) {
                return false;
            }
            Block block = grid().block(slot);
            return row < block.rows && chunk * CHUNK<Element> < block.cols;
        });
        return true;
    }

    IRIS_DEVICE u64 steps() const { return has_depth() ? grid().len() : 0; }
    IRIS_DEVICE Work work(u64 step) const {
        Block block = grid().block(step);
        return {block, block.row, me(), step, false};
    }
    IRIS_DEVICE u64 depths() const { return rank.depth(me()).len(); }
    /// Hands a chunk of a tile to every rank, the next one first.
    IRIS_DEVICE void push(const Packets& packets, const Work& work, u32 row, u32 chunk, const Vec16& data) const {
        IRIS_ROLLED
        for (u64 nth = 0; nth < world(); ++nth) {
            packets.push((me() + 1 + nth) % world(), work.index, row, chunk, data);
        }
    }

    // Tile t is reduced by the block that has made it.
    IRIS_DEVICE bool reduce() {
        for (u64 tile = block_index(); tile < grid().len(); tile += reread(args).blocks) {
            Block block = grid().block(tile);
            bool whole = rank.reduce_packets(tile, 0, block, [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32 count) {
                rank.store_own(block.row + row, block.col + col, values, count);
            });
            if (!whole) {
                return false;
            }
        }
        // While the packets were under way, `entered` has come; of crews, the couriers have met all.
        return CREWS || rank.call.meet();
    }

    IRIS_DEVICE void finish() { rank.call.finish_unowned(); }
};

} // namespace

IRIS_OPERATION(iris_one_shot_packets, OneShotPackets)
