// Matrix instructions by architecture, behind one interface.
//
// A `Mma` multiplies M x K by K x N elements in the lanes of one wave. What it multiplies lies in LDS, depth along: the element of
// line l and depth d at `l * PITCH + d`, for A and for B alike. `row` and `col` say where accumulator element `at` of a lane
// belongs.
//
// IRIS_MMA picks one; without it the architecture does:
//   IRIS_MMA_PLAIN   multiply-add in f32, for every element type and architecture
//   IRIS_MMA_SM80    NVIDIA `mma.sync`, from sm_80 on
//   IRIS_MMA_GFX90A  AMD MFMA of gfx90a and gfx942
//   IRIS_MMA_GFX950  AMD MFMA of gfx950
// f32 always takes the plain one: rounding products to fewer bits is not for a library to decide.
#pragma once

#include "tile.h"

#define IRIS_MMA_PLAIN 0
#define IRIS_MMA_SM80 1
#define IRIS_MMA_GFX90A 2
#define IRIS_MMA_GFX950 3

#ifndef IRIS_MMA
#if defined(__gfx950__)
#define IRIS_MMA IRIS_MMA_GFX950
#elif defined(__gfx90a__) || defined(__gfx942__)
#define IRIS_MMA IRIS_MMA_GFX90A
#elif defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 800
#define IRIS_MMA IRIS_MMA_SM80
#endif
#endif
#endif
#ifndef IRIS_MMA
#define IRIS_MMA IRIS_MMA_PLAIN
#endif

namespace iris {

/// Multiply-add, 4 x 4 accumulators a lane; the lanes lie side by side in 4 or 8 rows of 8.
template <class T>
struct PlainMma {
    static constexpr u32 ROWS = LANES / 8;
    static constexpr u32 M = 4 * ROWS;
    static constexpr u32 N = 32;
    static constexpr u32 K = 4;
    static constexpr u32 ACCUMULATORS = 16;
    struct A {
        f32 x[4][K];
    };
    using B = A;

    /// Lane rows (columns) take every ROWS-th (8th) line, so that neighbouring lanes read neighbouring lines.
    IRIS_DEVICE static u32 row(u32 lane, u32 at) { return at / 4 * ROWS + lane / 8; }
    IRIS_DEVICE static u32 col(u32 lane, u32 at) { return at % 4 * 8 + lane % 8; }

    IRIS_DEVICE static void load(A& to, const T* from, u32 pitch, u32 first, u32 step) {
        IRIS_UNROLL
        for (u32 at = 0; at < 4; ++at) {
            IRIS_UNROLL
            for (u32 k = 0; k < K; ++k) {
                to.x[at][k] = to_f32(from[(first + at * step) * pitch + k]);
            }
        }
    }
    IRIS_DEVICE static void load_a(A& to, const T* from, u32 pitch, u32 lane) { load(to, from, pitch, lane / 8, ROWS); }
    IRIS_DEVICE static void load_b(B& to, const T* from, u32 pitch, u32 lane) { load(to, from, pitch, lane % 8, 8); }

    IRIS_DEVICE static void multiply(f32 (&sum)[ACCUMULATORS], const A& a, const B& b) {
        IRIS_UNROLL
        for (u32 k = 0; k < K; ++k) {
            IRIS_UNROLL
            for (u32 at = 0; at < ACCUMULATORS; ++at) {
                sum[at] = multiply_add(a.x[at / 4][k], b.x[at % 4][k], sum[at]);
            }
        }
    }
};

template <class T>
IRIS_DEVICE const Raw32* raw(const T* from) {
    return reinterpret_cast<const Raw32*>(from);
}

#if IRIS_MMA == IRIS_MMA_SM80

/// `mma.sync.aligned.m16n8k16.row.col`: see "Matrix Fragments for mma.m16n8k16 with floating point type" in the PTX ISA.
template <class T>
struct MatrixMma {
    static constexpr u32 M = 16;
    static constexpr u32 N = 8;
    static constexpr u32 K = 16;
    static constexpr u32 ACCUMULATORS = 4;
    struct A {
        u32 x[4];
    };
    struct B {
        u32 x[2];
    };

    IRIS_DEVICE static u32 row(u32 lane, u32 at) { return lane / 4 + at / 2 * 8; }
    IRIS_DEVICE static u32 col(u32 lane, u32 at) { return lane % 4 * 2 + at % 2; }

    IRIS_DEVICE static void load_a(A& to, const T* from, u32 pitch, u32 lane) {
        const T* mine = from + lane / 4 * pitch + lane % 4 * 2;
        to.x[0] = *raw(mine);
        to.x[1] = *raw(mine + 8 * pitch);
        to.x[2] = *raw(mine + 8);
        to.x[3] = *raw(mine + 8 * pitch + 8);
    }
    IRIS_DEVICE static void load_b(B& to, const T* from, u32 pitch, u32 lane) {
        const T* mine = from + lane / 4 * pitch + lane % 4 * 2;
        to.x[0] = *raw(mine);
        to.x[1] = *raw(mine + 8);
    }

