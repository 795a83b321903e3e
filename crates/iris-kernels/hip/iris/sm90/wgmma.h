// Hopper's matrix instructions: four waves, a *warpgroup*, multiply 64 rows of A by up to 256 columns of B, both from shared memory.
//
// In shared memory a matrix consists of rows of 128 bytes, whose 16-byte parts are permuted by the row's number: the 128-byte
// swizzle of tensor maps. A row is 64 depths of one line (*deep*), or 64 lines at one depth (*wide*); then every 64 lines make a
// panel of their own.
#pragma once

#include "instructions.h"
#include "stints.h"

namespace iris {

/// Depth of one instruction.
constexpr u32 STEP_K = 16;
/// Bytes of 64 lines in a box: of a panel.
constexpr u32 PANEL_BYTES = 64 * BOX_K * 2;

/// Describes lines that begin at `address`. 16-byte units: 64 (bits 32 to 45) from 8 rows to the next 8, 512 (bits 16 to 29) from a
/// panel to the next; swizzled by 128 bytes (bits 62 and 63).
IRIS_DEVICE u64 describe(u32 address) {
    return u64(1) << 62 | u64(64) << 32 | u64(PANEL_BYTES >> 4) << 16 | (address >> 4 & 0x3fff);
}

/// What is added to a description to come to the next instruction's depth.
template <bool DEEP>
constexpr u64 STEP = DEEP ? STEP_K * 2 >> 4 : STEP_K * 128 >> 4;

#if !defined(IRIS_EMULATED)

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

/// Adds to `d`, a thread's part of 64 x N sums, the product of what `a` and `b` describe. N is a multiple of 64.
template <class T, u32 N, bool A_DEEP, bool B_DEEP>
struct Multiply;

// The sums as operands, and by their numbers, 32 at a time; behind them come a, b, and which way they lie.
#define IRIS_D8(AT) "+f"(d[AT]), "+f"(d[AT + 1]), "+f"(d[AT + 2]), "+f"(d[AT + 3]), "+f"(d[AT + 4]), "+f"(d[AT + 5]), "+f"(d[AT + 6]), "+f"(d[AT + 7])
#define IRIS_D32(AT) IRIS_D8(AT), IRIS_D8(AT + 8), IRIS_D8(AT + 16), IRIS_D8(AT + 24)
#define IRIS_SUMS_1 IRIS_D32(0)
#define IRIS_SUMS_2 IRIS_SUMS_1, IRIS_D32(32)
#define IRIS_SUMS_3 IRIS_SUMS_2, IRIS_D32(64)
#define IRIS_SUMS_4 IRIS_SUMS_3, IRIS_D32(96)
#define IRIS_LIST_1 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define IRIS_LIST_2 IRIS_LIST_1 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define IRIS_LIST_3 IRIS_LIST_2 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define IRIS_LIST_4 IRIS_LIST_3 ", " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define IRIS_WGMMA(TYPE, N, SIXTY_FOURS, A, B, A_WIDE, B_WIDE)                                                                        \
    asm volatile("{\n\t"                                                                                                              \
                 ".reg .pred add;\n\t"                                                                                                \
                 "setp.eq.u32 add, 0, 0;\n\t"                                                                                         \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" IRIS_LIST_##SIXTY_FOURS "}, %" #A ", %" #B       \
                 ", add, 1, 1, %" #A_WIDE ", %" #B_WIDE ";\n\t"                                                                       \
                 "}"                                                                                                                  \
                 : IRIS_SUMS_##SIXTY_FOURS                                                                                            \
                 : "l"(a), "l"(b), "n"(A_DEEP ? 0 : 1), "n"(B_DEEP ? 0 : 1))

#define IRIS_MULTIPLY(N, SIXTY_FOURS, A, B, A_WIDE, B_WIDE)                                                                           \
    template <class T, bool A_DEEP, bool B_DEEP>                                                                                      \
    struct Multiply<T, N, A_DEEP, B_DEEP> {                                                                                           \
        IRIS_DEVICE static void add(f32 (&d)[N / 2], u64 a, u64 b) {                                                                  \
            if constexpr (SAME<T, f16>) {                                                                                             \
                IRIS_WGMMA("f16", N, SIXTY_FOURS, A, B, A_WIDE, B_WIDE);                                                              \
            } else {                                                                                                                  \
                IRIS_WGMMA("bf16", N, SIXTY_FOURS, A, B, A_WIDE, B_WIDE);                                                             \
            }                                                                                                                         \
        }                                                                                                                             \
    }

IRIS_MULTIPLY(64, 1, 32, 33, 34, 35);
IRIS_MULTIPLY(128, 2, 64, 65, 66, 67);
IRIS_MULTIPLY(192, 3, 96, 97, 98, 99);
IRIS_MULTIPLY(256, 4, 128, 129, 130, 131);

#undef IRIS_D8
#undef IRIS_D32
#undef IRIS_SUMS_1
#undef IRIS_SUMS_2
#undef IRIS_SUMS_3
#undef IRIS_SUMS_4
#undef IRIS_LIST_1
#undef IRIS_LIST_2
#undef IRIS_LIST_3
#undef IRIS_LIST_4
#undef IRIS_WGMMA
#undef IRIS_MULTIPLY

#endif

} // namespace iris
