// Atomic accesses with an order and a scope, both constants.
//
// `Scope::system` reaches other devices and the host, `Scope::device` the blocks of this grid. What crosses devices must have
// system scope on both sides: on devices made of chiplets even two blocks have different caches.
#pragma once

#include "types.h"

namespace iris {

/// What an access orders besides itself.
enum class Order {
    /// Nothing.
    relaxed,
    /// What follows a load comes after it, and sees what came before the store that it read.
    acquire,
    /// What precedes a store comes before it.
    release,
    /// Both, for read-modify-writes and fences.
    acq_rel,
};

/// Among whom an access is atomic and ordered.
enum class Scope {
    /// The threads of this device.
    device,
    /// All threads of all devices, and the host.
    system,
};

#if defined(IRIS_EMULATED) || defined(__AMDGCN__)

/// The order as the compilers number it. A variable and no function: the builtins take a call for an order to be looked up at
/// run time.
template <Order O>
constexpr int RAW_ORDER = O == Order::relaxed  ? __ATOMIC_RELAXED
                          : O == Order::acquire ? __ATOMIC_ACQUIRE
                          : O == Order::release ? __ATOMIC_RELEASE
                                                : __ATOMIC_ACQ_REL;

#endif

#if defined(IRIS_EMULATED)

template <Order O, Scope S, class T>
inline T load(const T* from) {
    iris_emulator_accesses();
    T value;
    __atomic_load(const_cast<T*>(from), &value, RAW_ORDER<O>);
    if constexpr (O == Order::acquire && S == Scope::system) {
        iris_emulator_acquired();
    }
    return value;
}

template <Order O, Scope S, class T>
inline void store(T* to, T value) {
    iris_emulator_accesses();
    __atomic_store(to, &value, RAW_ORDER<O>);
}

template <Order O, Scope S, class T>
inline T fetch_add(T* to, T value) {
    iris_emulator_accesses();
    return __atomic_fetch_add(to, value, RAW_ORDER<O>);
}

template <Order O, Scope S, class T>
inline T exchange(T* to, T value) {
    iris_emulator_accesses();
    return __atomic_exchange_n(to, value, RAW_ORDER<O>);
}

template <Order O, Scope S, class T>
inline T compare_exchange(T* to, T expected, T desired) {
    iris_emulator_accesses();
    __atomic_compare_exchange_n(to, &expected, desired, false, RAW_ORDER<O>, __ATOMIC_RELAXED);
    return expected;
}

template <Scope S>
inline void add(u64* to, u64 value) {
    iris_emulator_accesses();
    __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}

template <Scope S>
inline void add_f32(f32* to, f32 value) {
    iris_emulator_accesses();
    Raw32* bits = reinterpret_cast<Raw32*>(to);
    u32 seen = __atomic_load_n(bits, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(bits, &seen, bits_of(f32_from_bits(seen) + value), true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
}

template <Order O, Scope S>
inline void fence() {
    __atomic_thread_fence(RAW_ORDER<O>);
}

#elif defined(__AMDGCN__)

/// The scope as the compiler numbers it.
template <Scope S>
constexpr int RAW_SCOPE = S == Scope::device ? __HIP_MEMORY_SCOPE_AGENT : __HIP_MEMORY_SCOPE_SYSTEM;

/// Loads `*from`. `O` is relaxed or acquire.
template <Order O, Scope S, class T>
IRIS_DEVICE T load(const T* from) {
    return __hip_atomic_load(from, RAW_ORDER<O>, RAW_SCOPE<S>);
}

/// Stores `value` to `*to`. `O` is relaxed or release.
template <Order O, Scope S, class T>
IRIS_DEVICE void store(T* to, T value) {
    __hip_atomic_store(to, value, RAW_ORDER<O>, RAW_SCOPE<S>);
}

/// Adds to `*to`, and returns what was there before.
template <Order O, Scope S, class T>
IRIS_DEVICE T fetch_add(T* to, T value) {
    return __hip_atomic_fetch_add(to, value, RAW_ORDER<O>, RAW_SCOPE<S>);
}

/// Stores `value` to `*to`, and returns what was there before.
template <Order O, Scope S, class T>
IRIS_DEVICE T exchange(T* to, T value) {
    return __hip_atomic_exchange(to, value, RAW_ORDER<O>, RAW_SCOPE<S>);
}

/// Stores `desired` to `*to` if `expected` is there, and returns what was there before.
template <Order O, Scope S, class T>
IRIS_DEVICE T compare_exchange(T* to, T expected, T desired) {
    __hip_atomic_compare_exchange_strong(to, &expected, desired, RAW_ORDER<O>, __ATOMIC_RELAXED, RAW_SCOPE<S>);
    return expected;
}

/// Adds to `*to`, relaxed.
template <Scope S>
IRIS_DEVICE void add(u64* to, u64 value) {
    __hip_atomic_fetch_add(to, value, __ATOMIC_RELAXED, RAW_SCOPE<S>);
}
template <Scope S>
IRIS_DEVICE void add_f32(f32* to, f32 value) {
    __hip_atomic_fetch_add(to, value, __ATOMIC_RELAXED, RAW_SCOPE<S>);
}

/// Orders all accesses before it against all after it.
template <Order O, Scope S>
IRIS_DEVICE void fence() {
    // The builtin wants literals.
    if constexpr (O == Order::acquire && S == Scope::device) {
        __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
    } else if constexpr (O == Order::acquire) {
        __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "");
    } else if constexpr (O == Order::release && S == Scope::device) {
        __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
    } else if constexpr (O == Order::release) {
        __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");
    } else if constexpr (S == Scope::device) {
        __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "agent");
    } else {
        __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "");
    }
}

