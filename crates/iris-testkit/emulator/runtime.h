// The emulator's runtime, as its driver sees it: launch a kernel, wait until all its threads have left.
#pragma once

#include "emulator.h"

#include <functional>

namespace emulator {

/// A launch's shape.
struct Launch {
    unsigned blocks;
    unsigned threads;
    /// Lanes of a wave: 32 or 64.
    unsigned lanes;
    /// Bytes of shared memory that a block has beside what its kernel names, which then is 4 KiB at most.
    unsigned shared;
    /// What the order is derived from in which threads take turns.
    std::uint64_t seed;
    /// This block begins so many milliseconds later than the others.
    unsigned slow_block = 0;
    std::uint64_t slow_ms = 0;
    /// Whether it may begin before the launch before has ended, so that each of its threads waits for that before it accesses memory.
    bool programmatic = false;
    /// Where lies what peers store here in the course of the launch, and what copies may read.
    std::uint64_t staged_from = 0;
    std::uint64_t staged_to = 0;
};

/// Runs `kernel` in every thread of the grid, as fibers of the calling OS thread, and returns when all have left. All blocks
/// are in flight together, as a cooperative launch has them.
///
/// A grid that can never finish (threads of one block at different barriers, lanes of one wave at different matrix
/// instructions) ends the program with a message: it is a bug of the kernel, and no wait of the protocol's.
void run(const Launch& launch, const std::function<void()>& kernel);

} // namespace emulator
