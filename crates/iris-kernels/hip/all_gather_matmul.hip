// `all_gather_matmul`: each rank hands its part of A to every rank, which multiplies the whole A by its own columns of B.
//
// A rank's part is some of A's rows (`iris_all_gather_matmul_rows`), or some of its columns (`iris_all_gather_matmul_columns`). It is
// sent in pieces: PIECE_ROWS rows each, or a part of their depth where there are few, so that all blocks have one. Staging: A itself,
// gathered, its rows side by side, each filled up to whole 16 bytes. Where a row of A lies depends on nothing but its number, and a
// rank's pieces are numbered part by part, and in each from its first row on: every rank finds out from m alone which words speak of a tile's rows.
//
// A rank's own part is read where it is. Its rows are gathered too where a tile also has others'.
//
// Where each rank has whole rows of tiles it begins with its own, goes on with the next rank's, and so on around. Where these are many, crews send its part to
// one peer after the other, to that first which needs it first: the rank before it. At any time each rank sends to another one, and has as long for
// each as that takes to multiply what it has. Where tiles need all ranks' rows at once, each piece goes to all.
//
// Rows of other calls lie elsewhere, if m differs: whoever stores here has passed the gate, so that nobody reads or stores what the
// bank held before.

#include "iris/kernel.h"

using namespace iris;

namespace {

/// Rows of a piece: the twin of that in `src/device/memory.rs`.
constexpr u32 PIECE_ROWS = 8;
/// Chunks that a thread copies at a time: on gfx90a two would not leave scalar registers enough.
constexpr u32 COPIED = CREWS ? 4 : LANES == 64 ? 1 : 2;
/// Whether what is sent beside a product may be sent to one peer after the other. Portable kernels send before they multiply, and have no registers to spare.
#if defined(IRIS_EMULATED)
constexpr bool IN_TURN = true;
#else
constexpr bool IN_TURN = CREWS;
#endif

/// What the two operations have in common.
template <bool BY_COLUMNS>
struct Gather : Operation {
    using Operation::Operation;
    static constexpr To TO = To::own;
    static constexpr bool SENDS = true;
    static constexpr bool STREAMS = true;

    /// Where a thread's chunks of a piece lie: in one of its rows, some apart. Neighbouring threads read neighbouring elements, whichever
    /// way A lies.
    struct Path {
        u32 row;
        u32 first;
        u32 step;
        u32 across;
    };

    /// A piece that is being sent: this thread's way through it, and some chunks of it; and whether these were loaded ahead. And whether
    /// all is sent to one peer after the other.
    struct Parcel {
        Block piece;
        Path way;
        Vec16 chunks[COPIED];
        bool expected = false;
        u32 in_turn;
    };

    IRIS_DEVICE Range rows(u64 source) const {
        const Args& args = reread(this->args);
        return BY_COLUMNS ? Range{0, args.m} : shard(args.m, args.m_share, source);
    }
    IRIS_DEVICE Range depth(u64 source) const {
        const Args& args = reread(this->args);
        return BY_COLUMNS ? shard(args.k, args.k_share, source) : Range{0, args.k};
    }
    IRIS_DEVICE u64 depths() const { return reread(args).k; }
    /// The columns of B, and of C, that `target` has.
    IRIS_DEVICE u64 cols(u64 target) const {
        const Args& args = reread(this->args);
        return shard(args.n, args.n_share, target).len();
    }

