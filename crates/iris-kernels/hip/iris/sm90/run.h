// How a block walks through an operation on Hopper. Three teams run beside each other:
//
// - the *loader*, a wave, copies slabs of A and B into the ring, ahead over tiles;
// - the *warpgroups* multiply, leave each tile in shared memory, and go on with the next;
// - the *courier*, a wave, takes tiles to where they belong.
#pragma once

#include "out.h"

namespace iris {

/// Registers of a thread that multiplies, and of one that does not. Together they are what a block of 384 threads begins with.
#define IRIS_REGISTERS_MORE "208"
#define IRIS_REGISTERS_FEWER "88"

template <class Op>
IRIS_DEVICE void load_tiles(Op& op, const Ring& ring, const Operands& operands, u32 part) {
    Place place;
    for (u64 step = op.first(); step < op.steps(); step += op.stride()) {
        auto work = op.work(step, part);
        u32 slabs = op.slabs();
        for (u32 slab = 0; slab < slabs; ++slab) {
            copy_slab(ring, place, operands, work.row, work.col, u64(slab) * SLAB_K, part);
            place.advance();
        }
    }
}

template <class Op>
IRIS_DEVICE void multiply_tiles(Op& op, const Ring& ring, const Operands& operands, u32 part) {
    Place place;
    u32 group = thread_index() / 128;
    u32 lead = 0;
    if (GROUPS == 2 && IRIS_LEAD > 0 && op.first() < op.steps() && op.slabs() != 0) {
        lead = group == 0 ? IRIS_LEAD : 0;
        if (group == 1) {
            sync_named(3, 256);
        }
    }
    u32 parity = 1;
    for (u64 step = op.first(); step < op.steps(); step += op.stride()) {
        Accumulators sums;
        multiply_slabs(sums, ring, place, op.slabs(), operands, lead);
        lead = 0;
        await_phase(ring.taken(group), parity);
        parity ^= 1;
        if (op.bias() == nullptr) {
            leave_rows<false>(sums, ring, nullptr, 0);
        } else {
            auto work = op.work(step, part);
            leave_rows<true>(sums, ring, op.bias() + work.col, work.cols);
        }
        fence_async_shared();
        arrive(ring.finished(group));
    }
}

template <class Op>
IRIS_DEVICE void deliver_tiles(Op& op, const Ring& ring, u32 part) {
    u32 parity = 0;
    for (u64 step = op.first(); step < op.steps(); step += op.stride()) {
        auto work = op.work(step, part);
        IRIS_UNROLL
        for (u32 group = 0; group < GROUPS; ++group) {
            await_phase(ring.finished(group), parity);
            for (u32 row = group * GROUP_M + lane_index(); row < (group + 1) * GROUP_M; row += LANES) {
                if (row < work.rows) {
                    Element* to = op.line(work, row);
                    u32 bytes = work.cols * 2;
                    if (aligned16(reinterpret_cast<u64>(to) | bytes)) {
                        copy_out(to, ring.out(row), bytes);
                    } else {
                        copy_elements(to, ring.out(row), work.cols);
                    }
                }
            }
            commit_copies();
            if (group > 0) {
                await_copies_read<1>();
                __syncwarp();
                if (lane_index() == 0) {
                    arrive(ring.taken(group - 1));
                }
            }
        }
        await_copies_read<0>();
        __syncwarp();
        if (lane_index() == 0) {
            arrive(ring.taken(GROUPS - 1));
        }
        parity ^= 1;
    }
    await_copies();
}

template <class Op>
IRIS_DEVICE void run(Op& op, u8* dynamic, const Operands& operands) {
    Ring ring{(shared_address(dynamic) + 1023) & ~1023u};
    u32 part = CLUSTER == 1 ? 0 : cluster_part();
    u32 wave = thread_index() / 32;
    if (thread_index() == GROUPS * 128) {
        prefetch_map(operands.a);
        prefetch_map(operands.b);
        ring.make();
    }
    __syncwarp();
    if (CLUSTER > 1) {
        sync_cluster();
    } else if (wave == GROUPS * 4) {
        // What comes after waits for nobody.
        asm volatile("bar.arrive 1, %0;" ::"n"(GROUPS * 128 + 128) : "memory");
    } else {
        sync_named(1, GROUPS * 128 + 128);
    }
    if (wave >= GROUPS * 4) {
        if (GROUPS == 2) {
            asm volatile("setmaxnreg.dec.sync.aligned.u32 " IRIS_REGISTERS_FEWER ";");
        }
        if (wave == GROUPS * 4) {
            if (lane_index() == 0) {
                load_tiles(op, ring, operands, part);
            }
        } else if (wave == GROUPS * 4 + 1) {
            deliver_tiles(op, ring, part);
        }
        __syncwarp();
    } else {
        if (GROUPS == 2) {
            asm volatile("setmaxnreg.inc.sync.aligned.u32 " IRIS_REGISTERS_MORE ";");
        }
        multiply_tiles(op, ring, operands, part);
    }
    if (CLUSTER > 1) {
        sync_cluster();
    }
}

} // namespace iris
