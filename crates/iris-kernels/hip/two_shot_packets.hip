// `matmul_all_reduce`, two-shot, for few rows: every rank hands every row of its product to the row's owner, and the owner hands the sums to
// everybody, both in packets that carry their own signal.
//
// Tiles are those of all rows, as of a reduce-scatter in packets. The block that makes a tile also reduces its rank's rows of it, and takes the
// sums of all its rows to C. It reduces all of its tiles before it waits for sums: so what anybody waits for follows from products alone, or from
// what is reduced.
//
// Packets: two slots for every column of tiles, of as many rows as a rank owns at the largest m that this is used for: first those for partial
// rows, then those for sums.

#include "iris/kernel.h"

using namespace iris;

namespace {

struct TwoShotPackets : Operation {
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
    /// The slot for a tile's sums.
    IRIS_DEVICE u64 slot_of_sums(const Block& block) const { return grid().across() + block.col / TILE_N; }

    IRIS_DEVICE bool begin() {
        bool writes = has_depth();
        if (!rank.call.begin() || !rank.call.gate(writes || !rows(me()).empty(), [](u64) { return u64(0); })) {
            return false;
        }
        u32 across = u32(grid().across());
        rank.packets().clear([&](u64 target, u64 slot, u32 row, u32 chunk) {
            bool sums = slot >= across;
            u32 col = (sums ? u32(slot) - across : u32(slot)) * TILE_N + chunk * CHUNK<Element>;
            bool fills = sums ? row < rows(me()).len() : writes && row < rows(target).len();
            return fills && col < reread(args).n;
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

    /// The rows of a tile that are an owner's: among the owner's, and none if it has none of them.
    IRIS_DEVICE Block part_of(Block block, u64 owner) const {
        Range own = rows(owner);
        u64 start = block.row > own.start ? block.row : own.start;
        u64 end = smaller(block.row + block.rows, own.end);
        block.row = start < end ? start - own.start : 0;
        block.rows = start < end ? u32(end - start) : 0;
        return block;
    }

    /// Reduces this rank's rows of the block's tiles, and hands the sums to everybody.
    IRIS_DEVICE bool reduce_own() {
        for (u32 tile = u32(block_index()); tile < u32(grid().len()); tile += u32(reread(args).blocks)) {
            Block block = part_of(grid().block(tile), me());
            if (block.rows == 0) {
                continue;
            }
            u32 slot = u32(slot_of_sums(block));
            u32 first = u32(block.row);
            bool whole = rank.reduce_packets(block.col / TILE_N, first, block,
                                             [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32) {
                                                 Vec16 sums = narrow<Element>(values);
                                                 // The next rank first. Of 32 bits, or gfx90a has too few scalar registers.
                                                 u32 target = u32(me());
                                                 IRIS_ROLLED
                                                 for (u32 left = u32(world()); left > 0; --left) {
                                                     target = target + 1 == u32(world()) ? 0 : target + 1;
                                                     rank.packets().push(target, slot, first + row, col / CHUNK<Element>, sums);
                                                 }
                                             });
            if (!whole) {
                return false;
            }
        }
        return true;
    }

    /// Takes all owners' sums to C.
    IRIS_DEVICE bool take_sums() {
        bool whole = true;
        for (u32 tile = u32(block_index()); tile < u32(grid().len()); tile += u32(reread(args).blocks)) {
            Block block = grid().block(tile);
            u32 slot = u32(slot_of_sums(block));
            u32 across = (block.cols + CHUNK<Element> - 1) / CHUNK<Element>;
            IRIS_ROLLED
            for (u32 at = opaque(thread_index()); whole && at < block.rows * across; at += threads()) {
                u32 row = u32(block.row) + at / across;
                u32 col = at % across * CHUNK<Element>;
                u32 share = u32(reread(args).m_share);
                Vec16 sums[1];
                whole = rank.packets().await(row / share, 1, slot, row % share, col / CHUNK<Element>, sums);
                if (whole) {
                    const Args& args = reread(this->args);
                    Element* c = global<Element>(args.c) + row * args.c_row + block.col + col;
                    store_chunk(c, sums[0], u32(smaller(CHUNK<Element>, block.cols - col)));
                }
            }
        }
        return rank.call.all_go_on(whole);
    }

    IRIS_DEVICE bool reduce() {
        if (!reduce_own() || !take_sums()) {
            return false;
        }
        rank.call.stall(Phase::read);
        // While the packets were under way, `entered` has come; of crews, the couriers have met all.
        return CREWS || rank.call.meet();
    }

    IRIS_DEVICE void finish() { rank.call.finish_unowned(); }
};

} // namespace

IRIS_OPERATION(iris_two_shot_packets, TwoShotPackets)
