// What the operations' kernels have in common: one rank's operands and its staging; and what an operation says of itself, for a block
// to walk through it.
//
// # An operation
//
// is a type made from the arguments and from what a block shares. Of everything that a rank does in a call it says the following,
// in this order; `Operation` has what most have in common. Whatever can wait returns whether to go on.
//
// - `begin` begins the call and passes the gate; `send` then hands parts of A to peers.
// - `steps` is how many tiles the rank multiplies, and `work(step)` which one comes when; tile t falls to block t mod `blocks`. A tile
//   without rows is none.
// - `depths` is how deep all tiles are. Where a tile, one that may be a block's first to wait or not, `awaits` rows of A, `wanted(work)` says which, and
//   `arrived(wanted)` waits until they are there; `arrived_at(wanted, depth)`, which crews use, until they are at that depth.
// - TO, `targets` and `target(nth)` say where a finished tile belongs; `may_store(work)` waits until it may be stored there, and
//   `tell(work)` says that it has been.
// - `reduce` sums and stores the tiles that this rank owns. Where it MERGES, which crews do, these come behind the peers' tiles, or by turns with them, among the
//   steps (`Rounds`), and the peers' parts of each are added to it as it is multiplied: it then belongs to OWN.
// - `finish` ends the call.
//
// Where it STREAMS, which crews can do, `tile(row, col)` is what `work` is of a step: of a tile by its place, in the order in which rows of tiles
// are streamed.
//
// The portable kernels do this one after the other (`walk.h`). On Hopper a block's crews do it beside each other
// (`sm90/crews.h`): what a block waits for must never follow from what it does later.
#pragma once

#include "chunks.h"
#include "packets.h"

namespace iris {

/// A tile to be multiplied.
struct Work {
    /// Where it lies in C: of its owner, where each has its own.
    Block block;
    /// The first row of A that it is made from: of this rank's A, or of the A that is gathered here.
    u64 a_row;
    /// The rank it is made for; and the tile's number there.
    u64 rank;
    u64 index;
    /// Whether its rows are those of the A that is gathered here.
    bool gathered;
};

/// Where a finished tile belongs.
enum class To {
    /// Into staging slots of this rank's at all targets.
    slots,
    /// Into this rank's C.
    own,
    /// Into all ranks' outputs.
    outputs,
    /// Into packets, as the operation's `push` says: nothing else tells of it.
    packets,
};

/// Whether blocks consist of crews.
#if defined(IRIS_SM90)
constexpr bool CREWS = true;
#else
constexpr bool CREWS = false;
#endif

/// Columns of a slot that make up 128 bytes: a panel.
constexpr u32 PANEL_N = 128 / sizeof(Element);

/// Where the chunk at `row` and `col` of a tile lies in a slot, in bytes. Panels lie one after the other, their rows side by side and
/// the chunks of each row permuted by its number: as Hopper's copies like it. Tiles that are no whole panels lie row by row.
IRIS_DEVICE u32 in_slot(u32 row, u32 col) {
    if constexpr (TILE_N % PANEL_N == 0) {
        u32 chunk = col % PANEL_N / CHUNK<Element>;
        return (col / PANEL_N * TILE_M + row) * 128 + (chunk ^ row % 8) * 16;
    } else {
        return (row * TILE_N + col) * sizeof(Element);
    }
}

// How much is reduced at a time: rows of a tile by one crew or block, chunks by one thread, partial tiles before any is summed.
#if defined(IRIS_SM90)
constexpr u32 STRIP_ROWS = 16;
constexpr u32 AT_ONCE = 2;
constexpr u32 BATCH = 4;
#else
constexpr u32 STRIP_ROWS = TILE_M;
constexpr u32 AT_ONCE = 1;
constexpr u32 BATCH = 1;
#endif
/// Ranks whose packets a thread waits for at a time. On AMD their masks of lanes would not fit the scalar registers.
#if defined(__AMDGCN__)
constexpr u32 AWAITED = 2;
#else
constexpr u32 AWAITED = 4;
#endif
/// Strips of a tile.
constexpr u32 STRIPS = TILE_M / STRIP_ROWS;
static_assert(STRIPS * STRIP_ROWS == TILE_M, "strips make up a tile");

/// A strip of a tile that is to be reduced.
struct Piece {
    /// The tile's number among this rank's.
    u64 slot;
    /// The strip's first row in the tile.
    u32 first;
};

/// One rank's side of an operation, as its kernel sees it.
struct Rank {
    const Args& args;
    CallShared& shared;
    Call call;

