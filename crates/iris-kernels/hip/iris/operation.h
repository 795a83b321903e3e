// What the operations' kernels have in common: one rank's operands, its staging, and the steps that several of them take.
#pragma once

#include "epilogue.h"
#include "signal.h"

namespace iris {

/// What a block keeps in LDS. Slabs and strip are never needed at once.
struct Shared {
    CallShared call;
    union {
        Slabs<Element> slabs;
        Strip strip;
    };
};

static_assert(sizeof(Shared) <= 48 * 1024, "what every architecture gives a block without being asked");

/// One rank's side of an operation, as its kernel sees it.
struct Rank {
    const Args& args;
    Shared& shared;
    Call call;

    IRIS_DEVICE Rank(const Args& args, Shared& shared) : args(args), shared(shared), call(args, shared.call) {}

    /// The depth that falls to `rank`.
    IRIS_DEVICE Range depth(u64 rank) const {
        const Args& args = reread(this->args);
        return shard(args.k, args.world, rank);
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
        u64 at = (call.bank * args.world + source) * args.slots + slot;
        return global<u8>(args.heap[target] + args.staging + at * args.slot_bytes);
    }

    /// Makes a tile of this rank's product, `depths` deep, or takes it from the matrix that is given; and hands it to the sink.
    template <class Sink>
    IRIS_DEVICE void produce(u64 row, u64 col, u32 rows, u32 cols, u64 depths, Sink sink) {
        if (reread(args).given != 0) {
            Lines<Element> matrix = a();
            drain_given(matrix.from(row, col), rows, cols, sink);
            return;
        }
        Sums sums;
        sums.clear();
        multiply(sums, shared.slabs, a().from(row, 0), rows, b().from(col, 0), cols, depths);
        drain<Element>(sums, shared.strip, rows, cols, sink);
    }

    /// Puts a chunk of a tile into a slot, rows TILE_N elements apart. Chunks are stored whole: a slot has room for a whole tile,
    /// and nobody reads what lies outside.
    IRIS_DEVICE static void stage(u8* slot, u32 row, u32 col, const Vec16& chunk) {
        *reinterpret_cast<Vec16*>(reinterpret_cast<Element*>(slot) + row * TILE_N + col) = chunk;
    }

    /// Waits for the partial tiles of all ranks that have depth, sums them in f32 in rank order, adds the bias once, and hands the
    /// sums to the sink. The order is the same at every rank, so whoever reduces a tile gets the same bits.
    template <class Sink>
    IRIS_DEVICE bool reduce(u64 slot, u64 col_of_tile, u32 rows, u32 cols, Sink sink) {
        u32 deep = 0; // a bit for each rank that has depth
        IRIS_ROLLED
        for (u64 source = 0; source < args.world; ++source) {
            deep |= u32(!depth(source).empty()) << source;
        }
        if (!call.await_ready_from(slot, [&](u64 source) { return (deep >> source & 1) != 0; })) {
            return false;
        }
        const u8* first = staged(args.rank, 0, slot);
        u64 apart = args.slots * args.slot_bytes;
        for (u32 chunk = thread_index(); chunk < TILE_M * TILE_N / CHUNK<Element>; chunk += THREADS) {
            u32 row = chunk / (TILE_N / CHUNK<Element>);
            u32 col = chunk % (TILE_N / CHUNK<Element>) * CHUNK<Element>;
            if (row >= rows || col >= cols) {
                continue;
            }
            f32 sum[CHUNK<Element>] = {};
            for (u64 source = 0; source < args.world; ++source) {
                if ((deep >> source & 1) == 0) {
                    continue;
                }
                const Element* slots = reinterpret_cast<const Element*>(first + source * apart);
                f32 partial[CHUNK<Element>];
                widen<Element>(*reinterpret_cast<const Vec16*>(slots + row * TILE_N + col), partial);
                IRIS_UNROLL
                for (u32 at = 0; at < CHUNK<Element>; ++at) {
                    sum[at] += partial[at];
                }
            }
            u32 count = u32(smaller(CHUNK<Element>, cols - col));
            add_bias(sum, bias(), col_of_tile + col, count);
            sink(row, col, sum, count);
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
        const Args& args = reread(this->args);
        Vec16 chunk = narrow<Element>(values);
        u64 target = args.rank;
        IRIS_ROLLED
        for (u64 step = 0; step < args.world; ++step) {
            Element* c = global<Element>(shared.call.output[target]);
            store_chunk(c + row * shared.call.output_row[target] + col, chunk, count);
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
            copy(to + row * args.c_row, from + row * args.output_row, args.n * sizeof(Element), THREADS);
        }
    }
};

} // namespace iris
