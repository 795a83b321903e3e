// What a block on Hopper has beside its threads: barriers that count bytes, copies under way, multiplications that are not finished.
//
// All of it happens at times of its own. A copy is made some rounds after it was asked for, soon or late, in no order; a multiplication at once,
// or not before somebody waits for it. So whoever does not wait sees, sooner or later, what was there before; and whoever lets go of a place too early has
// it overwritten.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

namespace emulator {

struct Thread;

/// What stands in a tensor map here: elements of two bytes, swizzled by 128 bytes.
struct Map {
    std::uint64_t address;
    /// Elements along what lies side by side, and of the other side; and bytes from one line to the next.
    std::uint64_t lens[2];
    std::uint64_t stride;
    /// A box's sides in the same order.
    std::uint32_t sides[2];
};

/// Counts arrivals and bytes.
struct PhaseBarrier {
    unsigned arrivals = 0;
    unsigned pending = 0;
    std::int64_t bytes = 0;
    unsigned parity = 0;
};

/// A copy under way.
struct Copy {
    enum class Kind { box_in, bytes_in, box_out, given } kind;
    Map map;
    std::uint64_t from;
    unsigned shared;
    /// Of copies to shared memory, and of what a partner gives, whom to tell; of others, whose they are, and of which group.
    unsigned barrier;
    const Thread* thread;
    std::uint64_t group;
    int x, y;
    unsigned bytes;
    /// Rounds until it, or its next part, is made.
    unsigned rounds;
    /// Of copies from shared memory, what has been read there.
    bool read;
    std::vector<unsigned char> held;
};

/// A multiplication by four waves: where each thread's sums are, and what is multiplied.
struct Multiplication {
    std::vector<float*> sums;
    unsigned n;
    std::uint64_t a, b;
    bool a_deep, b_deep, bf16;
};

struct Sm90 {
    std::map<unsigned, PhaseBarrier> barriers;
    std::vector<Copy> copies;
    /// Of each four waves: those of the current group, and the groups before it that are not finished.
    struct Multiplications {
        std::vector<Multiplication> open;
        std::deque<std::vector<Multiplication>> groups;
    } groups[4];
};

struct Block;

/// Makes some of a block's copies, or all. Returns whether it made any.
bool make_copies(Block& block, bool all);
/// Ends a block's launch: what its copies have read, but not stored yet, is stored by then. If it has left anything else under way, the program
/// ends.
void end(Block& block);

} // namespace emulator