    /// Into how many parts the depth of a piece's rows is cut, and how deep each is: the same at all ranks. The last ones may have less, or
    /// nothing.
    IRIS_DEVICE u32 parts() const {
        const Args& args = reread(this->args);
        return u32(BY_COLUMNS ? args.col_parts : args.row_parts);
    }
    IRIS_DEVICE u32 part_depths() const {
        const Args& args = reread(this->args);
        return u32(BY_COLUMNS ? args.col_part : args.row_part);
    }
    /// Of so many rows of pieces `source`'s part consists.
    IRIS_DEVICE u64 strips(u64 source) const { return (rows(source).len() + PIECE_ROWS - 1) / PIECE_ROWS; }
    IRIS_DEVICE u64 pieces(u64 source) const {
        bool none = world() == 1 || depth(source).empty();
        return none ? 0 : strips(source) * parts();
    }
    /// What of A a tile is made from, and which of its pieces a thread waits for. A tile's depth is cut into *stages*, which arrive one after
    /// the other: a part of every rank's rows, or of one rank's columns. Each consists of the same strips.
    struct Wanted {
        /// Whose pieces, if by rows: each rank has some threads that wait for its pieces.
        u64 source;
        /// The first strip, and how many.
        u32 first;
        u32 count;
        /// This thread's number among those that wait for the same, and how many these are.
        u32 thread;
        u32 threads;
        /// All strips of the source, or of every one.
        u32 strips;
    };
    /// For tiles made of rows `from` to `to`.
    IRIS_DEVICE Wanted wanted_of(u64 from, u64 to) const {
        // By columns every rank has all rows; else some ranks, one after the other, have these.
        u32 share = u32(reread(args).m_share);
        u32 source = BY_COLUMNS ? 0 : u32(from) / share;
        u32 each = BY_COLUMNS ? threads() : threads() / (u32(to - 1) / share - source + 1);
        source += BY_COLUMNS ? 0 : thread_index() / each;
        if (source >= world() || depths() == 0) {
            return {0, 0, 0, 0, 1, 1};
        }
        Range all = rows(source);
        u64 start = from > all.start ? from : all.start;
        u64 end = smaller(to, all.end);
        u32 first = start < end ? u32((start - all.start) / PIECE_ROWS) : 0;
        u32 count = start < end ? u32(ceil_div(end - all.start, PIECE_ROWS)) - first : 0;
        return {source, first, count, BY_COLUMNS ? thread_index() : thread_index() % each, each, u32(strips(source))};
    }
    /// How many stages there are.
    IRIS_DEVICE u32 stages() const {
        const Args& args = reread(this->args);
        return BY_COLUMNS ? u32(args.k + args.k_share - 1) / u32(args.k_share) * parts() : parts();
    }
    /// In which one depth `at` comes, and the depth up to which all has come after `stages` of them.
    IRIS_DEVICE u32 stage_of(u64 at) const {
        u32 source = BY_COLUMNS ? u32(at) / u32(reread(args).k_share) : 0;
        return source * parts() + u32(at - depth(source).start) / part_depths();
    }
    IRIS_DEVICE u64 depth_after(u32 stages) const {
        u32 source = BY_COLUMNS ? stages / parts() : 0;
        return smaller(depth(source).start + u64(stages - source * parts()) * part_depths(), depth(source).end);
    }
    /// The piece of a stage that holds a strip.
    IRIS_DEVICE TileOf piece_of(const Wanted& wanted, u32 stage, u32 strip) const {
        u32 part = BY_COLUMNS ? stage % parts() : stage;
        return {BY_COLUMNS ? stage / parts() : wanted.source, u64(part) * wanted.strips + strip};
    }
    /// Waits for all of it.
    IRIS_DEVICE bool arrived(const Wanted& wanted) {
#if defined(IRIS_EMULATED)
        // With waves of 32, stage by stage, as Hopper's loader does.
        if constexpr (LANES == 32) {
            for (u64 at = 0; at < depths();) {
                u64 before = at;
                if (!arrived_at(wanted, at) || at <= before) {
                    return false;
                }
            }
            return true;
        }
#endif
        return rank.call.await_ready_named(wanted.thread, wanted.threads, count_of(wanted), [&](u32 nth) { return named(wanted, nth); });
    }
    /// How many pieces it consists of, and one of them.
    IRIS_DEVICE u32 count_of(const Wanted& wanted) const { return wanted.count * stages(); }
    IRIS_DEVICE TileOf named(const Wanted& wanted, u32 nth) const {
        return piece_of(wanted, nth / wanted.count, wanted.first + nth % wanted.count);
    }

#if defined(IRIS_SM90) || defined(IRIS_EMULATED)
    /// Whether all of it is there, looked at once.
    IRIS_DEVICE bool has_arrived(const Wanted& wanted) {
        return rank.call.are_ready_named(wanted.thread, wanted.threads, count_of(wanted), [&](u32 nth) { return named(wanted, nth); });
    }

    /// Waits for what is wanted at depth `at`, and moves this on to the depth up to which all has come. One wave calls it.
    IRIS_DEVICE bool arrived_at(const Wanted& wanted, u64& at) {
        u32 stage = stage_of(at);
        u32 part = BY_COLUMNS ? stage % parts() : stage;
        // What comes next of the same strips is looked at as well.
        Span span{BY_COLUMNS ? stage / parts() : wanted.source, u64(part) * wanted.strips + wanted.first, wanted.count, wanted.strips,
                  parts() - part, wanted.thread, wanted.threads};
        u32 whole = 0;
        if (!rank.call.await_span(span, whole)) {
            return false;
        }
        at = depth_after(stage + whole);
        return true;
    }
#endif

