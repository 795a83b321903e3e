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
/// Lets other threads run; and the same where what is waited for comes from this device alone.
void iris_emulator_pause();
void iris_emulator_spin();
/// This thread has seen what others have written.
void iris_emulator_acquired();
/// This thread has waited for the launch before; and it accesses memory, where a launch that may begin early must have done so.
void iris_emulator_launch_before_ended();
void iris_emulator_accesses();
/// Says that 16 bytes move together to or from `at`: ends the program if that is no multiple of 16.
void iris_emulator_moves_whole(const void* at);
/// Nanoseconds of a clock that never goes back.
unsigned long long iris_emulator_now_ns();
/// The same for some threads, at one of the block's 16 barriers, of whom one may come there and not wait; and for the lanes of a wave.
void iris_emulator_sync(unsigned barrier, unsigned threads);
void iris_emulator_pass(unsigned barrier, unsigned threads);
void iris_emulator_sync_wave();
/// What the first lane of the wave brings, to all of its lanes: threads run by turns, and what one has looked at may be other than what the next sees.
unsigned iris_emulator_first_lanes(unsigned value);
/// The block's LDS, `bytes` of it. Holds no useful value when the block begins.
void* iris_emulator_shared(std::size_t bytes);
/// And what the launch gives it beside that.
void* iris_emulator_dynamic_shared();

/// The matrix instructions. All lanes of a wave execute them together, each with its own registers.
void iris_emulator_mfma_f32_16x16x16(float (&sum)[4], const unsigned (&a)[2], const unsigned (&b)[2], bool bf16);
void iris_emulator_mfma_f32_16x16x32(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[4], bool bf16);
void iris_emulator_mma_m16n8k16(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], bool bf16);

// What Hopper does: see `emulator_sm90.h`. Addresses of 32 bits are in the block's shared memory.
unsigned iris_emulator_shared_address(const void* pointer);
void* iris_emulator_shared_at(unsigned address, std::size_t bytes);
void iris_emulator_fence_async(bool shared_alone);
/// Where a thread tells its block that copies may read what it has waited for.
void iris_emulator_tells();
/// Where a thread fills, by an ordinary access, what matrix instructions read.
void* iris_emulator_fill(unsigned address, std::size_t bytes);
void iris_emulator_barrier_init(unsigned barrier, unsigned arrivals);
void iris_emulator_arrive(unsigned barrier, unsigned bytes);
bool iris_emulator_phase_ended(unsigned barrier, unsigned parity);
bool iris_emulator_phase_ended_by_now(unsigned barrier, unsigned parity);
void iris_emulator_copy_box(unsigned to, const void* map, unsigned barrier, int x, int y);
void iris_emulator_copy_bytes(unsigned to, const void* from, unsigned barrier, unsigned bytes);
void iris_emulator_store_box(const void* map, unsigned from, int x, int y);
/// Of a block and its partner: comes to where all threads of both come; waits until they have; where the partner has what this block has at an
/// address; stores 16 bytes there, as so many for a barrier of the partner's; arrives at one.
void iris_emulator_pair_arrives();
void iris_emulator_await_pair();
unsigned iris_emulator_at_partner(unsigned address);
void iris_emulator_give(unsigned to, unsigned barrier, const float (&values)[4]);
void iris_emulator_arrive_across(unsigned barrier);
void iris_emulator_commit_copies();
void iris_emulator_await_copies(bool read);
void iris_emulator_load_matrices(unsigned (&to)[4], unsigned from);
void iris_emulator_store_matrices(unsigned to, const unsigned (&from)[4]);
void iris_emulator_multiply(float* sums, unsigned n, std::uint64_t a, std::uint64_t b, bool a_deep, bool b_deep, bool bf16);
void iris_emulator_commit_multiplying();
void iris_emulator_await_multiplied(unsigned pending);
}
