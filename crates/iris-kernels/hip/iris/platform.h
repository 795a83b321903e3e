// The one place that knows what the code is compiled for: AMD, NVIDIA, or the emulator on a CPU.
//
// No vendor's header is included. What crosses devices is written as clang builtins on AMD and as inline PTX on NVIDIA, where
// clang 22 would drop the order and the scope of read-modify-writes and nvcc has them only in headers.
#pragma once

// This comes first: compilers that compile at run time offer no <cstdint>.
namespace iris {
using u8 = unsigned char;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned int;
using i64 = long long;
using u64 = unsigned long long;
} // namespace iris

// IRIS_SM90 asks for the kernels whose blocks consist of crews. See `sm90/crews.h`.
#if defined(IRIS_SM90)
/// Warpgroups that multiply, 64 rows of a tile each.
#ifndef IRIS_WARPGROUPS
#define IRIS_WARPGROUPS 2
#endif
/// Waves that do not multiply; and those of them that take tiles away.
#ifndef IRIS_HELPERS
#define IRIS_HELPERS 4
#endif
#ifndef IRIS_COURIERS
#define IRIS_COURIERS 1
#endif
#endif

#if defined(IRIS_EMULATED)

#include "emulator.h"

#define IRIS_DEVICE inline
#define IRIS_KERNEL(THREADS) extern "C" __attribute__((visibility("default"))) void
#define IRIS_KERNEL_ALONE(THREADS) IRIS_KERNEL(THREADS)
#define IRIS_GRID_CONSTANT const
#define IRIS_SHARED(TYPE, NAME) TYPE& NAME = *static_cast<TYPE*>(iris_emulator_shared(sizeof(TYPE)))
#define IRIS_DYNAMIC_SHARED(NAME) u8* NAME = static_cast<u8*>(iris_emulator_dynamic_shared())
#define IRIS_UNROLL
#define IRIS_ROLLED
#define IRIS_MAY_ALIAS __attribute__((may_alias))
/// Lanes of a wave. The emulator takes it as an option, since it can be either.
#ifndef IRIS_LANES
#if defined(IRIS_SM90)
#define IRIS_LANES 32
#else
#define IRIS_LANES 64
#endif
#endif
/// Unsuccessful polls between two looks at the clock and at the abort words.
#define IRIS_LOOK 64

#elif defined(__AMDGCN__)

#define IRIS_DEVICE __attribute__((device)) __attribute__((always_inline)) inline
#define IRIS_KERNEL(THREADS) \
    extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(THREADS, THREADS))) void
#define IRIS_SHARED(TYPE, NAME) __attribute__((shared)) TYPE NAME
#define IRIS_UNROLL _Pragma("unroll")
#define IRIS_ROLLED _Pragma("unroll 1")
#define IRIS_MAY_ALIAS __attribute__((may_alias))
#define IRIS_LANES 64
#define IRIS_LOOK 4096

#elif defined(__CUDACC__) || defined(__NVPTX__)

#define IRIS_DEVICE __device__ __forceinline__
#define IRIS_KERNEL(THREADS) extern "C" __global__ void __launch_bounds__(THREADS)
/// Of which a multiprocessor has one block.
#define IRIS_KERNEL_ALONE(THREADS) extern "C" __global__ void __launch_bounds__(THREADS, 1)
#define IRIS_GRID_CONSTANT const __grid_constant__
#define IRIS_SHARED(TYPE, NAME) __shared__ TYPE NAME
#define IRIS_DYNAMIC_SHARED(NAME) extern __shared__ u8 NAME[]
#define IRIS_UNROLL _Pragma("unroll")
#define IRIS_ROLLED _Pragma("unroll 1")
#define IRIS_MAY_ALIAS
#define IRIS_LANES 32
#define IRIS_LOOK 4096

#else
#error "iris kernels are compiled for AMD, for NVIDIA, or with IRIS_EMULATED for a CPU"
#endif

