// Integers of fixed size, the 16-bit floating-point types, and vectors of 16 bytes.
//
// f16 and bf16 are plain bits, so that no vendor's header is needed and a buffer means the same to every compiler.
#pragma once

#include "platform.h"

namespace iris {

/// IEEE 754 binary16, as bits.
struct f16 {
    u16 bits;
};

/// The upper half of an IEEE 754 binary32, as bits.
struct bf16 {
    u16 bits;
};

using f32 = float;

/// Whether two types are one.
template <class A, class B>
constexpr bool SAME = false;
template <class A>
constexpr bool SAME<A, A> = true;

/// The number of elements of `T` in 16 bytes, the widest memory access there is.
template <class T>
constexpr u32 CHUNK = 16 / sizeof(T);

/// 16 bytes that move together. May alias anything: it is how elements of all types travel.
struct IRIS_MAY_ALIAS Vec16 {
    alignas(16) u32 x[4];
};

/// 4 bytes of whatever type.
typedef u32 IRIS_MAY_ALIAS Raw32;

IRIS_DEVICE f32 f32_from_bits(u32 bits) {
    return __builtin_bit_cast(f32, bits);
}

IRIS_DEVICE u32 bits_of(f32 value) {
    return __builtin_bit_cast(u32, value);
}

/// `a * b + c`, rounded once.
IRIS_DEVICE f32 multiply_add(f32 a, f32 b, f32 c) {
#if defined(__CUDACC__)
    return fmaf(a, b, c);
#else
    return __builtin_fmaf(a, b, c);
#endif
}

/// Exactly the same number.
IRIS_DEVICE f32 to_f32(f32 value) {
    return value;
}

/// Exactly the same number.
IRIS_DEVICE f32 to_f32(bf16 value) {
    return f32_from_bits(u32(value.bits) << 16);
}

/// Exactly the same number.
IRIS_DEVICE f32 to_f32(f16 value) {
#if defined(__AMDGCN__)
    return f32(__builtin_bit_cast(_Float16, value.bits));
#elif defined(__CUDACC__)
    f32 wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
#else
    u32 sign = u32(value.bits & 0x8000u) << 16;
    u32 rest = value.bits & 0x7fffu;
    if (rest >= 0x7c00u) { // infinite, or not a number
        return f32_from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    }
    // With the exponent's bias still that of f16 the number is 2^-112 of what it should be; multiplying repairs it, and makes a
    // normal number of a subnormal one. 2^112 is exact, and so is the product.
    f32 magnitude = f32_from_bits(rest << 13) * f32_from_bits((127u + 112u) << 23);
    return f32_from_bits(sign | bits_of(magnitude));
#endif
}

/// The nearest number, ties to even.
template <class T>
IRIS_DEVICE T from_f32(f32 value);

template <>
IRIS_DEVICE f32 from_f32<f32>(f32 value) {
    return value;
}

template <>
IRIS_DEVICE bf16 from_f32<bf16>(f32 value) {
    u32 bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { // not a number: keep it one
        return {u16(bits >> 16 | 0x40u)};
    }
    return {u16((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

template <>
IRIS_DEVICE f16 from_f32<f16>(f32 value) {
#if defined(__AMDGCN__)
    return {__builtin_bit_cast(u16, _Float16(value))};
#elif defined(__CUDACC__)
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return {bits};
#else
    u32 bits = bits_of(value);
    u32 sign = bits >> 16 & 0x8000u;
    u32 rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) { // not a number: keep it one
        return {u16(sign | 0x7e00u | (rest >> 13 & 0x3ffu))};
    }
    if (rest >= 0x477ff000u) { // 65520 and above round to infinity
        return {u16(sign | 0x7c00u)};
    }
    if (rest < 0x38800000u) {
        // Below 2^-14: a multiple of 2^-24. Adding 0.5, whose last bit weighs 2^-24, leaves just these bits, rounded.
        f32 shifted = f32_from_bits(rest) + 0.5f;
        return {u16(sign | (bits_of(shifted) - bits_of(0.5f)))};
    }
    u32 rounded = rest + 0xfffu + (rest >> 13 & 1u);
    return {u16(sign | ((rounded - (112u << 23)) >> 13))};
#endif
}

/// Element `at` of a vector. With a constant `at` it costs a shift at most.
template <class T>
IRIS_DEVICE T get(const Vec16& vector, u32 at) {
    if constexpr (sizeof(T) == 4) {
        return __builtin_bit_cast(T, vector.x[at]);
    } else {
        return T{u16(vector.x[at / 2] >> (16 * (at % 2)))};
    }
}

/// Puts `value` into element `at` of a vector that is zero there.
template <class T>
IRIS_DEVICE void set(Vec16& vector, u32 at, T value) {
    if constexpr (sizeof(T) == 4) {
        vector.x[at] = __builtin_bit_cast(u32, value);
    } else {
        vector.x[at / 2] |= u32(value.bits) << (16 * (at % 2));
    }
}

/// The elements of a vector in f32.
template <class T>
IRIS_DEVICE void widen(const Vec16& vector, f32 (&values)[CHUNK<T>]) {
    IRIS_UNROLL
    for (u32 at = 0; at < CHUNK<T>; ++at) {
        values[at] = to_f32(get<T>(vector, at));
    }
}

/// Values rounded to `T`, as a vector.
template <class T>
IRIS_DEVICE Vec16 narrow(const f32 (&values)[CHUNK<T>]) {
    Vec16 vector = {};
    IRIS_UNROLL
    for (u32 at = 0; at < CHUNK<T>; ++at) {
        set<T>(vector, at, from_f32<T>(values[at]));
    }
    return vector;
}

/// The bits of an element.
IRIS_DEVICE u32 raw_bits(f32 value) {
    return bits_of(value);
}
IRIS_DEVICE u32 raw_bits(f16 value) {
    return value.bits;
}
IRIS_DEVICE u32 raw_bits(bf16 value) {
    return value.bits;
}

/// `count` elements, `stride` apart, one after the other; the rest of the vector is zero. A loop that is not unrolled: where vectors
/// are gathered like this the masks of all their elements would be kept in registers.
template <class T>
IRIS_DEVICE Vec16 gather(const T* from, u64 stride, u64 count) {
    u64 low = 0;
    u64 high = 0;
    IRIS_ROLLED
    for (u32 at = 0; at < count; ++at) {
        u64 bits = raw_bits(from[at * stride]);
        u32 shift = at * 8 * sizeof(T);
        if (shift < 64) {
            low |= bits << shift;
        } else {
            high |= bits << (shift - 64);
        }
    }
    return {{u32(low), u32(low >> 32), u32(high), u32(high >> 32)}};
}

/// Whether an address, and whatever is or-ed to it, is a multiple of 16.
IRIS_DEVICE bool aligned16(u64 bits) {
    return (bits & 15) == 0;
}

} // namespace iris
