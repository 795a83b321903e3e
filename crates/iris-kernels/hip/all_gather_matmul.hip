// `all_gather_matmul`: each rank hands its part of A to every rank, which multiplies the whole A by its own columns of B.
//
// A rank's part is some of A's rows (`iris_all_gather_matmul_rows`), or some of its columns (`iris_all_gather_matmul_columns`). It is
// sent in pieces: PIECE_ROWS rows each, or a part of their depth where there are few, so that all blocks have one. Staging: A itself,
// gathered, its rows side by side, each filled up to whole 16 bytes. Where a row of A lies depends on nothing but its number, and a
// rank's pieces are numbered from its first row on: every rank finds out from m alone which words speak of a tile's rows.
//
// A rank's own part is read where it is. Its rows are gathered too where a tile also has others'.
//
// Rows of other calls lie elsewhere, if m differs: whoever stores here has passed the gate, so that nobody reads or stores what the
// bank held before.

#include "iris/kernel.h"

using namespace iris;

namespace {

/// Rows of a piece.
constexpr u32 PIECE_ROWS = 8;
/// Of so many depths is a part of them at least, and so many pieces a rank has, where it has that many such parts: not less than blocks.
/// The twins of those in `src/device/memory.rs`.
constexpr u32 PIECE_DEPTHS = 512;
constexpr u32 PIECES = 128;
/// Chunks that a thread copies at a time.
constexpr u32 COPIED = 2;

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
    IRIS_DEVICE u64 depths() const { return reread(args).k; }
    /// The columns of B, and of C, that `target` has.
    IRIS_DEVICE u64 cols(u64 target) const {
        const Args& args = reread(this->args);
        return shard(args.n, args.world, target).len();
    }

    /// Into how many parts the depth of a piece's rows is cut: the same at all ranks.
    IRIS_DEVICE u64 parts() const {
        u64 most = ceil_div(rows(0).len(), PIECE_ROWS);
        u64 parts = smaller(PIECES / smaller(most, PIECES), ceil_div(depth(0).len(), PIECE_DEPTHS));
        return opaque(u32(parts == 0 ? 1 : parts));
    }
    IRIS_DEVICE u64 pieces(u64 source) const {
        bool none = world() == 1 || depth(source).empty();
        return none ? 0 : ceil_div(rows(source).len(), PIECE_ROWS) * parts();
    }
    /// The pieces that make up rows `from` to `to` of A, as far as they are `source`'s.
    IRIS_DEVICE Range pieces_of(u64 source, u64 from, u64 to) const {
        Range all = rows(source);
        u64 start = from > all.start ? from : all.start;
        u64 end = smaller(to, all.end);
        if (start >= end || depth(source).empty()) {
            return {0, 0};
        }
        return {(start - all.start) / PIECE_ROWS * parts(), ceil_div(end - all.start, PIECE_ROWS) * parts()};
    }

    IRIS_DEVICE bool begin() {
        // A rank without columns of B reads nothing, and is sent nothing.
        auto sent = [&](u64 target) { return cols(target) != 0 ? pieces(me()) : u64(0); };
        return rank.call.begin() && rank.gate(pieces(me()) > 0, sent);
    }

    /// Whether tiles are made of own rows `from` to `to` of A together with others'.
    IRIS_DEVICE bool are_gathered(u64 from, u64 to) const {
        if (BY_COLUMNS) {
            return world() > 1;
        }
        Range own = rows(me());
        u64 start = from / TILE_M * TILE_M;
        u64 end = smaller(ceil_div(to, TILE_M) * TILE_M, reread(args).m);
        return start < own.start || end > own.end;
    }

    /// A chunk of this rank's part: row `row`, from depth `at` on, of which `count` lie inside.
    IRIS_DEVICE static Vec16 take(const Lines<Element>& from, bool wide, u64 row, u64 at, u32 count) {
        const Element* source = from.data + row * from.line_stride + at * from.depth_stride;
        if (wide && count == CHUNK<Element>) {
            return *reinterpret_cast<const Vec16*>(source);
        }
        return gather(source, from.depth_stride, count);
    }

