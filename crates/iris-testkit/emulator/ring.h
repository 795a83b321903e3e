// Runs the kernel of `examples/own_kernel.hip`, whose argument is not `Args`.
#pragma once

#include <string>

namespace emulator {

/// Runs the exchange that a line describes, by numbers: ranks, blocks, threads, lanes, numbers a rank, launches, rounds, the first value,
/// a seed, the budget in milliseconds; a rank, and before which launch it stalls for how many milliseconds. The result begins with `ok`,
/// `wrong` (data) or `gave up`, and says more.
std::string run_ring(const std::string& line, void* kernel);

} // namespace emulator
