// The matrix instructions, from the vendors' documents and not from the kernels' own helpers.
//
// AMD: "AMD Instinct MI300" Instruction Set Architecture reference guide, chapter "Matrix Arithmetic Instructions", dense matrix
// layouts; the formulas below are those which AMD's Matrix Instruction Calculator (github.com/ROCm/amd_matrix_instruction_calculator)
// prints with `--architecture cdna3 --instruction v_mfma_f32_16x16x16_bf16 --detail-instruction`, the same as for `_f16`, and as
// `v_mfma_f32_16x16x16bf16_1k` and `v_mfma_f32_16x16x16f16` with `--architecture cdna2`:
//
//     A[i][k] GPR: (floor(k / 2) % 2).[16*(k % 2)+15 : 16*(k % 2)]    Lane: 16 * floor(k / 4) + i
//     B[k][j] GPR: (floor(k / 2) % 2).[16*(k % 2)+15 : 16*(k % 2)]    Lane: 16 * floor(k / 4) + j
//     D[i][j] GPR: (i % 4)                                            Lane: 16 * floor(i / 4) + j
//
// The 16x16x32 of gfx950 (CDNA 4) doubles the registers of A and B: 8 consecutive k a lane in place of 4.
//
// NVIDIA: "Matrix Fragments for mma.m16n8k16 with floating point type" in the PTX ISA manual, from element to register: A[i][k] lies in
// lane 4 * (i % 8) + (k % 8) / 2, register i / 8 + 2 * (k / 8); B[k][j] in lane 4 * j + (k % 8) / 2, register k / 8; both in the half
// k % 2; D[i][j] in lane 4 * (i % 8) + j / 2, register 2 * (i / 8) + j % 2.

#include "matrix.h"

#include <cmath>
#include <cstdint>
#include <vector>

namespace emulator {

namespace {

// From the definition: sign, exponent, fraction.
double defined(unsigned bits, bool bf16) {
    int fraction_bits = bf16 ? 7 : 10;
    int exponent_bits = bf16 ? 8 : 5;
    int bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
    double fraction = bits & ((1u << fraction_bits) - 1);
    double sign = bits >> 15 & 1 ? -1.0 : 1.0;
    if (exponent == (1 << exponent_bits) - 1) {
        return fraction == 0 ? sign * INFINITY : NAN;
    }
    if (exponent == 0) {
        return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
    }
    return sign * std::ldexp(1.0 + std::ldexp(fraction, -fraction_bits), exponent - bias);
}

/// All numbers, at their bits.
std::vector<float> all_numbers(bool bf16) {
    std::vector<float> all(65536);
    for (unsigned bits = 0; bits < all.size(); ++bits) {
        all[bits] = float(defined(bits, bf16));
    }
    return all;
}

} // namespace

float number(unsigned bits, bool bf16) {
    static const std::vector<float> of_f16 = all_numbers(false), of_bf16 = all_numbers(true);
    return (bf16 ? of_bf16 : of_f16)[bits];
}

namespace {

unsigned half(unsigned bits, int which) {
    return bits >> (16 * which) & 0xffffu;
}

/// 16 x 16 x `depth` in 64 lanes.
void mfma_16x16(Registers* lanes, int depth) {
    int each = depth / 4; // consecutive k of a lane
    double a[16][32], b[32][16];
    bool bf16 = lanes[0].bf16;
    for (int k = 0; k < depth; ++k) {
        int gpr = k % each / 2;
        for (int line = 0; line < 16; ++line) {
            int lane = 16 * (k / each) + line;
            a[line][k] = number(half(lanes[lane].a[gpr], k % 2), bf16);
            b[k][line] = number(half(lanes[lane].b[gpr], k % 2), bf16);
        }
    }
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 16; ++j) {
            float& d = lanes[16 * (i / 4) + j].d[i % 4];
            double sum = d;
            for (int k = 0; k < depth; ++k) {
                sum += a[i][k] * b[k][j];
            }
            d = float(sum);
        }
    }
}

void mma_m16n8k16(Registers* lanes) {
    bool bf16 = lanes[0].bf16;
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 8; ++j) {
            float& d = lanes[4 * (i % 8) + j / 2].d[2 * (i / 8) + j % 2];
            double sum = d;
            for (int k = 0; k < 16; ++k) {
                unsigned a = half(lanes[4 * (i % 8) + k % 8 / 2].a[i / 8 + 2 * (k / 8)], k % 2);
                unsigned b = half(lanes[4 * j + k % 8 / 2].b[k / 8], k % 2);
                sum += double(number(a, bf16)) * number(b, bf16);
            }
            d = float(sum);
        }
    }
}

} // namespace

void execute(Registers* lanes) {
    switch (lanes[0].instruction) {
    case Instruction::mfma_16x16x16: mfma_16x16(lanes, 16); break;
    case Instruction::mfma_16x16x32: mfma_16x16(lanes, 32); break;
    case Instruction::mma_m16n8k16: mma_m16n8k16(lanes); break;
    case Instruction::none: break;
    }
}

} // namespace emulator