    /// How many rows of tiles come first, column by column, before all others: this rank's own, while the others' are on their way. If
    /// none, all tiles wait for all rows. Which is faster, `src/device/gather.rs` says.
    IRIS_DEVICE u32 rows_first() const { return u32(reread(args).rows_first); }
    /// So many rows of tiles are gone through together, or in groups, after the first `first`: as many as a rank has, unless all that are
    /// left are so few that they are one group.
    IRIS_DEVICE static u32 rows_after(u32 all, u32 first) { return first == 0 || all - first <= IRIS_RASTER ? all - first : first; }
    /// Whether a rank's part is sent to one peer after the other.
    IRIS_DEVICE u32 in_turn() const { return IN_TURN ? u32(reread(args).in_turn) : 0; }

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

    /// The pieces fall to the blocks from the last one on: the first has more to do as the call begins.
    IRIS_DEVICE u64 first_piece() const { return reread(args).blocks - 1 - block_index(); }

    /// The rows and depths of a piece, within this rank's part.
    IRIS_DEVICE Block extent(u64 piece) const {
        Range own_rows = rows(me());
        Range own_depth = depth(me());
        // Part by part, which is the order in which they are waited for.
        u32 strips = u32(this->strips(me()));
        u32 part = strips == 0 ? 0 : u32(piece) / strips;
        u64 first = u64(u32(piece) - part * strips) * PIECE_ROWS;
        u64 left = smaller(u64(part) * part_depths(), own_depth.len());
        return {first, left, u32(smaller(PIECE_ROWS, own_rows.len() - first)), u32(smaller(part_depths(), own_depth.len() - left))};
    }

    /// This thread's.
    IRIS_DEVICE Path path(const Block& piece) const {
        Lines<Element> from = rank.a();
        u32 side = threads() / PIECE_ROWS;
        u32 across = (piece.cols + CHUNK<Element> - 1) / CHUNK<Element>;
        bool deep = from.depth_stride == 1 || from.line_stride != 1;
        u32 row = deep ? thread_index() / side : thread_index() % PIECE_ROWS;
        u32 first = deep ? thread_index() % side : thread_index() / PIECE_ROWS;
        // A row that the piece does not have has no chunks.
        return {row, first, side, row < piece.rows ? across : 0};
    }

    /// Whether A lies in whole chunks, one beside the other, here as well as where it is gathered. All ranks' A is as deep, but how each lies is its
    /// own affair.
    IRIS_DEVICE bool is_whole() const {
        const Args& args = reread(this->args);
        u64 each = BY_COLUMNS ? args.k_share | args.k : args.k;
        return args.a_col == 1 && aligned16(args.a | args.a_row * sizeof(Element) | each * sizeof(Element));
    }

    /// Loads chunks of a piece of whole ones, from number `next` on. All at once: a chunk that there is none of is the last one again.
    IRIS_DEVICE void fetch(Parcel& parcel, u32 next) const {
        const Path& way = parcel.way;
        Lines<Element> from = rank.a().from(parcel.piece.row + way.row, parcel.piece.col);
        u32 last = way.across == 0 ? 0 : way.across - 1;
        IRIS_UNROLL
        for (u32 nth = 0; nth < COPIED && way.across != 0; ++nth) {
            u32 chunk = u32(smaller(next + nth * way.step, last));
            parcel.chunks[nth] = load_whole(from.data + chunk * CHUNK<Element>);
        }
    }

    /// Whether a rank is sent to in a turn, of which there are several if `in_turn`: to itself in the first.
    IRIS_DEVICE bool is_due(u64 target, u64 turn, bool in_turn) const {
        return !in_turn || (target == me() ? turn == 0 : (target + 1 + turn) % world() == me());
    }

