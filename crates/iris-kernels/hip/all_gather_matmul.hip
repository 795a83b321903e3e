// `all_gather_matmul`: each rank hands its part of A to every rank, which multiplies the whole A by its own columns of B.
//
// A piece is TILE_M rows of a rank's part: of its rows (`iris_all_gather_matmul_rows`), or of its columns of all rows
// (`iris_all_gather_matmul_columns`). Staging: a slot for every piece of a rank's part at the largest m; rows lie side by side, each
// filled up to whole 16 bytes. A rank's own part is read where it is.

#include "iris/kernel.h"

using namespace iris;

namespace {

/// What the two operations have in common.
template <bool BY_COLUMNS>
struct Gather : Operation {
    using Operation::Operation;
    static constexpr To TO = To::own;
    static constexpr bool SENDS = true;

    IRIS_DEVICE Range rows(u64 source) const {
        const Args& args = reread(this->args);
        return BY_COLUMNS ? Range{0, args.m} : shard(args.m, args.world, source);
    }
    IRIS_DEVICE Range depth(u64 source) const {
        const Args& args = reread(this->args);
        return BY_COLUMNS ? shard(args.k, args.world, source) : Range{0, args.k};
    }
    IRIS_DEVICE u64 pieces(u64 source) const { return depth(source).empty() ? 0 : ceil_div(rows(source).len(), TILE_M); }
    /// The columns of B, and of C, that `target` has.
    IRIS_DEVICE u64 cols(u64 target) const {
        const Args& args = reread(this->args);
        return shard(args.n, args.world, target).len();
    }

    IRIS_DEVICE bool begin() {
        // A rank without columns of B reads nothing, and is sent nothing.
        auto sent = [&](u64 target) { return target != me() && cols(target) != 0 ? pieces(me()) : u64(0); };
        return rank.call.begin() && rank.gate(pieces(me()) > 0, sent);
    }

    /// Copies a piece of this rank's part to a peer, or to any slot like it.
    IRIS_DEVICE void send_piece(u64 piece, u64 target) const {
        u64 first = piece * TILE_M;
        u64 count = smaller(TILE_M, rows(me()).len() - first);
        u64 depths = depth(me()).len();
        Element* to = reinterpret_cast<Element*>(rank.staged(target, me(), piece));
        Lines<Element> from = rank.a().from(first, 0);
        u64 across = ceil_div(depths, CHUNK<Element>);
        bool wide = from.depth_stride == 1
            && aligned16(reinterpret_cast<u64>(from.data) | from.line_stride * sizeof(Element));
        for (u64 chunk = thread_index(); chunk < count * across; chunk += threads()) {
            // Neighbouring threads read neighbouring elements, whichever way A lies.
            bool deep = from.depth_stride == 1 || from.line_stride != 1;
            u64 row = deep ? chunk / across : chunk % count;
            u64 at = (deep ? chunk % across : chunk / count) * CHUNK<Element>;
            const Element* source = from.data + row * from.line_stride + at * from.depth_stride;
            Vec16 vector = {};
            if (wide && at + CHUNK<Element> <= depths) {
                vector = *reinterpret_cast<const Vec16*>(source);
            } else {
                vector = gather(source, from.depth_stride, smaller(depths - at, CHUNK<Element>));
            }
            *reinterpret_cast<Vec16*>(to + row * Rank::pitch(depths) + at) = vector;
        }
    }

    /// Sends all pieces.
    IRIS_DEVICE bool send() {
        // All ranks' first pieces before any second.
        u64 all = pieces(me()) * (world() - 1);
        for (u64 at = block_index(); at < all; at += reread(args).blocks) {
            u64 target = (me() + 1 + at % (world() - 1)) % world();
            u64 piece = at / (world() - 1);
            if (cols(target) != 0) {
                send_piece(piece, target);
                rank.call.push_ready(target, piece);
            }
        }
        return cols(me()) == 0 || rank.call.meet();
    }

    IRIS_DEVICE const Element* bias() const { return rank.bias(); }
    IRIS_DEVICE void finish() { rank.call.finish(); }
};

/// Each rank has its rows of A. The tile grid restarts at each source's first row.
struct GatherRows : Gather<false> {
    using Gather<false>::Gather;

    IRIS_DEVICE Grid grid(u64 source) const { return {rows(source).len(), cols(me())}; }
    IRIS_DEVICE u64 tiles(u64 source) const { return grid(source).len(); }

    IRIS_DEVICE u64 steps() const {
        return cols(me()) == 0 ? 0 : items(world(), [&](u64 source) { return tiles(source); });
    }
    IRIS_DEVICE Work work(u64 step) const {
        // This rank's own tiles come first: the others' pieces are on their way.
        Item tile = item_of(step, me(), world(), [&](u64 source) { return tiles(source); });
        Block block = grid(tile.rank).block(tile.index);
        u64 row = block.row;
        block.row += rows(tile.rank).start;
        return {block, row, tile.rank, row / TILE_M};
    }
    IRIS_DEVICE bool arrived(const Work& work) {
        return work.rank == me() || rank.call.await_ready(work.rank, work.index);
    }
    IRIS_DEVICE Stretch stretch(const Work& work, u32) const {
        return {work.rank, work.a_row, work.index, 0, reread(args).k};
    }
};

/// Each rank has its columns of A. The pieces of all ranks make up the depth; their products are summed in rank order.
struct GatherColumns : Gather<true> {
    using Gather<true>::Gather;

    IRIS_DEVICE Grid grid() const { return {reread(args).m, cols(me())}; }

    IRIS_DEVICE u64 steps() const { return cols(me()) == 0 ? 0 : grid().len(); }
    IRIS_DEVICE Work work(u64 step) const {
        Block block = grid().block(step);
        return {block, block.row, me(), block.row / TILE_M};
    }
    IRIS_DEVICE bool arrived(const Work& work) {
        return rank.call.await_ready_from(work.index, [&](u64 source) { return source != me() && pieces(source) != 0; });
    }
    IRIS_DEVICE u32 stretches() const { return u32(world()); }
    IRIS_DEVICE Stretch stretch(const Work& work, u32 nth) const {
        Range range = depth(nth);
        return {nth, work.a_row, work.index, range.start, range.len()};
    }
};

} // namespace

IRIS_OPERATION(iris_all_gather_matmul_rows, GatherRows)
IRIS_OPERATION(iris_all_gather_matmul_columns, GatherColumns)
