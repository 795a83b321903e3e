// A kernel such as a user writes: an all-reduce around a ring, from the device library's parts.
//
// Every rank passes its matrix on to the next one, then what it was passed, until each has been everywhere. Then all meet, so that the
// next call may use the same memory.

#include "iris/barrier.h"
#include "iris/epilogue.h"

using namespace iris;

IRIS_KERNEL(THREADS) iris_ring_all_reduce(const Args args) {
    IRIS_SHARED(u32, shared);
    await_launch_before();
    Heap heap{args.heap, args.rank};
    Team team{heap, args.world, args.blocks, args.cells, args.words, args.budget_ns};
    u64 next = (args.rank + 1) % args.world;
    u64 count = args.m * args.n;
    // One piece for each step. A word of each block tells that its part of the step's piece has come; words after the barrier's.
    Element* pieces = heap.at<Element>(args.rank, args.staging);
    Layout layout{args.world, 0};
    Word* words = heap.at<Word>(args.rank, args.words) + layout.lock(0) + block_index() * args.world;
    Word value = Word(1 + *(heap.at<u64>(args.rank, args.cells) + layout.index_cell()));

    // Each block has a part of every piece.
    u64 each = ceil_div(ceil_div(count, args.blocks), CHUNK<Element>) * CHUNK<Element>;
    u64 start = smaller(count, block_index() * each);
    u64 len = smaller(count, start + each) - start;
    const Element* a = global<const Element>(args.a);
    for (u64 at = thread_index(); at < len; at += THREADS) {
        u64 row = (start + at) / args.n;
        u64 col = (start + at) % args.n;
        Element mine = a[row * args.a_row + col * args.a_col];
        pieces[start + at] = mine;
        global<Element>(args.c)[row * args.c_row + col] = mine;
    }
    for (u64 step = 1; step < args.world; ++step) {
        Element* piece = pieces + step * ceil_div(count, CHUNK<Element>) * CHUNK<Element>;
        const Element* last = pieces + (step - 1) * ceil_div(count, CHUNK<Element>) * CHUNK<Element>;
        sync_block();
        put(heap, piece + start, last + start, len, next, THREADS);
        sync_block();
        if (thread_index() == 0) {
            push(heap, words + step, value, next);
            shared = await(words + step, value, args.budget_ns);
        }
        sync_block();
        if (shared == 0) {
            return;
        }
        for (u64 at = thread_index(); at < len; at += THREADS) {
            Element* c = global<Element>(args.c) + (start + at) / args.n * args.c_row + (start + at) % args.n;
            *c = from_f32<Element>(to_f32(*c) + to_f32(piece[start + at]));
        }
    }
    team.barrier(shared);
}
