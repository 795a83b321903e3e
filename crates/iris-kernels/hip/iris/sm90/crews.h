// How a block walks through an operation on Hopper: by crews that run beside each other.
//
// - The *loader* copies slabs of A and B into the ring, ahead over tiles.
// - The *warpgroups* multiply, leave each tile in shared memory, and go on with the next. When there is none left, they help the
//   movers, and end the call.
// - The *couriers* begin the call, pass the gate, take tiles to where they belong, and tell so. Where tiles travel in packets, they
//   only open the way: the warpgroups push and reduce their tiles themselves, since there are few and nothing else to do.
// - The *movers* reduce; or, where parts of A are sent, they begin the call and send.
//
// What a crew waits for comes from crews that are never waited for by that: the loader waits for slabs to be read, the warpgroups for
// slabs and for the previous tile to be taken, the couriers for finished tiles. A crew that may not go on still takes its part in
// this, so that nobody waits in vain; what it makes is no longer told to anybody, and the block does not arrive.
#pragma once

#include "deliver.h"

namespace iris {

static_assert(sizeof(Element) == 2, "matrix instructions for 16-bit types");

/// What the crews of a block share.
struct CrewsShared {
    CallShared calls[4];
    u32 drawn[4];
    u32 dealt;
    /// Whether a crew could not go on.
    u32 failed;
};

/// Fills the ring.
template <class Op>
IRIS_DEVICE bool load_tiles(Op& op, const FastArgs& fast, const Ring& ring) {
    Place place;
    bool go = !Op::SENDS || op.rank.call.attend();
    for (u64 step = block_index(); step < op.steps(); step += op.args.blocks) {
        Work work = op.work(step);
        if constexpr (Op::SENDS) {
            go = go && op.arrived(work);
            fence_async(); // what arrived by stores is read by copies
            __syncwarp();
        }
        if (lane_index() == 0) {
            for (u32 nth = 0; nth < op.stretches(); ++nth) {
                Stretch stretch = op.stretch(work, nth);
                const TensorMap* piece = nullptr;
                u64 row = stretch.row;
                if (Op::SENDS && stretch.source != op.me()) {
                    piece = &fast.pieces[stretch.depths == op.stretch(work, 0).depths ? 0 : 1];
                    row = op.rank.slot_number(stretch.source, stretch.piece);
                }
                for (u64 depth = 0; depth < stretch.depths; depth += SLAB_K) {
                    copy_slab(ring, place, fast, piece, i32(row), i32(depth), i32(work.block.col), i32(stretch.b_depth + depth));
                    place.advance();
                }
            }
        }
        __syncwarp();
    }
    return go;
}

/// Empties the ring.
template <class Op>
IRIS_DEVICE bool multiply_tiles(Op& op, const FastArgs& fast, const Ring& ring, const CrewsShared& shared) {
    // The index is read while the first slabs are on their way.
    bool go = Op::TO != To::packets || op.rank.call.attend();
    // Tiles are equally deep.
    u32 slabs = 0;
    for (u32 nth = 0; nth < op.stretches(); ++nth) {
        slabs += u32(ceil_div(op.stretch(Work(), nth).depths, SLAB_K));
    }
    u32 group = thread_index() / 128;
    const Element* bias = op.bias();
    Place place;
    u32 parity = 1;
    for (u64 step = block_index(); step < op.steps(); step += op.args.blocks) {
        Accumulators sums;
        multiply_slabs(sums, ring, place, slabs, fast);
        if constexpr (Op::TO == To::packets) {
            leave_rows<false>(sums, ring, nullptr, 0);
            await_phase(ring.taken(0), 0); // opened by the couriers, once
            go = go && shared.failed == 0;
            sync_block();
            if (go) {
                op.rank.call.stall(Phase::ready);
                push_tile(op, op.rank.packets(), ring, op.work(step));
            }
            sync_block();
        } else {
            await_phase(ring.taken(group), parity);
            parity ^= 1;
            if (bias == nullptr) {
                leave_rows<false>(sums, ring, nullptr, 0);
            } else {
                Block block = op.work(step).block;
                leave_rows<true>(sums, ring, bias + block.col, block.cols);
            }
            fence_async_shared();
            arrive(ring.finished(group));
        }
    }
    return go;
}

/// Opens the way for the warpgroups' packets, or says that they may not go. Who waits for `entered` here holds up nobody: the
/// product goes on.
template <class Op>
IRIS_DEVICE bool open_way(Op& op, const Ring& ring, CrewsShared& shared) {
    bool go = op.begin() && op.rank.call.meet();
    if (thread_index() == 0) {
        if (!go) {
            shared.failed = 1;
        }
        arrive(ring.taken(0));
    }
    return go;
}

/// Takes tiles away.
template <class Op>
IRIS_DEVICE bool deliver_tiles(Op& op, const FastArgs& fast, const Ring& ring) {
    bool go = Op::SENDS || op.begin();
    u32 parity = 0;
    for (u64 step = block_index(); step < op.steps(); step += op.args.blocks) {
        Work work = op.work(step);
        IRIS_UNROLL
        for (u32 group = 0; group < GROUPS; ++group) {
            await_phase(ring.finished(group), parity);
            go = go && op.may_store();
            if (go) {
                take_rows(op, fast, ring, work, group);
            }
            commit_copies();
            if (group + 1 < GROUPS) {
                continue;
            }
            IRIS_UNROLL
            for (u32 earlier = 0; earlier + 1 < GROUPS; ++earlier) {
                await_copies_read<1>();
                sync_block();
                if (thread_index() == 0) {
                    arrive(ring.taken(earlier));
                }
            }
            await_copies_read<0>();
            sync_block();
            if (thread_index() == 0) {
                arrive(ring.taken(group));
            }
        }
        parity ^= 1;
        if (Op::TO == To::slots && go) {
            await_copies();
            op.tell(work);
        }
    }
    return go;
}

/// Walks through a whole call.
template <class Op>
IRIS_DEVICE void run_crews(const FastArgs& fast, CrewsShared& shared) {
    extern __shared__ u8 dynamic[];
    Ring ring{(shared_address(dynamic) + 1023) & ~1023u};
    u32 crew = crew_of(threadIdx.x).barrier - 1;
    Op op(fast.args, shared.calls[crew], Turns{shared.dealt, shared.drawn[crew]});
    if (threadIdx.x == LOADER) {
        prefetch_map(fast.a);
        prefetch_map(fast.b);
        ring.make();
        shared.dealt = 0;
        shared.failed = 0;
    }
    __syncthreads();
    bool go = true;
    if (threadIdx.x >= LOADER) {
        if (GROUPS == 2) {
            asm volatile("setmaxnreg.dec.sync.aligned.u32 104;");
        }
        if (threadIdx.x < COURIERS) {
            go = load_tiles(op, fast, ring);
        } else if (threadIdx.x < MOVERS) {
            if constexpr (Op::TO == To::packets) {
                go = open_way(op, ring, shared);
            } else {
                go = deliver_tiles(op, fast, ring);
            }
        } else if (Op::SENDS) {
            go = op.begin() && op.send();
        } else if (Op::REDUCES && op.steps() > op.args.blocks) {
            // In a call of one tile a block there is nothing to reduce before the warpgroups can do it faster.
            go = op.rank.call.attend() && op.reduce();
        }
        if (!go) {
            shared.failed = 1;
        }
        __syncthreads();
    } else {
        if (GROUPS == 2) {
            asm volatile("setmaxnreg.inc.sync.aligned.u32 200;");
        }
        go = multiply_tiles(op, fast, ring, shared);
        if (Op::ALONE) {
            __syncthreads();
            return;
        }
        go = go && (Op::TO == To::packets || op.rank.call.attend()) && op.reduce();
        if (!go) {
            shared.failed = 1;
        }
        __syncthreads();
        if (shared.failed == 0) {
            op.finish();
        }
    }
}

} // namespace iris
