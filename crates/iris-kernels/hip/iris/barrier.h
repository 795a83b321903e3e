// Signals and a barrier by themselves, for kernels of one's own.
//
// The operations here signal through `Call`, which knows when a word may be used again. A kernel of one's own that needs less takes
// these: `push` and `await` for a single word, and `Team` for a barrier of all blocks of all ranks.
#pragma once

#include "fault.h"

namespace iris {

/// Stores `value` to what `mine` names in the heap of `peer`, after all that this thread did before; and, after a `sync_block`, after
/// all that its block did.
template <class T>
IRIS_DEVICE void push(const Heap& heap, T* mine, T value, u64 peer) {
    store<Order::release, Scope::system>(heap.translate(mine, peer), value);
}

/// Waits until `*mine` is `value`, for at most `budget_ns`, and returns whether it came to that. What the writer did before is seen by
/// this thread; and, after a `sync_block`, by its block.
template <class T>
IRIS_DEVICE bool await(const T* mine, T value, u64 budget_ns) {
    u64 since = 0;
    IRIS_ROLLED
    for (u32 polls = 1; load<Order::acquire, Scope::system>(mine) != value; ++polls) {
        if (polls % IRIS_LOOK == 0) {
            u64 now = now_ns();
            if (since == 0) {
                since = now;
            } else if (now - since >= budget_ns) {
                return false;
            }
        }
        pause();
    }
    return true;
}

/// The barrier of all blocks of all ranks, as often as wanted and without the host: nobody leaves it before all have come, and what
/// anybody did before it is seen by all after it.
///
/// It needs the words and cells of `Layout{world, 0}`, zero before its first use, and the blocks of a rank resident at once. Each rank
/// tells every peer a fresh value and waits until every peer's word has *reached* it: a fast peer may have come to the next barrier
/// already, and no further, since that one waits for this rank.
struct Team {
    Heap heap;
    u64 world;
    u64 blocks;
    /// Offsets.
    u64 cells;
    u64 words;
    u64 budget_ns;

    /// Comes to the barrier, with all threads of the block. `shared` is a word of LDS. Returns, in all threads, whether all have come
    /// before the budget's end; after a `false` the barrier is of no more use.
    IRIS_DEVICE bool barrier(u32& shared) const {
        Layout layout{world, 0};
        u64* index = heap.at<u64>(heap.rank, cells) + layout.index_cell();
        u64* arrivals = heap.at<u64>(heap.rank, cells) + layout.arrivals_cell();
        sync_block();
        u64 call = 0;
        if (thread_index() == 0) {
            // Read before this block arrives: the last one to arrive changes it.
            call = load<Order::relaxed, Scope::device>(index);
            fence<Order::release, Scope::system>();
            bool last = fetch_add<Order::acq_rel, Scope::device>(arrivals, u64(1)) + 1 == blocks;
            bool come = last ? meet(layout, signal_value(1, call)) : await_others(index, call);
            if (last && come) {
                store<Order::relaxed, Scope::device>(arrivals, u64(0));
                store<Order::release, Scope::device>(index, call + 1);
            }
            shared = come;
        }
        sync_block();
        bool come = shared != 0;
        sync_block(); // `shared` may be used again
        return come;
    }

  private:
    /// The last block's part.
    IRIS_DEVICE bool meet(const Layout& layout, u64 value) const {
        IRIS_ROLLED
        for (u64 peer = 0; peer < world; ++peer) {
            if (peer != heap.rank) {
                Word* word = heap.at<Word>(peer, words) + layout.entered(heap.rank);
                store<Order::release, Scope::system>(word, Word(value));
            }
        }
        u64 since = now_ns();
        IRIS_ROLLED
        for (u64 peer = 0; peer < world; ++peer) {
            const Word* word = heap.at<Word>(heap.rank, words) + layout.entered(peer);
            IRIS_ROLLED
            while (peer != heap.rank && !reached(u64(load<Order::acquire, Scope::system>(word)), value)) {
                if (now_ns() - since >= budget_ns) {
                    return false;
                }
                pause();
            }
        }
        return true;
    }

    /// The other blocks': what the last one has acquired, they acquire from it.
    IRIS_DEVICE bool await_others(const u64* index, u64 call) const {
        u64 since = now_ns();
        IRIS_ROLLED
        while (load<Order::acquire, Scope::device>(index) == call) {
            if (now_ns() - since >= budget_ns) {
                return false;
            }
            pause();
        }
        fence<Order::acquire, Scope::system>();
        return true;
    }
};

} // namespace iris
