// Leaving: what a thread does that cannot go on, and how the others hear of it.
#pragma once

#include "heap.h"
#include "words.h"

namespace iris {

/// A kernel's arguments once more, for paths that are rarely taken: on AMD they are then loaded where they are used, and take no
/// registers elsewhere. Every kernel has one argument, so they lie at the start of its argument segment.
IRIS_DEVICE const Args& reread(const Args& args) {
#if defined(__AMDGCN__) && !defined(IRIS_EMULATED)
    (void)args;
    auto segment = __builtin_amdgcn_kernarg_segment_ptr();
    asm volatile("" : "+s"(segment));
    return *(const Args*)segment;
#else
    return args;
#endif
}

/// What a wait was for.
struct Wait {
    WordKind word;
    u64 peer;
    u64 tile;
    u64 expected;
    u64 seen;
};

/// The tile of a word that speaks of none.
constexpr u64 NO_TILE = ~u64(0);

/// Writes the fault record, unless another thread of this rank has; poisons the workspace; and asks all peers to leave. The rank
/// signals nothing more until it is reset: no block arrives after this.
IRIS_DEVICE void fault(const Args& hot, u64 index, u64 value, Cause cause, u64 other, const Wait* wait) {
    const Args& args = reread(hot);
    Layout layout{args.world, args.tiles};
    Heap heap{args.heap, args.rank};
    // The poison cell lies in this device's memory, where a read-modify-write is possible whatever joins device and host.
    u64* poison = heap.at<u64>(args.rank, args.cells) + layout.poison_cell();
    if (compare_exchange<Order::acq_rel, Scope::device>(poison, u64(0), u64(1)) != 0) {
        return;
    }
    if (args.fault != 0) {
        FaultRecord* record = global<FaultRecord>(args.fault);
        record->operation = args.operation;
        record->index = index;
        record->value = value;
        record->rank = args.rank;
        record->cause = u64(cause);
        record->waited = wait != nullptr;
        if (wait != nullptr) {
            record->word = u64(wait->word);
            record->peer = wait->peer;
            record->tile = wait->tile;
            record->expected = wait->expected;
            record->seen = wait->seen;
        }
        record->other = other;
        record->ours = args.m;
        store<Order::release, Scope::system>(&record->state, u64(1));
    }
    IRIS_ROLLED
    for (u64 peer = 0; peer < args.world; ++peer) {
        if (peer != args.rank) {
            Word* word = heap.at<Word>(peer, args.words) + layout.abort(args.rank);
            store<Order::release, Scope::system>(word, Word(1));
        }
    }
}

} // namespace iris