namespace iris {

/// Lanes that run in step: a wave on AMD, a warp on NVIDIA.
constexpr u32 LANES = IRIS_LANES;

#if defined(IRIS_SM90)

/// Threads that work together on one thing, and synchronise by a barrier of their own. To what is not written for crews, a crew is a
/// block.
struct Crew {
    /// The first of them, and how many there are.
    u32 first;
    u32 threads;
    u32 barrier;
};

/// Where the waves begin that do not multiply: the loader, the couriers, the movers.
constexpr u32 LOADER = IRIS_WARPGROUPS * 128;
constexpr u32 COURIERS = LOADER + 32;
constexpr u32 MOVERS = COURIERS + IRIS_COURIERS * 32;
/// All threads of a block.
constexpr u32 BLOCK_THREADS = LOADER + IRIS_HELPERS * 32;
/// The number of their barrier, behind those of crews and of warpgroups.
constexpr u32 ARRIVED = 7;

/// The crew of the thread `thread` of its block.
IRIS_DEVICE Crew crew_of(u32 thread) {
    if (thread < LOADER) {
        return {0, LOADER, 1};
    } else if (thread < COURIERS) {
        return {LOADER, 32, 2};
    } else if (thread < MOVERS) {
        return {COURIERS, IRIS_COURIERS * 32, 3};
    } else {
        return {MOVERS, BLOCK_THREADS - MOVERS, 4};
    }
}

/// This thread's number in its block.
IRIS_DEVICE u32 block_thread() {
#if defined(IRIS_EMULATED)
    return iris_emulator_thread();
#else
    return threadIdx.x;
#endif
}

/// This thread's number in its crew. It is read anew each time: warpgroups have no register to keep it in.
IRIS_DEVICE u32 thread_index() {
#if defined(IRIS_EMULATED)
    u32 thread = block_thread();
#else
    u32 thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
#endif
    return thread - crew_of(block_thread()).first;
}

/// Waits for all threads of the crew; what each did before is seen by all after.
IRIS_DEVICE void sync_block() {
    Crew crew = crew_of(block_thread());
#if defined(IRIS_EMULATED)
    iris_emulator_sync(crew.barrier, crew.threads);
#else
    asm volatile("bar.sync %0, %1;" ::"r"(crew.barrier), "r"(crew.threads) : "memory");
#endif
}

/// The same for all threads of the block.
IRIS_DEVICE void sync_all() {
#if defined(IRIS_EMULATED)
    iris_emulator_sync_block();
#else
    __syncthreads();
#endif
}

/// The same at a barrier of its own, to which all threads come, and some do not wait there. `sync_all` is no such barrier: it counts the threads
/// that have not ended.
IRIS_DEVICE void await_arrived() {
#if defined(IRIS_EMULATED)
    iris_emulator_sync(ARRIVED, BLOCK_THREADS);
#else
    asm volatile("bar.sync %0, %1;" ::"n"(ARRIVED), "n"(BLOCK_THREADS) : "memory");
#endif
}

/// Comes to that barrier without waiting: what this thread did before is seen by those who wait there.
IRIS_DEVICE void arrive_only() {
#if defined(IRIS_EMULATED)
    iris_emulator_pass(ARRIVED, BLOCK_THREADS);
#else
    asm volatile("bar.arrive %0, %1;" ::"n"(ARRIVED), "n"(BLOCK_THREADS) : "memory");
#endif
}

/// The same for the lanes of a wave.
IRIS_DEVICE void sync_wave() {
#if defined(IRIS_EMULATED)
    iris_emulator_sync_wave();
#else
    __syncwarp();
#endif
}

#else

/// This thread's number in its block.
IRIS_DEVICE u32 thread_index() {
#if defined(IRIS_EMULATED)
    return iris_emulator_thread();
#elif defined(__AMDGCN__)
    return __builtin_amdgcn_workitem_id_x();
#else
    return threadIdx.x;
#endif
}

/// Waits for all threads of the block; what each did before is seen by all after.
IRIS_DEVICE void sync_block() {
#if defined(IRIS_EMULATED)
    iris_emulator_sync_block();
#elif defined(__AMDGCN__)
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
#else
    __syncthreads();
#endif
}

#endif

/// This block's number in its grid.
IRIS_DEVICE u32 block_index() {
#if defined(IRIS_EMULATED)
    return iris_emulator_block();
#elif defined(__AMDGCN__)
    return __builtin_amdgcn_workgroup_id_x();
#else
    return blockIdx.x;
#endif
}

/// This thread's lane in its wave.
IRIS_DEVICE u32 lane_index() {
    return thread_index() % LANES;
}

/// This wave's number in its block. The same in all its lanes, and the compiler is told so.
IRIS_DEVICE u32 wave_index() {
#if defined(__AMDGCN__)
    return __builtin_amdgcn_readfirstlane(thread_index() / LANES);
#else
    return thread_index() / LANES;
#endif
}

/// Passes a moment between two polls.
IRIS_DEVICE void pause() {
#if defined(IRIS_EMULATED)
    iris_emulator_pause();
#elif defined(__AMDGCN__)
    __builtin_amdgcn_s_sleep(1);
#else
    asm volatile("nanosleep.u32 20;" ::: "memory");
#endif
}

/// Stands in a loop that waits for this device's own blocks.
IRIS_DEVICE void spin() {
#if defined(IRIS_EMULATED)
    iris_emulator_spin();
#endif
}

/// Lets the launch after this one on the stream begin, if it may begin early: as soon as all blocks have called this or ended, where there is
/// room.
IRIS_DEVICE void admit_launch_after() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Waits until the launch before this one on the stream has ended, so that all that it has stored is seen: this one may have begun early. A
/// thread that has not called this touches nothing but its arguments and its block's shared memory.
IRIS_DEVICE void await_launch_before() {
#if defined(IRIS_EMULATED)
    iris_emulator_launch_before_ended();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Asks for what lies at an address to be brought into the device's cache, where that can be asked for.
IRIS_DEVICE void prefetch(const void* at) {
#if defined(__CUDACC__)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
#else
    (void)at;
#endif
}

/// Nanoseconds since some moment, the same for all threads of the device.
IRIS_DEVICE u64 now_ns() {
#if defined(IRIS_EMULATED)
    return iris_emulator_now_ns();
#elif defined(__AMDGCN__)
    return __builtin_amdgcn_s_memrealtime() * 10; // a clock of 100 MHz on gfx90a, gfx942 and gfx950
#else
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
#endif
}

/// The same value, as if the compiler had never seen it: on AMD it would otherwise keep what follows from it across whole loops, masks
/// of lanes above all, and run out of scalar registers.
IRIS_DEVICE u32 opaque(u32 value) {
#if defined(__AMDGCN__)
    asm volatile("" : "+v"(value));
#endif
    return value;
}

/// Has a value worked out before what follows that compilers do not move either: waits and barriers.
template <class T>
IRIS_DEVICE void worked_out(T& value) {
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(T) == 8) {
        asm volatile("" : "+l"(value)::"memory");
    } else {
        asm volatile("" : "+r"(value)::"memory");
    }
#else
    (void)value;
#endif
}

/// What `opaque` does, of a value that all lanes have in common.
IRIS_DEVICE u64 opaque_scalar(u64 value) {
#if defined(__AMDGCN__)
    asm volatile("" : "+s"(value));
#endif
    return value;
}

/// An address of global memory as a pointer. On AMD the compiler learns that it is neither LDS nor scratch.
template <class T>
IRIS_DEVICE T* global(u64 address) {
#if defined(__AMDGCN__)
    return (T*)(__attribute__((address_space(1))) T*)address;
#else
    return reinterpret_cast<T*>(address);
#endif
}

} // namespace iris
