// How a block walks through an operation, one thing after the other: on all architectures.
#pragma once

#include "epilogue.h"
#include "operation.h"

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

/// A that comes in packets, from row `row` on: who loads a chunk waits for it.
template <class Op>
struct Unpacked {
    Op& op;
    u64 row;
    /// Whether all has come that this thread waited for.
    bool& whole;

    IRIS_DEVICE Vec16 chunk(u32 line, u64 depth) const {
        Vec16 data[1] = {};
        PacketRow from = op.line(row + line);
        u32 at = u32(depth / CHUNK<Element>);
        whole = whole && op.rank.packets().await(from.source, 1, at / ACROSS, from.row, at % ACROSS, data);
        return data[0];
    }
};

/// Makes a tile of this rank's product, `depths` deep, or takes it from the matrix that is given; and hands it to the sink.
template <class Sink>
IRIS_DEVICE void produce(const Rank& rank, Shared& shared, u64 row, u64 col, u32 rows, u32 cols, u64 depths, Sink sink) {
    if (reread(rank.args).given != 0) {
        Lines<Element> matrix = rank.a();
        drain_given(matrix.from(row, col), rows, cols, sink);
        return;
    }
    Sums sums;
    sums.clear();
    multiply(sums, shared.slabs, rank.a().from(row, 0), rows, rank.b().from(col, 0), cols, depths);
    drain<Element>(sums, shared.strip, rows, cols, sink);
}

/// Stores a finished chunk where `op` says that its tile belongs.
template <class Op>
IRIS_DEVICE void store_finished(Op& op, const Work& work, u32 row, u32 col, f32 (&values)[CHUNK<Element>], u32 count) {
    const Rank& rank = op.rank;
    if constexpr (Op::TO == To::packets) {
        op.push(op.rank.packets(), work, row, col / CHUNK<Element>, narrow<Element>(values));
    } else if constexpr (Op::TO == To::slots) {
        Vec16 chunk = narrow<Element>(values);
        IRIS_ROLLED
        for (u64 nth = 0; nth < op.targets(); ++nth) {
            Rank::stage(rank.staged(op.target(work, nth), op.me(), work.index), row, col, chunk);
        }
    } else {
        add_bias(values, op.bias(), work.block.col + col, count);
        if constexpr (Op::TO == To::own) {
            rank.store_own(work.block.row + row, work.block.col + col, values, count);
        } else {
            rank.store_to_all(work.block.row + row, work.block.col + col, values, count);
        }
    }
}

/// Walks through a whole call.
template <class Op>
IRIS_DEVICE void walk(const Args& args, Shared& shared) {
    static_assert(!(Op::ALONE && Op::REDUCES), "there is nobody to reduce with");
    Op op(args, shared.call, Turns());
    Rank& rank = op.rank;
    if (!op.begin() || !op.send()) {
        return;
    }
    for (u64 step = block_index(); step < op.steps(); step += reread(args).blocks) {
        Work work = op.work(step);
        if (work.block.rows == 0) {
            continue;
        }
        if (op.awaits(work, step == block_index()) && !op.arrived(op.wanted(work))) {
            return;
        }
        work = op.work(opaque_scalar(step)); // once more, so that it takes no registers in between
        Sums sums;
        sums.clear();
        bool given = !Op::SENDS && reread(args).given != 0;
        if constexpr (Op::UNPACKS) {
            bool whole = true;
            Unpacked<Op> a{op, work.a_row, whole};
            multiply(sums, shared.slabs, a, work.block.rows, rank.b().from(work.block.col, 0), work.block.cols, op.depths());
            if (!rank.call.all_go_on(whole)) {
                return;
            }
        } else if (!given) {
            u64 depths = op.depths();
            Lines<Element> a = Op::SENDS ? rank.lines(work, depths) : rank.a().from(work.a_row, 0);
            multiply(sums, shared.slabs, a, work.block.rows, rank.b().from(work.block.col, 0), work.block.cols, depths);
        }
        // The first tile is multiplied before waiting for anybody's output.
        if (!op.may_store(work)) {
            return;
        }
        work = op.work(opaque_scalar(step)); // and once more
        auto sink = [&](u32 row, u32 col, f32(&values)[CHUNK<Element>], u32 count) {
            store_finished(op, work, row, col, values, count);
        };
        if (given) {
            drain_given(rank.a().from(work.a_row, work.block.col), work.block.rows, work.block.cols, sink);
        } else {
            drain<Element>(sums, shared.strip, work.block.rows, work.block.cols, sink);
        }
        op.tell(work);
    }
    if (op.reduce()) {
        op.finish();
    }
}

} // namespace iris