    /// Copies a piece of this rank's part to all who read it.
    IRIS_DEVICE void send_piece(u64 piece) const {
        Range own_rows = rows(me());
        Range own_depth = depth(me());
        u64 first = piece / parts() * PIECE_ROWS;
        u32 height = u32(smaller(PIECE_ROWS, own_rows.len() - first));
        u64 width = ceil_div(ceil_div(own_depth.len(), CHUNK<Element>), parts()) * CHUNK<Element>;
        u64 left = smaller(piece % parts() * width, own_depth.len());
        u32 depths = u32(smaller(width, own_depth.len() - left));
        bool keep = are_gathered(own_rows.start + first, own_rows.start + first + height);
        Lines<Element> from = rank.a().from(first, left);
        bool wide = from.depth_stride == 1
            && aligned16(reinterpret_cast<u64>(from.data) | from.line_stride * sizeof(Element));
        // Neighbouring threads read neighbouring elements, whichever way A lies.
        bool deep = from.depth_stride == 1 || from.line_stride != 1;
        u64 pitch = Rank::pitch(this->depths());
        u64 place = (own_rows.start + first) * pitch + own_depth.start + left;
        u32 across = (depths + CHUNK<Element> - 1) / CHUNK<Element>;
        for (u32 next = thread_index(); next < height * across; next += COPIED * threads()) {
            Vec16 chunks[COPIED];
            IRIS_UNROLL
            for (u32 nth = 0; nth < COPIED; ++nth) {
                u32 chunk = next + nth * threads();
                if (chunk < height * across) {
                    u32 at = (deep ? chunk % across : chunk / height) * CHUNK<Element>;
                    chunks[nth] = take(from, wide, deep ? chunk / across : chunk % height, at, u32(smaller(depths - at, CHUNK<Element>)));
                }
            }
            IRIS_ROLLED
            for (u64 step = 0; step < world(); ++step) {
                u64 target = (me() + 1 + step) % world();
                if (cols(target) == 0 || (target == me() && !keep)) {
                    continue;
                }
                Element* to = reinterpret_cast<Element*>(rank.staged(target, 0, 0)) + place;
                IRIS_UNROLL
                for (u32 nth = 0; nth < COPIED; ++nth) {
                    u32 chunk = next + nth * threads();
                    if (chunk < height * across) {
                        u32 row = deep ? chunk / across : chunk % height;
                        u32 at = (deep ? chunk % across : chunk / height) * CHUNK<Element>;
                        store_chunk(to + row * pitch + at, chunks[nth], u32(smaller(depths - at, CHUNK<Element>)));
                    }
                }
            }
        }
    }

    /// Sends all pieces.
    IRIS_DEVICE bool send() {
        for (u64 piece = block_index(); piece < pieces(me()); piece += reread(args).blocks) {
            send_piece(piece);
            // To itself as well, whether or not it keeps the piece: so no word of a bank's call is left as it was before.
            rank.call.push_ready_to(piece, [&](u64 target) { return cols(target) != 0; });
        }
        return true;
    }
    /// Whether no block has more than one, nor more than one of `tiles` tiles. Then all that a block has to multiply with is free to send
    /// first: there is nothing that could be multiplied meanwhile.
    IRIS_DEVICE bool at_once(u64 tiles) const {
        u64 blocks = reread(args).blocks;
        return tiles <= blocks && pieces(me()) <= blocks;
    }

    /// There is nothing to reduce. Whoever has read peers' rows has met them.
    IRIS_DEVICE bool reduce() { return cols(me()) == 0 || rank.call.meet(); }

    IRIS_DEVICE const Element* bias() const { return rank.bias(); }
    IRIS_DEVICE void finish() { rank.call.finish(); }
};

/// Each rank has its rows of A.
struct GatherRows : Gather<false> {
    using Gather<false>::Gather;

    IRIS_DEVICE Grid grid() const {
        const Args& args = reread(this->args);
        // No more rows of tiles together than are this rank's own, which come first: the others' are on their way.
        u64 own = smaller(rows(args.rank).len() / TILE_M, IRIS_RASTER);
        return {args.m, cols(args.rank), u32(own == 0 ? 1 : own)};
    }
    IRIS_DEVICE u64 steps() const { return cols(me()) == 0 ? 0 : grid().len(); }
    IRIS_DEVICE bool sends_at_once() const { return at_once(steps()); }
    IRIS_DEVICE Work work(u64 step) const {
        Range own = rows(me());
        u64 m = reread(args).m;
        Block block = grid().block(step);
        block.row = (block.row / TILE_M + own.start / TILE_M) % ceil_div(m, TILE_M) * TILE_M;
        block.rows = u32(smaller(TILE_M, m - block.row));
        bool gathered = are_gathered(block.row, block.row + block.rows);
        return {block, gathered ? block.row : block.row - own.start, me(), 0, gathered};
    }
    IRIS_DEVICE bool arrived(const Work& work) {
        if (!work.gathered) {
            return true;
        }
        u64 share = rows(0).len();
        u64 end = work.block.row + work.block.rows;
        return rank.call.await_ready_of(work.block.row / share, (end - 1) / share, threads(),
                                        [&](u64 source) { return pieces_of(source, work.block.row, end); });
    }
};

/// Each rank has its columns of A.
struct GatherColumns : Gather<true> {
    using Gather<true>::Gather;

    IRIS_DEVICE Grid grid() const { return {reread(args).m, cols(me())}; }
    IRIS_DEVICE u64 steps() const { return cols(me()) == 0 ? 0 : grid().len(); }
    IRIS_DEVICE bool sends_at_once() const { return at_once(steps()); }
    IRIS_DEVICE Work work(u64 step) const {
        Block block = grid().block(step);
        return {block, block.row, me(), 0, are_gathered(block.row, block.row + block.rows)};
    }
    IRIS_DEVICE bool arrived(const Work& work) {
        if (!work.gathered) {
            return true;
        }
        return rank.call.await_ready_of(0, world() - 1, threads(), [&](u64 source) {
            return pieces_of(source, work.block.row, work.block.row + work.block.rows);
        });
    }
};

} // namespace

IRIS_OPERATION(iris_all_gather_matmul_rows, GatherRows)
IRIS_OPERATION(iris_all_gather_matmul_columns, GatherColumns)
