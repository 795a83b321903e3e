// Hopper's instructions: asynchronous copies by tensor maps, barriers that count arrivals and bytes, and more. All that crews do in PTX is
// here and in `wgmma.h`; the rest is C++, which the emulator runs with functions of its own in place of these.
#pragma once

#include "args.h"
#include "../tile.h"

#if defined(IRIS_EMULATED)

#include "emulator_sm90.h"

#else

namespace iris {

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

#define IRIS_PTX_PHASE_ENDED(TEST)                                                                                        \
    u32 ended;                                                                                                            \
    asm volatile("{\n\t"                                                                                                  \
                 ".reg .pred ended;\n\t"                                                                                  \
                 "mbarrier." TEST ".parity.shared::cta.b64 ended, [%1], %2;\n\t"                                          \
                 "selp.u32 %0, 1, 0, ended;\n\t"                                                                          \
                 "}"                                                                                                      \
                 : "=r"(ended)                                                                                            \
                 : "r"(barrier), "r"(parity)                                                                              \
                 : "memory");                                                                                             \
    return ended != 0;
/// Whether the phase of parity `parity` has ended. It may take a while to say no.
IRIS_DEVICE bool phase_ended(u32 barrier, u32 parity) {
    IRIS_PTX_PHASE_ENDED("try_wait")
}
/// The same, said at once.
IRIS_DEVICE bool phase_ended_by_now(u32 barrier, u32 parity) {
    IRIS_PTX_PHASE_ENDED("test_wait")
}
#undef IRIS_PTX_PHASE_ENDED

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

/// The same with a *policy*, as `createpolicy` makes them: for how long the device's cache is to keep it.
IRIS_DEVICE void copy_box_by(u64 policy, u32 to, const TensorMap& map, u32 barrier, i32 x, i32 y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4}], "
                 "[%2], %5;" ::"r"(to),
                 "l"(&map), "r"(barrier), "r"(x), "r"(y), "l"(policy)
                 : "memory");
}

/// Copies `bytes` bytes, a multiple of 16, to shared memory.
IRIS_DEVICE void copy_bytes(u32 to, const void* from, u32 barrier, u32 bytes) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(barrier)
                 : "memory");
}

// Two blocks of a cluster.

/// Comes to where both blocks come, with all threads; and waits until they have, so that what each did before is seen.
IRIS_DEVICE void pair_arrives() {
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}
IRIS_DEVICE void await_pair() {
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

/// Where the partner has what this block has at an address in shared memory.
IRIS_DEVICE u32 at_partner(u32 address) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(u32(block_index()) % 2 ^ 1));
    return there;
}

/// Stores four numbers to the partner's shared memory, as so many bytes for a barrier there.
IRIS_DEVICE void give(u32 to, u32 barrier, const f32 (&values)[4]) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to), "f"(values[0]),
                 "f"(values[1]), "f"(values[2]), "f"(values[3]), "r"(barrier)
                 : "memory");
}

/// Arrives at a barrier of the partner's.
IRIS_DEVICE void arrive_across(u32 barrier) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Waits for the end of a phase of parity `parity` that the partner ends.
IRIS_DEVICE void await_given(u32 barrier, u32 parity) {
    u32 ended = 0;
    while (ended == 0) {
        asm volatile("{\n\t"
                     ".reg .pred ended;\n\t"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 ended, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, ended;\n\t"
                     "}"
                     : "=r"(ended)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    }
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

// Registers.

/// The same value in all lanes of a wave, and so that the compiler knows: instructions that a wave executes as one take operands like that.
IRIS_DEVICE u32 same_in_wave(u32 value) {
    return __shfl_sync(0xffffffffu, value, 0);
}

/// What the wave's first lane says, in all lanes: they go the same way. Where a shuffle tells them of it, NVRTC 13.0 makes code of the loader's
/// loop that takes 1.7 us longer for each first tile.
IRIS_DEVICE bool first_lane_says(bool value) {
    return (__ballot_sync(0xffffffffu, value) & 1) != 0;
}

/// From here on a wave has so many registers a thread: fewer than before, or more, which must have become free.
template <u32 COUNT>
IRIS_DEVICE void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <u32 COUNT>
IRIS_DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/// Keeps what was done to a value before apart from what follows, by adding a -0, which changes no bit.
IRIS_DEVICE void keep_apart(f32& value) {
    asm volatile("add.f32 %0, %0, 0f80000000;" : "+f"(value)::"memory");
}

/// Two values rounded to type T, the first one in the lower half.
template <class T>
IRIS_DEVICE u32 narrow2(f32 low, f32 high) {
    u32 both;
    if constexpr (SAME<T, f16>) {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    } else {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    }
    return both;
}

// Shared memory, by its address there.

/// Four matrices of 8 x 8 elements of 16 bits: lane l says where row l % 8 of matrix l / 8 lies, and of each has elements l % 4 * 2 and the
/// next of row l / 4.
IRIS_DEVICE void load_matrices(u32 (&to)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
}
IRIS_DEVICE void store_matrices(u32 to, const u32 (&from)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(from[0]), "r"(from[1]), "r"(from[2]),
                 "r"(from[3])
                 : "memory");
}

IRIS_DEVICE Vec16 load_shared(u32 from) {
    Vec16 chunk;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(chunk.x[0]), "=r"(chunk.x[1]), "=r"(chunk.x[2]), "=r"(chunk.x[3])
                 : "r"(from)
                 : "memory");
    return chunk;
}

/// Tells the block's other crews something by a word in shared memory, and with it all that this wave has seen and fenced before; and what was told last.
IRIS_DEVICE void tell_block(u32& word, u32 value) {
    asm volatile("st.release.cta.shared::cta.b32 [%0], %1;" ::"r"(shared_address(&word)), "r"(value) : "memory");
}
IRIS_DEVICE u32 told_to_block(const u32& word) {
    u32 value;
    asm volatile("ld.acquire.cta.shared::cta.b32 %0, [%1];" : "=r"(value) : "r"(shared_address(&word)) : "memory");
    return value;
}

IRIS_DEVICE void store_shared(u32 to, const Vec16& chunk) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(chunk.x[0]), "r"(chunk.x[1]), "r"(chunk.x[2]), "r"(chunk.x[3])
                 : "memory");
}

// Time, and threads that wait for each other.

/// Waits for all threads of a warpgroup.
IRIS_DEVICE void sync_group(u32 group) {
    asm volatile("bar.sync %0, 128;" ::"r"(5 + group) : "memory");
}

/// A clock of this multiprocessor's, by its cycles.
IRIS_DEVICE u32 clock() {
    u32 now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
    return now;
}

/// Passes up to about twice as many nanoseconds.
IRIS_DEVICE void sleep(u32 ns) {
    asm volatile("nanosleep.u32 %0;" ::"r"(ns) : "memory");
}

} // namespace iris

#endif

namespace iris {

/// Waits for the end of the phase of parity `parity`.
IRIS_DEVICE void await_phase(u32 barrier, u32 parity) {
    while (!phase_ended(barrier, parity)) {
    }
}

} // namespace iris
