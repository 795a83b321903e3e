// The product by itself: this rank's A times B, into its C. It needs no workspace, and no peers.

#include "iris/kernel.h"

using namespace iris;

namespace {

struct Matmul : Operation {
    using Operation::Operation;
    static constexpr To TO = To::own;
    static constexpr bool ALONE = true;

    IRIS_DEVICE Grid grid() const {
        const Args& args = reread(this->args);
        return {args.m, args.n};
    }

    IRIS_DEVICE bool begin() { return true; }
    IRIS_DEVICE u64 steps() const { return grid().len(); }
    IRIS_DEVICE Work work(u64 step) const {
        Block block = grid().block(step);
        return {block, block.row, 0, step, false};
    }
    IRIS_DEVICE u64 depths() const { return reread(args).k; }
    IRIS_DEVICE const Element* bias() const { return rank.bias(); }
    IRIS_DEVICE void finish() {}
};

} // namespace

IRIS_OPERATION(iris_matmul, Matmul)
