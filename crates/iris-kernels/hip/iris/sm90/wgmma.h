// Hopper's matrix instructions: four waves, a *warpgroup*, multiply 64 rows of A by up to 256 columns of B, both from shared memory.
//
// In shared memory a matrix consists of rows of 128 bytes, whose 16-byte parts are permuted by the row's number: the 128-byte
// swizzle of tensor maps. A row is 64 depths of one line (*deep*), or 64 lines at one depth (*wide*); then every 64 lines make a
// panel of their own.
#pragma once

#include "../tile.h"

namespace iris {

/// Depth of a slab: 128 bytes.
constexpr u32 SLAB_K = 64;
/// Depth of one instruction.
constexpr u32 STEP_K = 16;
/// Bytes of 64 lines in a slab: of a panel.
constexpr u32 PANEL_BYTES = 64 * SLAB_K * 2;

/// Describes lines that begin at `address`. 16-byte units: 64 (bits 32 to 45) from 8 rows to the next 8, 512 (bits 16 to 29) from a
/// panel to the next; swizzled by 128 bytes (bits 62 and 63).
IRIS_DEVICE u64 describe(u32 address) {
    return u64(1) << 62 | u64(64) << 32 | u64(PANEL_BYTES >> 4) << 16 | (address >> 4 & 0x3fff);
}

/// What is added to a description to come to the next instruction's depth.
template <bool DEEP>
constexpr u64 STEP = DEEP ? STEP_K * 2 >> 4 : STEP_K * 128 >> 4;

/// Orders accesses to the accumulators before the next multiplication.
IRIS_DEVICE void begin_multiplying() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/// Ends a group of multiplications.
IRIS_DEVICE void commit_multiplying() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Waits until at most `PENDING` groups are unfinished.
template <u32 PENDING>
IRIS_DEVICE void await_multiplied() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#define IRIS_D8(AT) "+f"(d[AT]), "+f"(d[AT + 1]), "+f"(d[AT + 2]), "+f"(d[AT + 3]), "+f"(d[AT + 4]), "+f"(d[AT + 5]), "+f"(d[AT + 6]), "+f"(d[AT + 7])
#define IRIS_D32(AT) IRIS_D8(AT), IRIS_D8(AT + 8), IRIS_D8(AT + 16), IRIS_D8(AT + 24)

/// Adds to `d` the product of what `a` and `b` describe.
template <class T, u32 N, bool A_DEEP, bool B_DEEP>
struct Multiply;

#define IRIS_MULTIPLY_64(TYPE)                                                                                                    \
    asm volatile("{\n\t"                                                                                                          \
                 ".reg .pred add;\n\t"                                                                                           \
                 "setp.eq.u32 add, 0, 0;\n\t"                                                                              \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {"                                               \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"                                  \
                 "}, %32, %33, add, 1, 1, %34, %35;\n\t"                                                              \
                 "}"                                                                                                             \
                 : IRIS_D32(0)                                                                                                         \
                 : "l"(a), "l"(b), "n"(A_DEEP ? 0 : 1), "n"(B_DEEP ? 0 : 1))

template <class T, bool A_DEEP, bool B_DEEP>
struct Multiply<T, 64, A_DEEP, B_DEEP> {
    IRIS_DEVICE static void add(f32 (&d)[32], u64 a, u64 b) {
        if constexpr (SAME<T, f16>) {
            IRIS_MULTIPLY_64("f16");
        } else {
            IRIS_MULTIPLY_64("bf16");
        }
    }
};

#define IRIS_MULTIPLY_128(TYPE)                                                                                                    \
    asm volatile("{\n\t"                                                                                                          \
                 ".reg .pred add;\n\t"                                                                                           \
                 "setp.eq.u32 add, 0, 0;\n\t"                                                                              \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {"                                               \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                                \
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                                \
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"                                  \
                 "}, %64, %65, add, 1, 1, %66, %67;\n\t"                                                              \
                 "}"                                                                                                             \
                 : IRIS_D32(0), IRIS_D32(32)                                                                                                         \
                 : "l"(a), "l"(b), "n"(A_DEEP ? 0 : 1), "n"(B_DEEP ? 0 : 1))

template <class T, bool A_DEEP, bool B_DEEP>
struct Multiply<T, 128, A_DEEP, B_DEEP> {
    IRIS_DEVICE static void add(f32 (&d)[64], u64 a, u64 b) {
        if constexpr (SAME<T, f16>) {
            IRIS_MULTIPLY_128("f16");
        } else {
            IRIS_MULTIPLY_128("bf16");
        }
    }
};

#define IRIS_MULTIPLY_256(TYPE)                                                                                                    \
    asm volatile("{\n\t"                                                                                                          \
                 ".reg .pred add;\n\t"                                                                                           \
                 "setp.eq.u32 add, 0, 0;\n\t"                                                                              \
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32." TYPE "." TYPE " {"                                               \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                          \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                                \
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                                \
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                                \
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                                \
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                                \
                 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "                    \
                 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"                  \
                 "}, %128, %129, add, 1, 1, %130, %131;\n\t"                                                              \
                 "}"                                                                                                             \
                 : IRIS_D32(0), IRIS_D32(32), IRIS_D32(64), IRIS_D32(96)                                                                                                         \
                 : "l"(a), "l"(b), "n"(A_DEEP ? 0 : 1), "n"(B_DEEP ? 0 : 1))

template <class T, bool A_DEEP, bool B_DEEP>
struct Multiply<T, 256, A_DEEP, B_DEEP> {
    IRIS_DEVICE static void add(f32 (&d)[128], u64 a, u64 b) {
        if constexpr (SAME<T, f16>) {
            IRIS_MULTIPLY_256("f16");
        } else {
            IRIS_MULTIPLY_256("bf16");
        }
    }
};

#undef IRIS_D8
#undef IRIS_D32
#undef IRIS_MULTIPLY_64
#undef IRIS_MULTIPLY_128
#undef IRIS_MULTIPLY_256

} // namespace iris