    IRIS_DEVICE Rank(const Args& args, CallShared& shared) : args(args), shared(shared), call(args, shared) {}

    /// The depth that falls to `rank`.
    IRIS_DEVICE Range depth(u64 rank) const {
        const Args& args = reread(this->args);
        return shard(args.k, args.k_share, rank);
    }

    /// A by rows.
    IRIS_DEVICE Lines<Element> a() const {
        const Args& args = reread(this->args);
        return {global<const Element>(args.a), args.a_row, args.a_col};
    }
    /// B by columns.
    IRIS_DEVICE Lines<Element> b() const {
        const Args& args = reread(this->args);
        return {global<const Element>(args.b), args.b_col, args.b_row};
    }
    IRIS_DEVICE const Element* bias() const {
        const Args& args = reread(this->args);
        return args.bias == 0 ? nullptr : global<const Element>(args.bias);
    }

    /// Where `source` puts its tile `slot` of this call at `target`.
    IRIS_DEVICE u8* staged(u64 target, u64 source, u64 slot) const {
        const Args& args = reread(this->args);
        return global<u8>(args.heap[target] + args.staging + slot_number(source, slot) * args.slot_bytes);
    }
    /// The number of that slot among all of the staging.
    IRIS_DEVICE u64 slot_number(u64 source, u64 slot) const {
        const Args& args = reread(this->args);
        return (call.bank * args.world + source) * args.slots + slot;
    }

    /// Elements from one row of the gathered A to the next: its depth, filled up to whole 16 bytes.
    IRIS_DEVICE static u64 pitch(u64 depths) { return ceil_div(depths, CHUNK<Element>) * CHUNK<Element>; }

    /// The rows of A that a tile is made of.
    IRIS_DEVICE Lines<Element> lines(const Work& work, u64 depths) const {
        if (!work.gathered) {
            return a().from(work.a_row, 0);
        }
        const Element* gathered = reinterpret_cast<const Element*>(staged(reread(args).rank, 0, 0));
        return {gathered + work.a_row * pitch(depths), pitch(depths), 1};
    }

    /// Puts a chunk of a tile into a slot. Chunks are stored whole: a slot has room for a whole tile, and nobody reads what lies
    /// outside.
    IRIS_DEVICE static void stage(u8* slot, u32 row, u32 col, const Vec16& chunk) {
        *reinterpret_cast<Vec16*>(slot + in_slot(row, col)) = chunk;
    }

    /// A bit for each rank that has depth.
    IRIS_DEVICE u32 with_depth() const {
        u32 deep = 0;
        IRIS_ROLLED
        for (u64 source = 0; source < args.world; ++source) {
            deep |= u32(!depth(source).empty()) << source;
        }
        return deep;
    }

    IRIS_DEVICE Packets packets() { return {call}; }

    /// Waits for the packets of a tile, or of some rows of it, from all ranks that have depth, chunk by chunk, and sums them as `reduce`
    /// does. In slot `slot` they are the rows from `first` on.
    template <class Sink>
    IRIS_DEVICE bool reduce_packets(u64 slot, u32 first, const Block& block, Sink sink) {
        call.stall(Phase::reduce);
        u32 deep = with_depth();
        u32 across = (block.cols + CHUNK<Element> - 1) / CHUNK<Element>;
        bool whole = true;
        for (u32 at = thread_index(); whole && at < block.rows * across; at += threads()) {
            u32 row = at / across;
            u32 chunk = at % across;
            f32 sum[CHUNK<Element>] = {};
            for (u64 source = 0; source < args.world; source += AWAITED) {
                Vec16 partials[AWAITED];
                whole = whole && packets().await(source, deep >> source, slot, first + row, chunk, partials);
                IRIS_UNROLL
                for (u32 each = 0; each < AWAITED; ++each) {
                    if ((deep >> (source + each) & 1) != 0) {
                        f32 partial[CHUNK<Element>];
                        widen<Element>(partials[each], partial);
                        IRIS_UNROLL
                        for (u32 element = 0; element < CHUNK<Element>; ++element) {
                            sum[element] += partial[element];
                        }
                    }
                }
            }
            if (whole) {
                u32 col = chunk * CHUNK<Element>;
                u32 count = u32(smaller(CHUNK<Element>, block.cols - col));
                add_bias(sum, bias(), block.col + col, count);
                sink(row, col, sum, count);
            }
        }
        if (!call.all_go_on(whole)) {
            return false;
        }
        call.stall(Phase::read);
        return true;
    }

