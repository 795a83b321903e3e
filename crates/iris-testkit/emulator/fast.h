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
/// Whether a call's tiles can be streamed.
bool may_stream(const Case& c, const std::string& op, std::uint64_t m, std::uint64_t cols, std::uint64_t blocks);

} // namespace emulator
