// Matrix instructions on the registers of a whole wave.
#pragma once

namespace emulator {

enum class Instruction { none, mfma_16x16x16, mfma_16x16x32, mma_m16n8k16 };

/// One lane's registers in a matrix instruction.
struct Registers {
    Instruction instruction = Instruction::none;
    bool bf16 = false;
    unsigned a[4] = {};
    unsigned b[4] = {};
    /// The accumulators, read and written.
    float d[4] = {};
};

/// A 16-bit number: bf16, else f16. All of either are numbers in f32 too.
float number(unsigned bits, bool bf16);

/// Executes the instruction that all lanes are at.
void execute(Registers* lanes);

} // namespace emulator
