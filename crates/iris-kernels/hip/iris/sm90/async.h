// Hopper's asynchronous copies: barriers that count arrivals and bytes, tensor maps, and clusters of blocks.
#pragma once

#include "../types.h"

namespace iris {

/// What `cuTensorMapEncodeTiled` makes: where a matrix lies, and in what boxes it is copied.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

/// Where a pointer's target lies in the block's shared memory.
IRIS_DEVICE u32 shared_address(const void* pointer) {
    u32 address;
    asm("{ .reg .u64 at; cvta.to.shared.u64 at, %1; cvt.u32.u64 %0, at; }" : "=r"(address) : "l"(pointer));
    return address;
}

/// What lies at `address` here, in the shared memory of block `part` of the cluster.
IRIS_DEVICE u32 in_cluster(u32 address, u32 part) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(part));
    return there;
}

/// This block's number in its cluster.
IRIS_DEVICE u32 cluster_part() {
    u32 part;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(part));
    return part;
}

/// Waits for all threads of all blocks of the cluster. Orders nothing.
IRIS_DEVICE void sync_cluster() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
}

/// Waits for `threads` threads of the block, who name the same barrier.
IRIS_DEVICE void sync_named(u32 barrier, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/// Lets barriers and matrix that were made by ordinary stores be seen by copies.
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

/// Lets the other blocks of the cluster, and copies, see barriers that were made.
IRIS_DEVICE void barriers_made() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// Arrives, and announces bytes.
IRIS_DEVICE void arrive_expecting(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/// Arrives.
IRIS_DEVICE void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Arrives at the same barrier of block `part` of the cluster. Orders nothing between blocks.
IRIS_DEVICE void arrive_at(u32 barrier, u32 part) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(in_cluster(barrier, part)) : "memory");
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
#if defined(IRIS_SPINS)
    for (u32 spins = 0; !phase_ended(barrier, parity); ++spins) {
        if (spins > IRIS_SPINS) {
            asm volatile("trap;");
        }
    }
#else
    while (!phase_ended(barrier, parity)) {
    }
#endif
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

/// Copies a box of a matrix of three dimensions.
IRIS_DEVICE void copy_box(u32 to, const TensorMap& map, u32 barrier, i32 x, i32 y, i32 z) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
                 "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z)
                 : "memory");
}

/// Copies a box to the same place of all blocks of the cluster that `parts` has a bit for, and counts it at each one's barrier.
IRIS_DEVICE void copy_box_to(u16 parts, u32 to, const TensorMap& map, u32 barrier, i32 x, i32 y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
                 " [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
                 "l"(&map), "r"(barrier), "r"(x), "r"(y), "h"(parts)
                 : "memory");
}

} // namespace iris
