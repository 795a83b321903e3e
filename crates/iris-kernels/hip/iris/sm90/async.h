// Hopper's asynchronous copies: barriers that count arrivals and bytes, and tensor maps.
#pragma once

#include "../args.h"

namespace iris {

/// What `cuTensorMapEncodeTiled` makes: where a matrix lies, and in what boxes it is copied.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

/// The argument of a kernel whose blocks consist of crews.
struct FastArgs {
    Args args;
    /// Whether A's, and B's, depth is what lies side by side.
    u64 a_deep;
    u64 b_deep;
    /// Bytes of a box of A, and of one of the gathered A: they may have fewer rows than a tile.
    u64 a_bytes;
    u64 gathered_bytes;
    /// Whether `c` is C; if not, C is not aligned to 16 bytes.
    u64 c_mapped;
    /// Where parts of tiles are left for who finishes them, if tiles are streamed; else 0. See `stream.h`.
    u64 partials;
    /// A, in boxes of 64 depths by up to TILE_M rows if deep, else of 64 rows by 64 depths.
    TensorMap a;
    /// B, in boxes of 64 depths by TILE_N columns if deep, else of 64 columns by 64 depths.
    TensorMap b;
    /// This rank's C, in boxes of 64 columns by 64 rows: its output, where peers store into that.
    TensorMap c;
    /// The A that is gathered in this rank's staging, of both banks one after the other, in boxes of 64 depths by up to TILE_M rows.
    TensorMap gathered;
};

static_assert(sizeof(FastArgs) == 576 + 4 * sizeof(TensorMap), "aligned to 64 bytes, without other gaps");

/// Where a pointer's target lies in the block's shared memory.
IRIS_DEVICE u32 shared_address(const void* pointer) {
    u32 address;
    asm("{ .reg .u64 at; cvta.to.shared.u64 at, %1; cvt.u32.u64 %0, at; }" : "=r"(address) : "l"(pointer));
    return address;
}

/// Orders ordinary accesses, before and after, and those of copies. In each thread that made them.
IRIS_DEVICE void fence_async() {
    asm volatile("fence.proxy.async;" ::: "memory");
}

/// The same for shared memory only.
IRIS_DEVICE void fence_async_shared() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A barrier in shared memory, by its address there. It goes through phases; each ends when it has had as many arrivals as it was
// made for, and as many bytes as were announced.

IRIS_DEVICE void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// Lets copies see barriers that were made.
IRIS_DEVICE void barriers_made() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// Whether this lane is the one that speaks for its wave: always the same one. All lanes ask. Of lanes that are told apart in another way
/// the compiler does not know that they are one, and goes through them in a loop wherever an instruction takes its operands from a wave
/// as a whole, as copies do.
IRIS_DEVICE bool elected() {
    u32 is;
    asm volatile("{\n\t"
                 ".reg .pred is;\n\t"
                 "elect.sync _|is, 0xffffffff;\n\t"
                 "selp.u32 %0, 1, 0, is;\n\t"
                 "}"
                 : "=r"(is)
                 :
                 : "memory");
    return is != 0;
}

/// Arrives, and announces bytes.
IRIS_DEVICE void arrive_expecting(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/// Arrives.
IRIS_DEVICE void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Whether the phase of parity `parity` has ended. It may take a while to say no.
IRIS_DEVICE bool phase_ended(u32 barrier, u32 parity) {
    u32 ended;
    asm volatile("{\n\t"
                 ".reg .pred ended;\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n\t"
                 "selp.u32 %0, 1, 0, ended;\n\t"
                 "}"
                 : "=r"(ended)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return ended != 0;
}

/// Waits for the end of the phase of parity `parity`.
IRIS_DEVICE void await_phase(u32 barrier, u32 parity) {
    while (!phase_ended(barrier, parity)) {
    }
}

/// Fetches a map before its first use.
IRIS_DEVICE void prefetch_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// Copies a box to shared memory. What lies outside of the matrix becomes zero, and counts like the rest.
IRIS_DEVICE void copy_box(u32 to, const TensorMap& map, u32 barrier, i32 x, i32 y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
                 "l"(&map), "r"(barrier), "r"(x), "r"(y)
                 : "memory");
}

/// Copies `bytes` bytes, a multiple of 16, to shared memory.
IRIS_DEVICE void copy_bytes(u32 to, const void* from, u32 barrier, u32 bytes) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(barrier)
                 : "memory");
}

/// Copies a box from shared memory, as part of this thread's current group of copies. What lies outside of the matrix is left out.
IRIS_DEVICE void store_box(const TensorMap& map, u32 from, i32 x, i32 y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map), "r"(from), "r"(x), "r"(y)
                 : "memory");
}

/// Ends this thread's group of copies.
IRIS_DEVICE void commit_copies() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/// Waits until what this thread's copies copy has been read.
IRIS_DEVICE void await_copies_read() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/// Waits until all of this thread's copies have been written, and orders them before what it does next.
IRIS_DEVICE void await_copies() {
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    fence_async();
}

} // namespace iris
