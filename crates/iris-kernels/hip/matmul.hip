// prototype
#include "iris/sm90/store.h"
#include "iris/epilogue.h"
using namespace iris;


struct alignas(64) Fast {
    Args args;
    u64 raster;
    u64 pad;
    Operands operands;
};
static_assert(sizeof(Args) % 16 == 0, "");

struct Step { u64 row, col; u32 rows, cols; };

IRIS_DEVICE Step step_of(const Args& args, u64 step, u32 part, u32 raster) {
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

extern __shared__ __align__(1024) u8 dynamic[];

extern "C" __global__ void
#if IRIS_CLUSTER > 1
__cluster_dims__(IRIS_CLUSTER, 1, 1)
#endif
__launch_bounds__(GROUPS * 128 + 128, 1) iris_matmul(const __grid_constant__ Fast fast) {
    const Args& args = fast.args;
    Ring ring{(shared_address(dynamic) + 1023) & ~1023u};
    u32 part = CLUSTER == 1 ? 0 : cluster_part();
    u64 all = ceil_div(ceil_div(args.m, TILE_M), CLUSTER) * ceil_div(args.n, TILE_N);
    u64 first = blockIdx.x / CLUSTER;
    u64 stride = args.blocks / CLUSTER;
    u32 slabs = u32(ceil_div(args.k, SLAB_K));
    if (thread_index() == GROUPS * 128) {
        ring.make();
    }
    if (CLUSTER > 1) {
        sync_cluster();
    } else {
        __syncthreads();
    }
    if (thread_index() >= GROUPS * 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (thread_index() == GROUPS * 128) {
            prefetch_map(fast.operands.a);
            prefetch_map(fast.operands.b);
            Place place;
            for (u64 step = first; step < all; step += stride) {
                Step s = step_of(args, step, part, u32(fast.raster));
                for (u32 slab = 0; slab < slabs; ++slab) {
                    copy_slab(ring, place, fast.operands, s.row, s.col, u64(slab) * SLAB_K, part);
                    place.advance();
                }
            }
        }
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        Place place;
        u32 turn = thread_index() / 128;
        u32 at = 0;
#if defined(IRIS_STAGGER)
        // experiment
#endif
        for (u64 step = first; step < all; step += stride, ++at) {
            if (PINGPONG && at % 2 != turn) {
                place.advance(slabs);
                continue;
            }
            if (PINGPONG) {
                // The other has issued its multiplications.
                if (at > 0) sync_named(2 + turn, 256);
            }
            Step s = step_of(args, step, part, u32(fast.raster));
            Accumulators sums;
            multiply_slabs(sums, ring, place, slabs, fast.operands);
            if (PINGPONG) {
                if (step + stride < all) asm volatile("bar.arrive %0, %1;" ::"r"(2 + (turn ^ 1)), "r"(256) : "memory");
            }
            drain(sums, ring, args.bias == 0 ? nullptr : global<const Element>(args.bias) + s.col, s.rows, s.cols,
                  [&](u32 row, u32 col, const Vec16& chunk, u32 count) {
                      store_chunk(global<Element>(args.c) + (s.row + row) * args.c_row + s.col + col, chunk, count);
                  });
        }
    }
    if (CLUSTER > 1) {
        sync_cluster();
    }
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