    IRIS_DEVICE static void multiply(f32 (&sum)[ACCUMULATORS], const A& a, const B& b) {
#if defined(IRIS_EMULATED)
        iris_emulator_mma_m16n8k16(sum, a.x, b.x, SAME<T, bf16>);
#else
        if constexpr (SAME<T, bf16>) {
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                         "{%0,%1,%2,%3};"
                         : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                         : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b.x[0]), "r"(b.x[1]));
        } else {
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                         "{%0,%1,%2,%3};"
                         : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                         : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b.x[0]), "r"(b.x[1]));
        }
#endif
    }
};

#elif IRIS_MMA == IRIS_MMA_GFX90A || IRIS_MMA == IRIS_MMA_GFX950

#if !defined(IRIS_EMULATED)
typedef f32 MfmaSum __attribute__((ext_vector_type(4)));
#if IRIS_MMA == IRIS_MMA_GFX950
typedef __bf16 MfmaBf16 __attribute__((ext_vector_type(8)));
typedef _Float16 MfmaF16 __attribute__((ext_vector_type(8)));
#else
typedef short MfmaBf16 __attribute__((ext_vector_type(4)));
typedef _Float16 MfmaF16 __attribute__((ext_vector_type(4)));
#endif
#endif

/// `v_mfma_f32_16x16x16` (gfx90a, gfx942) and `v_mfma_f32_16x16x32` (gfx950): each lane holds consecutive depths of one line, a
/// quarter of the depth in each 16 lanes; and four consecutive rows of one column of the sum.
template <class T>
struct MatrixMma {
    static constexpr u32 M = 16;
    static constexpr u32 N = 16;
    static constexpr u32 K = IRIS_MMA == IRIS_MMA_GFX950 ? 32 : 16;
    static constexpr u32 ACCUMULATORS = 4;
    struct A {
        u32 x[K / 8];
    };
    using B = A;

    IRIS_DEVICE static u32 row(u32 lane, u32 at) { return lane / 16 * 4 + at; }
    IRIS_DEVICE static u32 col(u32 lane, u32 at) {
        (void)at;
        return lane % 16;
    }

    IRIS_DEVICE static void load_a(A& to, const T* from, u32 pitch, u32 lane) {
        const Raw32* mine = raw(from + lane % 16 * pitch + lane / 16 * (K / 4));
        IRIS_UNROLL
        for (u32 at = 0; at < K / 8; ++at) {
            to.x[at] = mine[at];
        }
    }
    IRIS_DEVICE static void load_b(B& to, const T* from, u32 pitch, u32 lane) { load_a(to, from, pitch, lane); }

    IRIS_DEVICE static void multiply(f32 (&sum)[ACCUMULATORS], const A& a, const B& b) {
#if defined(IRIS_EMULATED)
        if constexpr (K == 32) {
            iris_emulator_mfma_f32_16x16x32(sum, a.x, b.x, SAME<T, bf16>);
        } else {
            iris_emulator_mfma_f32_16x16x16(sum, a.x, b.x, SAME<T, bf16>);
        }
#else
        MfmaSum s = {sum[0], sum[1], sum[2], sum[3]};
        if constexpr (SAME<T, bf16>) {
            MfmaBf16 x = __builtin_bit_cast(MfmaBf16, a);
            MfmaBf16 y = __builtin_bit_cast(MfmaBf16, b);
#if IRIS_MMA == IRIS_MMA_GFX950
            s = __builtin_amdgcn_mfma_f32_16x16x32_bf16(x, y, s, 0, 0, 0);
#else
            s = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(x, y, s, 0, 0, 0);
#endif
        } else {
            MfmaF16 x = __builtin_bit_cast(MfmaF16, a);
            MfmaF16 y = __builtin_bit_cast(MfmaF16, b);
#if IRIS_MMA == IRIS_MMA_GFX950
            s = __builtin_amdgcn_mfma_f32_16x16x32_f16(x, y, s, 0, 0, 0);
#else
            s = __builtin_amdgcn_mfma_f32_16x16x16f16(x, y, s, 0, 0, 0);
#endif
        }
        IRIS_UNROLL
        for (u32 at = 0; at < ACCUMULATORS; ++at) {
            sum[at] = s[at];
        }
#endif
    }
};

#else

template <class T>
struct MatrixMma : PlainMma<T> {};

#endif

/// Which instruction multiplies elements of type T.
template <class T>
struct ChooseMma {
    using Type = MatrixMma<T>;
};
template <>
struct ChooseMma<f32> {
    using Type = PlainMma<f32>;
};

using Mma = ChooseMma<Element>::Type;

} // namespace iris