#else

// One instruction for each order, scope and width. `ORDER` and `SCOPE` are PTX's names of them.
#define IRIS_PTX_LOAD(ORDER, SCOPE)                                                                                       \
    if constexpr (sizeof(T) == 4) {                                                                                       \
        u32 bits;                                                                                                         \
        asm volatile("ld." ORDER "." SCOPE ".global.b32 %0, [%1];" : "=r"(bits) : "l"(from) : "memory");                  \
        return __builtin_bit_cast(T, bits);                                                                               \
    } else {                                                                                                              \
        u64 bits;                                                                                                         \
        asm volatile("ld." ORDER "." SCOPE ".global.b64 %0, [%1];" : "=l"(bits) : "l"(from) : "memory");                  \
        return __builtin_bit_cast(T, bits);                                                                               \
    }
#define IRIS_PTX_STORE(ORDER, SCOPE)                                                                                      \
    if constexpr (sizeof(T) == 4) {                                                                                       \
        asm volatile("st." ORDER "." SCOPE ".global.b32 [%0], %1;" ::"l"(to), "r"(__builtin_bit_cast(u32, value))         \
                     : "memory");                                                                                         \
    } else {                                                                                                              \
        asm volatile("st." ORDER "." SCOPE ".global.b64 [%0], %1;" ::"l"(to), "l"(__builtin_bit_cast(u64, value))         \
                     : "memory");                                                                                         \
    }
#define IRIS_PTX_RMW(OP, TYPE, ORDER, SCOPE)                                                                              \
    if constexpr (sizeof(T) == 4) {                                                                                       \
        u32 bits;                                                                                                         \
        asm volatile("atom." ORDER "." SCOPE ".global." OP "." TYPE "32 %0, [%1], %2;"                                    \
                     : "=r"(bits)                                                                                         \
                     : "l"(to), "r"(__builtin_bit_cast(u32, value))                                                       \
                     : "memory");                                                                                         \
        return __builtin_bit_cast(T, bits);                                                                               \
    } else {                                                                                                              \
        u64 bits;                                                                                                         \
        asm volatile("atom." ORDER "." SCOPE ".global." OP "." TYPE "64 %0, [%1], %2;"                                    \
                     : "=l"(bits)                                                                                         \
                     : "l"(to), "l"(__builtin_bit_cast(u64, value))                                                       \
                     : "memory");                                                                                         \
        return __builtin_bit_cast(T, bits);                                                                               \
    }
#define IRIS_PTX_CAS(ORDER, SCOPE)                                                                                        \
    if constexpr (sizeof(T) == 4) {                                                                                       \
        u32 bits;                                                                                                         \
        asm volatile("atom." ORDER "." SCOPE ".global.cas.b32 %0, [%1], %2, %3;"                                          \
                     : "=r"(bits)                                                                                         \
                     : "l"(to), "r"(__builtin_bit_cast(u32, expected)), "r"(__builtin_bit_cast(u32, desired))             \
                     : "memory");                                                                                         \
        return __builtin_bit_cast(T, bits);                                                                               \
    } else {                                                                                                              \
        u64 bits;                                                                                                         \
        asm volatile("atom." ORDER "." SCOPE ".global.cas.b64 %0, [%1], %2, %3;"                                          \
                     : "=l"(bits)                                                                                         \
                     : "l"(to), "l"(__builtin_bit_cast(u64, expected)), "l"(__builtin_bit_cast(u64, desired))             \
                     : "memory");                                                                                         \
        return __builtin_bit_cast(T, bits);                                                                               \
    }
