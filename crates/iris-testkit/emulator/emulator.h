// What a kernel compiled for the CPU finds in place of a GPU: its thread's number, barriers, LDS, matrix instructions.
//
// The kernels' sources include this through `iris/platform.h` when compiled with IRIS_EMULATED. The functions are the
// emulator's own program's, found when the kernel is loaded.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

/// This thread's number in its block, and its block's in its grid.
unsigned iris_emulator_thread();
unsigned iris_emulator_block();
/// Waits for all threads of the block.
void iris_emulator_sync_block();
/// Lets other threads run.
void iris_emulator_pause();
/// Nanoseconds of a clock that never goes back.
unsigned long long iris_emulator_now_ns();
/// The block's LDS, `bytes` of it. Holds no useful value when the block begins.
void* iris_emulator_shared(std::size_t bytes);

/// The matrix instructions. All lanes of a wave execute them together, each with its own registers.
void iris_emulator_mfma_f32_16x16x16(float (&sum)[4], const unsigned (&a)[2], const unsigned (&b)[2], bool bf16);
void iris_emulator_mfma_f32_16x16x32(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[4], bool bf16);
void iris_emulator_mma_m16n8k16(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], bool bf16);
}