    /// Stores a piece's chunks from number `next` on at all who read it and whose turn it is: what `fetch` has loaded if A `is_whole`; else each is
    /// gathered, element by element if it has to be, which is little code beside what most calls go through.
    IRIS_DEVICE void put(const Parcel& parcel, u32 next, u64 turn, bool in_turn) const {
        const Block& piece = parcel.piece;
        const Path& way = parcel.way;
        u64 row = rows(me()).start + piece.row;
        bool keep = are_gathered(row, row + piece.rows);
        u64 place = (row + way.row) * Rank::pitch(this->depths()) + depth(me()).start + piece.col;
        u64 target = me();
        IRIS_ROLLED
        for (u64 step = 0; step < world(); ++step) {
            target = next_rank(target, world());
            if (cols(target) == 0 || (target == me() && !keep) || !is_due(target, turn, in_turn)) {
                continue;
            }
            Element* to = reinterpret_cast<Element*>(rank.staged(target, 0, 0)) + place;
            if (!is_whole()) {
                put_any(parcel, next, to);
                continue;
            }
            IRIS_UNROLL
            for (u32 nth = 0; nth < COPIED; ++nth) {
                u32 chunk = next + nth * way.step;
                if (chunk < way.across) {
                    store_whole(to + chunk * CHUNK<Element>, parcel.chunks[nth]);
                }
            }
        }
    }
    /// The same of any A, at one rank, where this thread's row of the piece begins at `to`.
    IRIS_DEVICE void put_any(const Parcel& parcel, u32 next, Element* to) const {
        const Path& way = parcel.way;
        Lines<Element> from = rank.a().from(parcel.piece.row + way.row, parcel.piece.col);
        IRIS_ROLLED
        for (u32 nth = 0; nth < COPIED && next + nth * way.step < way.across; ++nth) {
            u32 at = (next + nth * way.step) * CHUNK<Element>;
            u32 count = u32(smaller(CHUNK<Element>, parcel.piece.cols - at));
            if (count == CHUNK<Element> && aligned16(reinterpret_cast<u64>(to + at))) {
                store_whole(to + at, gather(from.data + at * from.depth_stride, from.depth_stride, count));
                continue;
            }
            IRIS_ROLLED
            for (u32 each = at; each < at + count; ++each) {
                to[each] = from.data[each * from.depth_stride];
            }
        }
    }

    /// Finds out how this block sends, and where its first piece lies, of which chunks are loaded where it is not known yet whether they may be sent.
    IRIS_DEVICE void expect(Parcel& parcel) const {
        parcel.in_turn = in_turn();
        if (first_piece() < pieces(me()) && is_whole()) {
            parcel.piece = extent(first_piece());
            parcel.way = path(parcel.piece);
            parcel.expected = true;
            worked_out(parcel.piece.row);
            worked_out(parcel.piece.col);
            worked_out(parcel.way.row);
            worked_out(parcel.way.first);
            worked_out(parcel.way.across);
        }
    }
    /// Loads the first of them.
    IRIS_DEVICE void fetch_expected(Parcel& parcel) const {
        if (!parcel.expected) {
            return;
        }
        fetch(parcel, parcel.way.first);
        // The rest comes as far as the cache.
        Lines<Element> from = rank.a().from(parcel.piece.row + parcel.way.row, parcel.piece.col);
        IRIS_ROLLED
        for (u32 chunk = parcel.way.first + COPIED * parcel.way.step; chunk < parcel.way.across; chunk += parcel.way.step) {
            prefetch(from.data + chunk * CHUNK<Element>);
        }
    }

    /// Bytes that a piece sends, to all peers together.
    IRIS_DEVICE u64 piece_bytes() const { return u64(PIECE_ROWS) * part_depths() * sizeof(Element) * (world() - 1); }
    /// Whether blocks send what this rank sends before they multiply, by all their warpgroups.
    IRIS_DEVICE bool sends_first() const { return BY_COLUMNS || reread(args).sends_first != 0; }

    /// Sends all pieces, of which the first may be expected. `await(number)` is called before a piece is sent, `pause` after whatever has
    /// been stored.
    template <class Await, class Pause>
    IRIS_DEVICE bool send(Parcel& parcel, Await await, Pause pause) {
        bool in_turn = parcel.in_turn != 0;
        u64 turns = in_turn ? world() - 1 : 1;
        IRIS_ROLLED
        for (u64 turn = 0; turn < turns; ++turn) {
            for (u64 number = first_piece(); number < pieces(me()); number += reread(args).blocks) {
                if (!parcel.expected) {
                    parcel.piece = extent(number);
                    parcel.way = path(parcel.piece);
                }
                await(number);
                for (u32 next = parcel.way.first; next < parcel.way.across; next += COPIED * parcel.way.step) {
                    if (!parcel.expected && is_whole()) {
                        fetch(parcel, next);
                    }
                    parcel.expected = false;
                    put(parcel, next, turn, in_turn);
                    pause();
                }
                parcel.expected = false;
                // To itself as well, whether or not it keeps the piece: so no word of a bank's call is left as it was before.
                rank.call.push_ready_to(number, [&](u64 target) { return cols(target) != 0 && is_due(target, turn, in_turn); });
            }
        }
        return true;
    }
    IRIS_DEVICE bool send() {
        Parcel parcel;
        parcel.in_turn = in_turn();
        return send(parcel, [](u64) {}, [] {});
    }