/// Loads `*from`. `O` is relaxed or acquire.
template <Order O, Scope S, class T>
IRIS_DEVICE T load(const T* from) {
    static_assert(O == Order::relaxed || O == Order::acquire, "a load does not release");
    if constexpr (O == Order::relaxed && S == Scope::device) {
        IRIS_PTX_LOAD("relaxed", "gpu")
    } else if constexpr (O == Order::relaxed) {
        IRIS_PTX_LOAD("relaxed", "sys")
    } else if constexpr (S == Scope::device) {
        IRIS_PTX_LOAD("acquire", "gpu")
    } else {
        IRIS_PTX_LOAD("acquire", "sys")
    }
}

/// Stores `value` to `*to`. `O` is relaxed or release.
template <Order O, Scope S, class T>
IRIS_DEVICE void store(T* to, T value) {
    static_assert(O == Order::relaxed || O == Order::release, "a store does not acquire");
    if constexpr (O == Order::relaxed && S == Scope::device) {
        IRIS_PTX_STORE("relaxed", "gpu")
    } else if constexpr (O == Order::relaxed) {
        IRIS_PTX_STORE("relaxed", "sys")
    } else if constexpr (S == Scope::device) {
        IRIS_PTX_STORE("release", "gpu")
    } else {
        IRIS_PTX_STORE("release", "sys")
    }
}

/// Adds to `*to`, and returns what was there before.
template <Order O, Scope S, class T>
IRIS_DEVICE T fetch_add(T* to, T value) {
    static_assert(O == Order::relaxed || O == Order::acq_rel, "relaxed or acq_rel");
    if constexpr (O == Order::relaxed && S == Scope::device) {
        IRIS_PTX_RMW("add", "u", "relaxed", "gpu")
    } else if constexpr (O == Order::relaxed) {
        IRIS_PTX_RMW("add", "u", "relaxed", "sys")
    } else if constexpr (S == Scope::device) {
        IRIS_PTX_RMW("add", "u", "acq_rel", "gpu")
    } else {
        IRIS_PTX_RMW("add", "u", "acq_rel", "sys")
    }
}

/// Stores `value` to `*to`, and returns what was there before.
template <Order O, Scope S, class T>
IRIS_DEVICE T exchange(T* to, T value) {
    static_assert(O == Order::relaxed || O == Order::acq_rel, "relaxed or acq_rel");
    if constexpr (O == Order::relaxed && S == Scope::device) {
        IRIS_PTX_RMW("exch", "b", "relaxed", "gpu")
    } else if constexpr (O == Order::relaxed) {
        IRIS_PTX_RMW("exch", "b", "relaxed", "sys")
    } else if constexpr (S == Scope::device) {
        IRIS_PTX_RMW("exch", "b", "acq_rel", "gpu")
    } else {
        IRIS_PTX_RMW("exch", "b", "acq_rel", "sys")
    }
}

/// Stores `desired` to `*to` if `expected` is there, and returns what was there before.
template <Order O, Scope S, class T>
IRIS_DEVICE T compare_exchange(T* to, T expected, T desired) {
    static_assert(O == Order::acquire || O == Order::acq_rel, "acquire or acq_rel");
    if constexpr (O == Order::acquire && S == Scope::device) {
        IRIS_PTX_CAS("acquire", "gpu")
    } else if constexpr (O == Order::acquire) {
        IRIS_PTX_CAS("acquire", "sys")
    } else if constexpr (S == Scope::device) {
        IRIS_PTX_CAS("acq_rel", "gpu")
    } else {
        IRIS_PTX_CAS("acq_rel", "sys")
    }
}

/// Adds to `*to`, relaxed.
template <Scope S>
IRIS_DEVICE void add(u64* to, u64 value) {
    if constexpr (S == Scope::device) {
        asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
    } else {
        asm volatile("red.relaxed.sys.global.add.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
    }
}
template <Scope S>
IRIS_DEVICE void add_f32(f32* to, f32 value) {
    if constexpr (S == Scope::device) {
        asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(to), "f"(value) : "memory");
    } else {
        asm volatile("red.relaxed.sys.global.add.f32 [%0], %1;" ::"l"(to), "f"(value) : "memory");
    }
}

/// Orders all accesses before it against all after it.
template <Order O, Scope S>
IRIS_DEVICE void fence() {
    if constexpr (S == Scope::device) {
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
    } else {
        asm volatile("fence.acq_rel.sys;" ::: "memory");
    }
}

#undef IRIS_PTX_LOAD
#undef IRIS_PTX_STORE
#undef IRIS_PTX_RMW
#undef IRIS_PTX_CAS

#endif

} // namespace iris
