// A kernel of one's own with the barrier: every block of every rank counts, all meet, and everybody looks at everybody's count.

#include "iris/barrier.h"
#include "iris/ranks.h"

using namespace iris;

constexpr u32 THREADS = 64;

struct Meetings {
    Ranks ranks;
    /// Offsets: what the barrier needs, and a count for each block.
    u64 cells;
    u64 words;
    u64 counts;
    /// An address in this rank's memory: how many counts were not what they should be, and how many barriers were not passed.
    u64 found;
    u64 blocks;
    u64 rounds;
    u64 budget_ns;
};

IRIS_KERNEL(THREADS) meetings(const Meetings args) {
    IRIS_SHARED(u32, shared);
    Heap heap = args.ranks.view();
    Team team{heap, args.ranks.world, args.blocks, args.cells, args.words, args.budget_ns};
    u64* mine = heap.at<u64>(args.ranks.rank, args.counts) + block_index();
    u64* found = global<u64>(args.found);
    auto pass = [&] {
#if defined(WITHOUT_BARRIER)
        sync_block();
        return true;
#else
        bool passed = team.barrier(shared);
        if (!passed && thread_index() == 0) {
            fetch_add<Order::relaxed, Scope::device>(found + 1, u64(1));
        }
        return passed;
#endif
    };
    for (u64 round = 0; round < args.rounds; ++round) {
        if (thread_index() == 0) {
            *mine += 1;
        }
        if (!pass()) {
            return;
        }
        // Plain loads: the barrier has ordered them.
        u64 expected = *mine;
        for (u64 at = thread_index(); at < args.ranks.world * args.blocks; at += THREADS) {
            if (heap.at<u64>(at / args.blocks, args.counts)[at % args.blocks] != expected) {
                fetch_add<Order::relaxed, Scope::device>(found, u64(1));
            }
        }
        // Nobody counts on while others look.
        if (!pass()) {
            return;
        }
    }
}