    /// Passes the gate, as `Call` does, in a call that fills no packets.
    template <class Used>
    IRIS_DEVICE bool gate(bool writes, Used used) {
        if (!call.gate(writes, used)) {
            return false;
        }
        packets().clear([](u64, u64, u32, u32) { return false; });
        return true;
    }

    /// Waits for the partial tiles of all ranks that have depth, sums a strip of them in f32 in rank order, adds the bias once, and
    /// hands the sums to `sink(row, col, values, count)`. The order is the same at every rank, so whoever reduces a tile gets the
    /// same bits.
    template <class Sink>
    IRIS_DEVICE bool reduce(const Piece& piece, u64 col_of_tile, u32 rows, u32 cols, Sink sink) {
        u32 deep = with_depth();
        if (!call.await_ready_from(piece.slot, [&](u64 source) { return (deep >> source & 1) != 0; })) {
            return false;
        }
        const u8* first = staged(args.rank, 0, piece.slot);
        u64 apart = args.slots * args.slot_bytes;
        for (u32 chunk = thread_index(); chunk < STRIP_ROWS * ACROSS; chunk += AT_ONCE * threads()) {
            f32 sums[AT_ONCE][CHUNK<Element>] = {};
            for (u64 source = 0; source < args.world; source += BATCH) {
                Vec16 partials[AT_ONCE][BATCH] = {};
                IRIS_UNROLL
                for (u32 nth = 0; nth < AT_ONCE; ++nth) {
                    u32 row = piece.first + (chunk + nth * threads()) / ACROSS;
                    u32 col = (chunk + nth * threads()) % ACROSS * CHUNK<Element>;
                    bool inside = row < rows && col < cols && row < piece.first + STRIP_ROWS;
                    IRIS_UNROLL
                    for (u32 each = 0; each < BATCH; ++each) {
                        if (inside && (deep >> (source + each) & 1) != 0) {
                            const u8* at = first + (source + each) * apart + in_slot(row, col);
                            partials[nth][each] = *reinterpret_cast<const Vec16*>(at);
                        }
                    }
                }
                IRIS_UNROLL
                for (u32 nth = 0; nth < AT_ONCE; ++nth) {
                    IRIS_UNROLL
                    for (u32 each = 0; each < BATCH; ++each) {
                        if ((deep >> (source + each) & 1) == 0) {
                            continue;
                        }
                        f32 partial[CHUNK<Element>];
                        widen<Element>(partials[nth][each], partial);
                        IRIS_UNROLL
                        for (u32 element = 0; element < CHUNK<Element>; ++element) {
                            sums[nth][element] += partial[element];
                        }
                    }
                }
            }
            IRIS_UNROLL
            for (u32 nth = 0; nth < AT_ONCE; ++nth) {
                u32 row = piece.first + (chunk + nth * threads()) / ACROSS;
                u32 col = (chunk + nth * threads()) % ACROSS * CHUNK<Element>;
                if (row < rows && col < cols && row < piece.first + STRIP_ROWS) {
                    u32 count = u32(smaller(CHUNK<Element>, cols - col));
                    add_bias(sums[nth], bias(), col_of_tile + col, count);
                    sink(row, col, sums[nth], count);
                }
            }
        }
        return true;
    }

    /// Stores a chunk to C, where the user wants it.
    IRIS_DEVICE void store_own(u64 row, u64 col, const f32 (&values)[CHUNK<Element>], u32 count) const {
        const Args& args = reread(this->args);
        store_chunk(global<Element>(args.c) + row * args.c_row + col, narrow<Element>(values), count);
    }

    /// Stores a chunk to the outputs of all ranks, this one first. All peers have been met.
    IRIS_DEVICE void store_to_all(u64 row, u64 col, const f32 (&values)[CHUNK<Element>], u32 count) const {
        store_chunk_to_all(row, col, narrow<Element>(values), count);
    }

