// `all_gather_matmul`: each rank hands its part of A to every rank, which multiplies the whole A by its own columns of B.
//
// A piece is TILE_M rows of a rank's part: of its rows (`iris_all_gather_matmul_rows`), or of its columns of all rows
// (`iris_all_gather_matmul_columns`). Staging: a slot for every piece of a rank's part at the largest m; rows lie side by side, each
// filled up to whole 16 bytes. A rank's own part is read where it is.

#include "iris/operation.h"

using namespace iris;

namespace {

/// What the two kernels have in common.
struct Gather {
    Rank rank;
    const Args& args;
    bool by_columns;

    IRIS_DEVICE Gather(const Args& args, Shared& shared, bool by_columns)
        : rank(args, shared), args(args), by_columns(by_columns) {}

    IRIS_DEVICE Range rows(u64 source) const {
        const Args& args = reread(this->args);
        return by_columns ? Range{0, args.m} : shard(args.m, args.world, source);
    }
    IRIS_DEVICE Range depth(u64 source) const {
        const Args& args = reread(this->args);
        return by_columns ? shard(args.k, args.world, source) : Range{0, args.k};
    }
    IRIS_DEVICE u64 pieces(u64 source) const { return depth(source).empty() ? 0 : ceil_div(rows(source).len(), TILE_M); }
    /// The columns of B, and of C, that `target` has.
    IRIS_DEVICE u64 cols(u64 target) const {
        const Args& args = reread(this->args);
        return shard(args.n, args.world, target).len();
    }
    /// Elements from one row of a staged piece to the next.
    IRIS_DEVICE u64 pitch(u64 source) const { return ceil_div(depth(source).len(), CHUNK<Element>) * CHUNK<Element>; }

    /// Copies a piece of this rank's part to a peer, or to any slot like it.
    IRIS_DEVICE void send(u64 piece, u64 target) const {
        u64 me = args.rank;
        u64 first = piece * TILE_M;
        u64 count = smaller(TILE_M, rows(me).len() - first);
        u64 depths = depth(me).len();
        Element* to = reinterpret_cast<Element*>(rank.staged(target, me, piece));
        Lines<Element> from = rank.a().from(first, 0);
        u64 across = ceil_div(depths, CHUNK<Element>);
        bool wide = from.depth_stride == 1
            && aligned16(reinterpret_cast<u64>(from.data) | from.line_stride * sizeof(Element));
        for (u64 chunk = thread_index(); chunk < count * across; chunk += THREADS) {
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
            *reinterpret_cast<Vec16*>(to + row * pitch(me) + at) = vector;
        }
    }

    /// Piece `piece` of `source`, as lines of A.
    IRIS_DEVICE Lines<Element> lines(u64 source, u64 piece) const {
        if (source == args.rank) {
            return rank.a().from(piece * TILE_M, 0);
        }
        return {reinterpret_cast<const Element*>(rank.staged(args.rank, source, piece)), pitch(source), 1};
    }

    /// Begins, passes the gate, and sends all pieces.
    IRIS_DEVICE bool produce() {
        u64 me = args.rank;
        // A rank without columns of B reads nothing, and is sent nothing.
        auto sent = [&](u64 target) { return target != me && cols(target) != 0 ? pieces(me) : u64(0); };
        Call& call = rank.call;
        if (!call.begin() || !call.gate(pieces(me) > 0, sent)) {
            return false;
        }
        // All ranks' first pieces before any second.
        u64 all = pieces(me) * (args.world - 1);
        for (u64 at = block_index(); at < all; at += args.blocks) {
            u64 target = (me + 1 + at % (args.world - 1)) % args.world;
            u64 piece = at / (args.world - 1);
            if (cols(target) != 0) {
                send(piece, target);
                call.push_ready(target, piece);
            }
        }
        return true;
    }

    /// Stores a tile of C, whose first row is `row`.
    IRIS_DEVICE void store(const Sums& sums, u64 row, u64 col, u32 rows, u32 cols) const {
        drain<Element>(sums, rank.shared.strip, rows, cols, [&](u32 r, u32 c, f32(&values)[CHUNK<Element>], u32 count) {
            add_bias(values, rank.bias(), col + c, count);
            rank.store_own(row + r, col + c, values, count);
        });
    }
};

} // namespace

IRIS_KERNEL(THREADS) iris_all_gather_matmul_rows(const Args args) {
    IRIS_SHARED(Shared, shared);
    Gather gather(args, shared, false);
    Call& call = gather.rank.call;
    u64 me = args.rank;
    if (!gather.produce()) {
        return;
    }
    u64 cols = gather.cols(me);
    if (cols != 0 && !call.meet()) {
        return;
    }
    // The tile grid restarts at each source's first row. This rank's own tiles come first: the others' pieces are on their way.
    auto tiles = [&](u64 source) { return Grid{gather.rows(source).len(), cols}.len(); };
    u64 all = cols == 0 ? 0 : items(args.world, tiles);
    for (u64 at = block_index(); at < all; at += args.blocks) {
        Item tile = item_of(at, me, args.world, tiles);
        Grid grid{gather.rows(tile.rank).len(), cols};
        Block block = grid.block(tile.index);
        u64 piece = block.row / TILE_M;
        if (tile.rank != me && !call.await_ready(tile.rank, piece)) {
            return;
        }
        Sums sums;
        sums.clear();
        multiply(sums, shared.slabs, gather.lines(tile.rank, piece), block.rows, gather.rank.b().from(block.col, 0), block.cols,
                 args.k);
        gather.store(sums, gather.rows(tile.rank).start + block.row, block.col, block.rows, block.cols);
    }
    call.finish();
}

IRIS_KERNEL(THREADS) iris_all_gather_matmul_columns(const Args args) {
    IRIS_SHARED(Shared, shared);
    Gather gather(args, shared, true);
    Call& call = gather.rank.call;
    u64 me = args.rank;
    if (!gather.produce()) {
        return;
    }
    u64 cols = gather.cols(me);
    if (cols != 0 && !call.meet()) {
        return;
    }
    // The pieces of all ranks make up the depth; their products are summed in rank order.
    Grid grid{args.m, cols};
    u64 all = cols == 0 ? 0 : grid.len();
    for (u64 tile = block_index(); tile < all; tile += args.blocks) {
        Block block = grid.block(tile);
        u64 piece = block.row / TILE_M;
        if (!call.await_ready_from(piece, [&](u64 source) { return source != me && gather.pieces(source) != 0; })) {
            return;
        }
        Sums sums;
        sums.clear();
        for (u64 source = 0; source < args.world; ++source) {
            Range depth = gather.depth(source);
            multiply(sums, shared.slabs, gather.lines(source, piece), block.rows,
                     gather.rank.b().from(block.col, depth.start), block.cols, depth.len());
        }
        block = grid.block(opaque_scalar(tile)); // once more, so that it takes no registers in between
        gather.store(sums, block.row, block.col, block.rows, block.cols);
    }
    call.finish();
}
