// prototype
#include "iris/sm90/run.h"
using namespace iris;
#ifndef IRIS_RESIDENT
#define IRIS_RESIDENT 1
#endif

struct alignas(64) Fast {
    Args args;
    u64 raster;
    u64 pad;
    Operands operands;
};

struct Step { u64 row, col; u32 rows, cols; };

struct Matmul {
    const Args& args;
    u32 raster;

    IRIS_DEVICE u64 first() const { return block_index() / CLUSTER; }
    IRIS_DEVICE u64 stride() const { return args.blocks / CLUSTER; }
    IRIS_DEVICE u64 steps() const { return ceil_div(ceil_div(args.m, TILE_M), CLUSTER) * ceil_div(args.n, TILE_N); }
    IRIS_DEVICE u32 slabs() const { return u32(ceil_div(args.k, SLAB_K)); }
    IRIS_DEVICE const Element* bias() const { return args.bias == 0 ? nullptr : global<const Element>(args.bias); }
    IRIS_DEVICE Element* line(const Step& s, u32 row) const { return global<Element>(args.c) + (s.row + row) * args.c_row + s.col; }
    IRIS_DEVICE Step work(u64 step, u32 part) const {
        u32 rows = u32(ceil_div(ceil_div(args.m, TILE_M), CLUSTER));
        u32 cols = u32(ceil_div(args.n, TILE_N));
        u32 s = u32(step);
        u32 size = raster * cols;
        u32 group = s / size;
        u32 in = s % size;
        u32 height = min(raster, rows - group * raster);
        u32 row = (group * raster + in % height) * CLUSTER + part;
        u32 col = in / height;
        Step out;
        out.row = u64(row) * TILE_M;
        out.col = u64(col) * TILE_N;
        out.rows = out.row >= args.m ? 0 : u32(smaller(TILE_M, args.m - out.row));
        out.cols = u32(smaller(TILE_N, args.n - out.col));
        return out;
    }
};

extern __shared__ __align__(1024) u8 dynamic[];

extern "C" __global__ void
#if IRIS_CLUSTER > 1
__cluster_dims__(IRIS_CLUSTER, 1, 1)
#endif
__launch_bounds__(GROUPS * 128 + 128, IRIS_RESIDENT) iris_matmul(const __grid_constant__ Fast fast) {
    Matmul op{fast.args, u32(fast.raster)};
    run(op, dynamic, fast.operands);
}

// Reads everything, 16 bytes a thread.
extern "C" __global__ void __launch_bounds__(1024) iris_read(const uint4* from, u64 count, u32* to) {
    u32 sum = 0;
    u64 stride = u64(gridDim.x) * 1024;
    u64 at = u64(blockIdx.x) * 1024 + threadIdx.x;
    for (; at + 3 * stride < count; at += 4 * stride) {
        uint4 a = from[at], b = from[at + stride], c = from[at + 2 * stride], d = from[at + 3 * stride];
        sum ^= a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
    }
    for (; at < count; at += stride) {
        uint4 a = from[at];
        sum ^= a.x ^ a.y ^ a.z ^ a.w;
    }
    if (sum == 0x12345678) {
        *to = sum;
    }
}
