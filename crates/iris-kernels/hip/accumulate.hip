// `matmul_all_reduce` by adding: every rank adds its partial sums to f32 accumulators at every rank, atomically or, in
// `iris_spinlock`, under a lock for each tile. The order in which ranks add is that of their arrival, so that results differ in
// their last bits from rank to rank and from run to run.
//
// Accumulators: the largest m by n, in two banks. No staging; a lock for every tile of the largest m.

#include "iris/walk.h"

using namespace iris;

namespace {

/// Adds each element atomically.
struct Atomic {
    static constexpr bool LOCKS = false;
    IRIS_DEVICE static void add(f32* to, f32 value) { add_f32<Scope::system>(to, value); }
};

/// Adds to a tile under its lock.
struct Locked {
    static constexpr bool LOCKS = true;
    IRIS_DEVICE static void add(f32* to, f32 value) { *to += value; }
};

template <class Adding>
IRIS_DEVICE void accumulate(const Args& args, Shared& shared) {
    admit_launch_after();
    await_launch_before();
    Rank rank(args, shared.call);
    Call& call = rank.call;
    u64 me = args.rank;
    auto grid = [&] {
        const Args& again = reread(args);
        return Grid{again.m, again.n};
    };
    bool has_depth = !rank.depth(me).empty();
    auto accumulators = [&](u64 target) {
        const Args& again = reread(args);
        return global<f32>(again.heap[target] + again.accumulators) + call.bank * again.accumulator_elements;
    };

    if (!call.begin() || !call.gate(has_depth, [](u64) { return u64(0); })) {
        return;
    }

    u64 all = has_depth ? grid().len() : 0;
    for (u64 step = block_index(); step < all; step += reread(args).blocks) {
        u64 tile = (step + me) % grid().len();
        Block block = grid().block(tile);
        auto add_to = [&](u64 target) {
            return [&args, block, sums = accumulators(target)](u32 row, u32 col, const f32(&values)[CHUNK<Element>],
                                                                      u32 count) {
                f32* first = sums + (block.row + row) * reread(args).n + block.col + col;
                IRIS_UNROLL
                for (u32 at = 0; at < CHUNK<Element>; ++at) {
                    if (at < count) {
                        Adding::add(first + at, values[at]);
                    }
                }
            };
        };
        if constexpr (Adding::LOCKS) {
            // The product is made before the first lock is taken, and stays in registers.
            Sums sums;
            sums.clear();
            if (reread(args).given == 0) {
                multiply(sums, shared.slabs, rank.a().from(block.row, 0), block.rows, rank.b().from(block.col, 0), block.cols,
                         rank.depth(me).len());
            }
            u64 target = me;
            IRIS_ROLLED
            for (u64 round = 0; round < reread(args).world; ++round) {
                target = next_rank(target, reread(args).world);
                if (!call.lock(target, tile)) {
                    return;
                }
                if (reread(args).given != 0) {
                    Lines<Element> matrix = rank.a();
                    drain_given(matrix.from(block.row, block.col), block.rows, block.cols, add_to(target));
                } else {
                    drain<Element>(sums, shared.strip, block.rows, block.cols, add_to(target));
                }
                call.unlock(target, tile);
            }
        } else {
            produce(rank, shared, block.row, block.col, block.rows, block.cols, rank.depth(me).len(),
                    [&](u32 row, u32 col, const f32(&values)[CHUNK<Element>], u32 count) {
                             u64 target = me;
                             IRIS_ROLLED
                             for (u64 round = 0; round < reread(args).world; ++round) {
                                 target = next_rank(target, reread(args).world);
                                 add_to(target)(row, col, values, count);
                             }
                         });
        }
    }

    if (!call.meet() || !call.exchange_added()) {
        return;
    }
    f32* sums = accumulators(me);
    u64 across = ceil_div(args.n, CHUNK<Element>);
    for (u64 chunk = block_index() * THREADS + thread_index(); chunk < args.m * across; chunk += args.blocks * THREADS) {
        u64 row = chunk / across;
        u64 col = chunk % across * CHUNK<Element>;
        u32 count = u32(smaller(CHUNK<Element>, args.n - col));
        f32 values[CHUNK<Element>] = {};
        IRIS_UNROLL
        for (u32 at = 0; at < CHUNK<Element>; ++at) {
            if (at < count) {
                values[at] = sums[row * args.n + col + at];
                // For the call after next, behind whose gate others add.
                sums[row * args.n + col + at] = 0.0f;
            }
        }
        add_bias(values, rank.bias(), col, count);
        rank.store_own(row, col, values, count);
    }
    call.finish(2);
}

} // namespace

IRIS_KERNEL(THREADS) iris_atomic(const Args args) {
    IRIS_SHARED(Shared, shared);
    if (args.world != 0) {
        accumulate<Atomic>(args, shared);
    }
}

IRIS_KERNEL(THREADS) iris_spinlock(const Args args) {
    IRIS_SHARED(Shared, shared);
    if (args.world != 0) {
        accumulate<Locked>(args, shared);
    }
}