    /// There is nothing to reduce. Whoever has read peers' rows has met them.
    IRIS_DEVICE bool reduce() { return cols(me()) == 0 || rank.call.meet(); }

    IRIS_DEVICE const Element* bias() const { return rank.bias(); }
    IRIS_DEVICE void finish() { rank.call.finish(); }
};

/// Each rank has its rows of A.
struct GatherRows : Gather<false> {
    using Gather<false>::Gather;

    IRIS_DEVICE bool at_once() const { return world() > 1 && rows_first() == 0; }
    IRIS_DEVICE u64 steps() const {
        u64 n = cols(me());
        return n == 0 ? 0 : Grid{reread(args).m, n}.len();
    }
    IRIS_DEVICE Work work(u64 step) const {
        u32 all = u32(ceil_div(reread(args).m, TILE_M));
        u32 first = rows_first();
        u32 across = u32(ceil_div(cols(me()), TILE_N));
        u32 at = u32(step);
        u32 skipped = 0;
        u32 height = first;
        if (at >= first * across) {
            at -= first * across;
            u32 each = rows_after(all, first);
            u32 group = at / (each * across);
            at -= group * each * across;
            skipped = first + group * each;
            height = u32(smaller(each, all - skipped));
        }
        Block block = Grid{u64(height) * TILE_M, cols(me())}.block(at);
        return tile(u32(block.row / TILE_M) + skipped, u32(block.col / TILE_N));
    }
    /// The same of a tile by its place, of which rows are counted from this rank's own first one on.
    IRIS_DEVICE Work tile(u32 row, u32 col) const {
        u64 start = rows(me()).start;
        u64 m = reread(args).m;
        u32 all = u32(ceil_div(m, TILE_M));
        row += u32(start / TILE_M);
        Block block{u64(row < all ? row : row - all) * TILE_M, u64(col) * TILE_N, 0, 0};
        block.rows = u32(smaller(TILE_M, m - block.row));
        block.cols = u32(smaller(TILE_N, cols(me()) - block.col));
        bool gathered = are_gathered(block.row, block.row + block.rows);
        return {block, gathered ? block.row : block.row - start, me(), 0, gathered};
    }
    IRIS_DEVICE bool awaits(const Work& work, bool first) const { return at_once() ? first : work.gathered; }
    IRIS_DEVICE Wanted wanted(const Work& work) const {
        u64 from = at_once() ? 0 : work.block.row;
        return this->wanted_of(from, at_once() ? reread(args).m : from + work.block.rows);
    }
};

/// Each rank has its columns of A.
struct GatherColumns : Gather<true> {
    using Gather<true>::Gather;

    IRIS_DEVICE Grid grid() const { return {reread(args).m, cols(me())}; }
    IRIS_DEVICE u64 steps() const { return cols(me()) == 0 ? 0 : grid().len(); }
    IRIS_DEVICE Work work(u64 step) const {
        return of(grid().block(step));
    }
    IRIS_DEVICE Work tile(u32 row, u32 col) const { return of(grid().at(u64(row) * TILE_M, u64(col) * TILE_N)); }
    IRIS_DEVICE Work of(const Block& block) const { return {block, block.row, me(), 0, are_gathered(block.row, block.row + block.rows)}; }
    IRIS_DEVICE bool awaits(const Work& work, bool) const { return work.gathered; }
    IRIS_DEVICE Wanted wanted(const Work& work) const { return this->wanted_of(work.block.row, work.block.row + work.block.rows); }
};

} // namespace

IRIS_OPERATION(iris_all_gather_matmul_rows, GatherRows)
IRIS_OPERATION(iris_all_gather_matmul_columns, GatherColumns)
