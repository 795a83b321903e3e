// The arithmetic by which Hopper's blocks share tiles (`sm90/stints.h`), in a product that is made one element at a time: parts of tiles are
// left, awaited and added as `sm90/stream.h` does with sums of warpgroups.
//
// In a world of one rank. Calls of a number of rows that is a multiple of 3 do not stream.

#include "iris/barrier.h"
#include "iris/sm90/stints.h"

using namespace iris;

namespace {

/// A product whose first rows of tiles are a group of their own.
struct Product {
    const Args& args;
    static constexpr bool STREAMS = true;

    u64 me() const { return 0; }
    u64 depths() const { return args.k; }
    u64 cols(u64) const { return args.n; }
    u32 rows() const { return u32(ceil_div(args.m, TILE_M)); }
    u32 across() const { return u32(ceil_div(args.n, TILE_N)); }
    u32 rows_of_group(u32 group) const { return group == 0 ? rows() / 3 : rows() - rows() / 3; }
    u64 steps() const { return rows() * across(); }
    Block block(u32 step) const {
        u32 before = rows_of_group(0) * across();
        bool later = step >= before;
        Block block = Grid{u64(rows_of_group(later)) * TILE_M, args.n}.block(later ? step - before : step);
        block.row += later ? u64(rows_of_group(0)) * TILE_M : 0;
        block.rows = u32(smaller(TILE_M, args.m - block.row));
        return block;
    }
};

u32 flags[STREAMS_OF_CALL * STREAMERS];
f32 left[STREAMS_OF_CALL * STREAMERS][TILE_M * TILE_N];

} // namespace

IRIS_KERNEL(THREADS) iris_streamed_matmul(const Args args) {
    Product product{args};
    Streams streams;
    streams.make(product);
    u64 partials = args.m % 3;
    const f32* a = global<const f32>(args.a);
    const f32* b = global<const f32>(args.b);
    f32* c = global<f32>(args.c);
    Course<Product> course(product, streams, partials);
    while (course.next()) {
        Stint stint = course.stint();
        Block block = product.block(stint.step);
        auto each = [&](auto visit) {
            for (u32 at = thread_index(); at < block.rows * TILE_N; at += THREADS) {
                u64 row = block.row + at / TILE_N;
                u64 col = block.col + at % TILE_N;
                if (col < args.n) {
                    visit(at, row, col, c + row * args.c_row + col);
                }
            }
        };
        each([&](u32 at, u64 row, u64 col, f32* to) {
            f32 sum = 0;
            for (u64 depth = u64(stint.first) * SLAB_K; depth < smaller(u64(stint.end) * SLAB_K, args.k); ++depth) {
                sum += a[row * args.a_row + depth * args.a_col] * b[depth * args.b_row + col * args.b_col];
            }
            *(stint.is_head() ? to : &left[course.place_of(u32(block_index()))][at]) = sum;
        });
        sync_block();
        if (!stint.is_head()) {
            if (thread_index() == 0) {
                store<Order::release, Scope::device>(&flags[course.place_of(u32(block_index()))], 1u);
            }
            continue;
        }
        course.each_of_rest([&](u32 other) {
            u32 place = course.place_of(other);
            if (thread_index() == 0) {
                while (load<Order::acquire, Scope::device>(&flags[place]) == 0) {
                    pause();
                }
                store<Order::relaxed, Scope::device>(&flags[place], 0u);
            }
            sync_block();
            each([&](u32 at, u64, u64, f32* to) { *to += left[place][at]; });
            sync_block();
        });
    }
    // The call is counted, as every kernel's is.
    if (block_index() == 0 && thread_index() == 0) {
        Heap heap{args.heap, args.rank};
        ++*(heap.at<u64>(args.rank, args.cells) + Layout{args.world, args.tiles}.index_cell());
    }
}
