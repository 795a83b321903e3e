// What a kernel of crews is launched with: the twin of `iris-ops`' `device/fast.rs`.
#pragma once

#include "case.h"

#include "iris/sm90/args.h"

namespace emulator {

/// Rows and columns of what a rank passes.
struct Places {
    std::uint64_t a_rows, a_cols, b_rows, b_cols, c_rows, c_cols;
};

/// Whether an operation takes only a deep A, whose tiles would else begin where copies may not.
bool wants_deep(const Case& c, const std::string& op, std::uint64_t m);

/// The argument, beside what portable kernels are given; `partials` is where parts of tiles are left, or 0.
iris::FastArgs fast_arguments(const Case& c, const std::string& op, const iris::Args& args, const Places& places, std::uint64_t partials);

/// Bytes that parts of tiles take.
std::size_t partial_bytes(const Case& c);
/// Says in `args` how a rank, of so many columns, goes about gathering rows of A, as the host does in `iris-kernels` (`src/device/gather.rs`): but
/// less is sent before anything is multiplied, since less is emulated, and what is only a matter of time is left out.
void go_about(const Case& c, const std::string& op, iris::Args& args, std::uint64_t cols, bool streamed);
/// Whether a call's tiles can be streamed.
bool may_stream(const Case& c, const std::string& op, std::uint64_t m, std::uint64_t cols, std::uint64_t blocks);

} // namespace emulator
