// One case: which operation runs, on what, and what is done to it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

/// A case, as one line of `key=value` pairs describes it.
struct Case {
    /// The operation's name, which is its kernel's without `iris_`.
    std::string op;
    /// Calls of no more rows than this are of another operation, on the same workspace: its kernel is in a library of its own.
    std::uint64_t few = 0;
    std::string op_of_few;
    /// f32, f16 or bf16; lanes of a wave; threads of a block; and the tile: as the kernel was compiled.
    std::string dtype = "f32";
    unsigned lanes = 64;
    unsigned threads = 64;
    std::uint64_t tile_m = 32;
    std::uint64_t tile_n = 32;
    /// Of kernels whose blocks consist of crews, bytes of shared memory that a launch gives each block; else 0.
    unsigned crews = 0;
    /// Rows of A, and depths, of a slab of theirs.
    std::uint64_t slab_rows = 0;
    std::uint64_t slab_depth = 0;
    /// The same of the calls of few rows, whose blocks have so many threads; 0 where they are as the others.
    unsigned threads_of_few = 0;
    unsigned crews_of_few = 0;
    /// Whether their tiles are streamed where they can be.
    bool streamed = false;
    /// This rank runs the portable kernel of the other library, of blocks of so many threads: as where an operand does not lie as crews want it.
    unsigned portable_rank = 0;
    unsigned portable_threads = 0;

    unsigned world = 2;
    /// The rows of each call, one after the other.
    std::vector<std::uint64_t> m;
    std::uint64_t n = 1;
    std::uint64_t k = 1;
    /// Blocks of the grid, at each rank.
    std::vector<unsigned> blocks = {2};
    bool bias = false;
    /// Whether matrices are exchanged as they are.
    bool given = false;
    /// Whether C is no symmetric memory.
    bool bounced = false;
    std::uint64_t first = 1;
    std::uint64_t seed = 1;
    std::uint64_t budget_ms = 20000;

    /// Rules removed.
    std::uint64_t removed = 0;
    /// Stall this rank in the call of this index at this phase for so long.
    unsigned stall_rank = 0;
    std::uint64_t stall_index = 0;
    std::uint64_t stall_phase = 0;
    std::uint64_t stall_ms = 0;
    /// This block of this rank begins the call of this index so much later than the rank's others.
    unsigned slow_rank = 0;
    std::uint64_t slow_index = 0;
    unsigned slow_block = 0;
    std::uint64_t slow_ms = 0;
    /// After the call of this index, this rank's user waits so long before reading C.
    unsigned user_rank = 0;
    std::uint64_t user_index = 0;
    std::uint64_t user_ms = 0;
    /// From the call of this index on, this rank calls with one row more than its peers.
    unsigned other_m_rank = 0;
    std::uint64_t other_m_index = ~std::uint64_t(0);
    /// This rank leaves before the call of this index, as if it had died.
    unsigned dead_rank = 0;
    std::uint64_t dead_index = ~std::uint64_t(0);
};

/// Reads a line.
Case parse(const std::string& line);

/// Runs a case. The result begins with `ok`, `wrong` (data) or `fault`, and says more.
std::string run_case(const Case& c, void* kernel, void* kernel_of_few);

} // namespace emulator
