// A kernel of one's own, with iris' headers: an exchange around a ring, with signals over the symmetric heap.
//
// Each rank holds numbers. In each round it puts them into its neighbour's heap, signals, waits for those of the rank before it, and
// makes of them what it holds from now on. Each block has a part of the numbers, and exchanges with the same block of other ranks.
//
// Nothing is zeroed between rounds, nor between launches: every round has a value of its own, by which what was signalled in it is told
// from all that was signalled before. It follows from the round's number, which is kept in memory: so does the bank. A word of each
// kind in each bank is enough:
//
//   ready   the numbers of the round lie in the bank. Pushed by the rank before, after the numbers.
//   taken   the numbers of the round have been read. Pushed by the rank after, whose bank it is. Where it is awaited, the numbers of two
//           rounds ago are about to be overwritten. With three ranks or more they might be unread otherwise: a rank waits for the one
//           before it, and only around the ring for the one that it writes to.
//
// Both are awaited by equality: whoever pushes `ready` of round n + 2 has seen `taken` of round n, and the other way round, so neither
// word can hold a later value while an earlier one is awaited.

#include "iris/barrier.h"
#include "iris/ranks.h"

using namespace iris;

#ifndef RING_THREADS
#error "RING_THREADS is the number of threads of a block: the host launches as many"
#endif
constexpr u32 THREADS = RING_THREADS;

/// How far a block has come. In its rank's own memory, and written by that block alone.
struct Progress {
    /// The rounds that are complete, in all launches.
    u64 rounds;
    /// 0, or why the block gave up in the round after those: 1 where `taken` did not come in time, 2 where `ready` did not.
    u64 gave_up;
};

/// The argument. The same fields, in the same order, as in `own_kernel.rs`.
struct Ring {
    Ranks ranks;
    /// Addresses in this rank's memory: the numbers that it holds, and a `Progress` for each block. Zero before the first launch.
    u64 held;
    u64 progress;
    /// Offsets in the symmetric heap: two banks of numbers, and four words for each block. Zero before the first launch.
    u64 inbox;
    u64 words;
    /// The numbers, of which each block has a part.
    u64 count;
    /// The blocks of this launch, at every rank: all of them are resident at once.
    u64 blocks;
    /// The rounds of this launch.
    u64 rounds;
    /// The value of the first round of all.
    u64 first;
    /// How long a wait may last.
    u64 budget_ns;
};

/// What the threads of a block share.
struct Shared {
    u64 round;
    u32 go_on;
};

IRIS_KERNEL(RING_THREADS) ring_exchange(const Ring ring) {
    IRIS_SHARED(Shared, shared);
    Heap heap = ring.ranks.view();
    u64 rank = ring.ranks.rank;
    u64 each = (ring.count + ring.blocks - 1) / ring.blocks;
    u64 start = each * block_index() < ring.count ? each * block_index() : ring.count;
    u64 len = ring.count - start < each ? ring.count - start : each;

    u32* held = global<u32>(ring.held) + start;
    Progress* progress = global<Progress>(ring.progress) + block_index();
    Word* ready = heap.at<Word>(rank, ring.words) + 4 * block_index();
    Word* taken = ready + 2;

    if (thread_index() == 0) {
        shared.round = progress->rounds;
        shared.go_on = progress->gave_up == 0;
    }
    sync_block();
    u64 begin = shared.round;
    if (shared.go_on == 0) {
        return; // a launch that was queued behind one that gave up
    }
    for (u64 round = begin; round < begin + ring.rounds; ++round) {
        u64 bank = round % 2;
        Word value = Word(signal_value(ring.first, round));
        u32* inbox = heap.at<u32>(rank, ring.inbox) + bank * ring.count + start;

        sync_block(); // `held` is whole, and `shared` is free
        if (thread_index() == 0) {
            shared.go_on = round < 2 || await(taken + bank, Word(signal_value(ring.first, round - 2)), ring.budget_ns);
        }
        sync_block();
        if (shared.go_on == 0) {
            if (thread_index() == 0) {
                *progress = Progress{round, 1};
            }
            return;
        }
        put(heap, inbox, held, len, ring.ranks.next(), THREADS);
        sync_block();
        if (thread_index() == 0) {
            push(heap, ready + bank, value, ring.ranks.next());
            shared.go_on = await(ready + bank, value, ring.budget_ns);
        }
        sync_block();
        if (shared.go_on == 0) {
            if (thread_index() == 0) {
                *progress = Progress{round, 2};
            }
            return;
        }
        for (u64 at = thread_index(); at < len; at += THREADS) {
            held[at] = 3 * inbox[at] + u32(rank) + 1;
        }
        sync_block();
        if (thread_index() == 0) {
            push(heap, taken + bank, value, ring.ranks.previous());
        }
    }
    if (thread_index() == 0) {
        *progress = Progress{begin + ring.rounds, 0};
    }
}
