// Blocks in pairs: two blocks that follow each other have their tiles of a step in common, each one half of the depth of both.
//
// A multiprocessor is brought so many bytes of A and B in a given time, and no more. Of a tile that is twice as high as wide most of them are
// A's; two blocks that both make such a tile of the same rows bring the same rows twice. As a pair, each brings half of the depth of these rows, and of
// both tiles' columns: of 128 rows and 64 columns two thirds of the bytes. Then each gives its partner what it has made of the partner's
// tile, across the shared memory of their cluster, and from there on each has its own tile as if it had made it alone.
//
// So tiles lie, belong and are told as without pairs: no rank needs to know how another makes them. All tiles have the same rows of A, of which
// there is one row of tiles.
//
// *Invariant:* a pair's blocks walk through the same steps, those of the even one. What a block waits for at a step follows from its
// partner's slabs of that step, and from steps before it: nobody waits in a ring.
#pragma once

#include "ring.h"

namespace iris {

#if defined(IRIS_PAIRED)

/// Whether this block is the second one of its pair.
IRIS_DEVICE u32 is_second() { return u32(block_index()) % 2; }

/// What goes from a block to its partner, and when: one warpgroup's side of it.
struct Exchange {
    const Ring& ring;
    u32 group;
    /// How often there has been one.
    u32 rounds = 0;

    IRIS_DEVICE Exchange(const Ring& ring, u32 group) : ring(ring), group(group) {}

    /// Where this thread's chunk number `quad` lies.
    IRIS_DEVICE u32 chunk(u32 quad) const { return ring.exchange(group) + (quad * 128 + thread_index() % 128) * 16; }

    /// Gives away the sums of the partner's tile, and adds to those of this block's, which are then the lower ones, what the partner has given.
    IRIS_DEVICE void make(Accumulators& sums) {
        constexpr u32 HALF = TILE_N / 2;
        bool second = same_in_wave(is_second()) != 0;
        if (thread_index() % 128 == 0) {
            arrive_expecting(ring.given(group), EXCHANGE_BYTES / GROUPS);
        }
        await_taken();
        u32 to = at_partner(chunk(0));
        u32 tell = at_partner(ring.given(group));
        IRIS_UNROLL
        for (u32 at = 0; at < HALF; at += 4) {
            f32 theirs[4];
            IRIS_UNROLL
            for (u32 each = 0; each < 4; ++each) {
                f32 low = sums.d[at + each];
                f32 high = sums.d[at + each + HALF];
                theirs[each] = second ? low : high;
                sums.d[at + each] = second ? high : low;
            }
            give(to + at / 4 * 128 * 16, tell, theirs);
        }
        await_given(ring.given(group), rounds % 2);
        IRIS_UNROLL
        for (u32 at = 0; at < HALF; at += 4) {
            Vec16 given = load_shared(chunk(at / 4));
            IRIS_UNROLL
            for (u32 each = 0; each < 4; ++each) {
                sums.d[at + each] += __builtin_bit_cast(f32, given.x[each]);
            }
        }
        sync_group(group);
        if (thread_index() % 128 == 0) {
            arrive_across(at_partner(ring.read(group)));
        }
        ++rounds;
    }

    /// Waits until the partner has read what was given to it: before its place is filled again, and before this block ends.
    IRIS_DEVICE void await_taken() const {
        if (rounds != 0) {
            await_given(ring.read(group), (rounds - 1) % 2);
        }
    }
};

#endif

} // namespace iris