    /// The same of a chunk that is rounded already.
    IRIS_DEVICE void store_chunk_to_all(u64 row, u64 col, const Vec16& chunk, u32 count) const {
        const Args& args = reread(this->args);
        u64 target = args.rank;
        IRIS_ROLLED
        for (u64 step = 0; step < args.world; ++step) {
            Element* c = global<Element>(shared.output[target]);
            store_chunk(c + row * shared.output_row[target] + col, chunk, count);
            target = next_rank(target, args.world);
        }
    }

    /// Copies a bounced result to where the user wants it. The output is whole.
    IRIS_DEVICE void take_bounced() const {
        if (args.bounced == 0) {
            return;
        }
        const Args& args = reread(this->args);
        const Element* from = call.heap.at<Element>(args.rank, args.output);
        Element* to = global<Element>(args.c);
        IRIS_ROLLED
        for (u64 row = block_index(); row < args.m; row += args.blocks) {
            copy(to + row * args.c_row, from + row * args.output_row, args.n * sizeof(Element), threads());
        }
    }
};

/// Deals out what a block reduces, strip by strip: number t falls to block t mod `blocks`, and to whoever in it asks first.
#if defined(IRIS_SM90)
struct Turns {
    /// How many have been dealt, for all crews; and what this crew was dealt last.
    u32& dealt;
    u32& drawn;

    IRIS_DEVICE u64 next(const Args& args) {
        if (thread_index() == 0) {
#if defined(IRIS_EMULATED)
            drawn = dealt++;
#else
            drawn = atomicAdd(&dealt, 1);
#endif
        }
        sync_block();
        u64 at = block_index() + drawn * args.blocks;
        sync_block();
        return at;
    }
};
#else
struct Turns {
    u64 at = block_index();

    IRIS_DEVICE u64 next(const Args& args) {
        u64 now = at;
        at += reread(args).blocks;
        return now;
    }
};
#endif

/// What most operations have in common.
struct Operation {
    Rank rank;
    const Args& args;
    Turns turns;

    IRIS_DEVICE Operation(const Args& args, CallShared& shared, Turns turns) : rank(args, shared), args(args), turns(turns) {}

    IRIS_DEVICE u64 me() const { return reread(args).rank; }
    IRIS_DEVICE u64 world() const { return reread(args).world; }

    /// Whether parts of A are sent to peers.
    static constexpr bool SENDS = false;
    /// Whether A comes in packets, row by row as `line(row)` says, which are waited for as it is multiplied: no tile `awaits` anything.
    static constexpr bool UNPACKS = false;
    /// Whether tiles are reduced here.
    static constexpr bool REDUCES = false;
    /// Whether they are, as they are multiplied.
    static constexpr bool MERGES = false;
    /// Where they belong, if so.
    static constexpr To OWN = To::own;
    /// Whether there are no peers at all.
    static constexpr bool ALONE = false;
    /// Whether its tiles may be streamed, by the slab: it then says which they are by `tile`.
    static constexpr bool STREAMS = false;
    IRIS_DEVICE bool send() { return true; }
    IRIS_DEVICE bool awaits(const Work&, bool) const { return false; }
    struct Wanted {};
    IRIS_DEVICE Wanted wanted(const Work&) const { return {}; }
    IRIS_DEVICE bool arrived(const Wanted&) { return true; }
    IRIS_DEVICE bool arrived_at(const Wanted&, u64&) { return true; }
    /// The bias of what is multiplied here, if it is added here.
    IRIS_DEVICE const Element* bias() const { return nullptr; }
    /// The rows of the matrix that OWN tiles, or all, belong to.
    IRIS_DEVICE u64 c_rows() const { return reread(args).m; }
    IRIS_DEVICE u64 targets() const { return 1; }
    IRIS_DEVICE u64 target(const Work& work, u64) const { return work.rank; }
    IRIS_DEVICE bool may_store(const Work&) { return true; }
    IRIS_DEVICE void tell(const Work&) {}
    IRIS_DEVICE bool reduce() { return true; }

    /// Calls `each(piece)` for the strips of `count` tiles that fall to this block, until one returns false.
    template <class Each>
    IRIS_DEVICE bool reduce_each(u64 count, Each each) {
        for (u64 at = turns.next(args); at < count * STRIPS; at = turns.next(args)) {
            if (!each(Piece{at / STRIPS, u32(at % STRIPS) * STRIP_ROWS})) {
                return false;
            }
        }
        return true;
    }
};

} // namespace iris
