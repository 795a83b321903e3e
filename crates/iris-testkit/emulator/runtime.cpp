// Runs grids of threads as fibers: a fiber runs until it comes to a barrier, a matrix instruction or a pause, and then another
// one does, in an order that differs from round to round. A missing barrier shows as wrong data, since whoever should have waited
// often runs first.

#include "runtime.h"
#include "fibers.h"
#include "matrix.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sched.h>
#include <vector>

namespace emulator {
namespace {

enum class State { runnable, at_barrier, at_instruction, ended };

/// LDS that a block can have.
constexpr std::size_t LDS = 64 * 1024;

struct Block;

struct Thread {
    Fiber fiber;
    Block* block = nullptr;
    unsigned index = 0;
    State state = State::runnable;
    bool started = false;
    bool paused = false;
    Registers registers;
};

struct Block {
    unsigned index = 0;
    std::vector<Thread> threads;
    std::unique_ptr<unsigned char[]> lds;
    unsigned at_barrier = 0;
    unsigned ended = 0;
    std::vector<unsigned> at_instruction; // of each wave
};

/// What one OS thread runs. Kept from launch to launch, for its stacks.
struct Machine {
    std::vector<std::unique_ptr<Stack>> stacks;
    const std::function<void()>* kernel = nullptr;
    unsigned lanes = 64;
    Thread* current = nullptr;
};

thread_local Machine machine;

[[noreturn]] void fail(const char* what, const Thread& thread) {
    std::fprintf(stderr, "emulator: block %u, thread %u: %s\n", thread.block->index, thread.index, what);
    std::fflush(stderr);
    std::_Exit(3);
}

void entry(void* argument) {
    Thread& thread = *static_cast<Thread*>(argument);
    (*machine.kernel)();
    thread.state = State::ended;
    thread.block->ended += 1;
    thread.fiber.end();
}

void wait_as(State state) {
    Thread& thread = *machine.current;
    thread.state = state;
    thread.fiber.switch_away();
}

/// Lets the block go on if all its threads are at the barrier.
void release_barrier(Block& block) {
    if (block.at_barrier == block.threads.size()) {
        block.at_barrier = 0;
        for (Thread& thread : block.threads) {
            thread.state = State::runnable;
        }
    }
}

void matrix_instruction(Registers& registers) {
    Thread& thread = *machine.current;
    thread.registers = registers;
    Block& block = *thread.block;
    unsigned wave = thread.index / machine.lanes;
    Thread* first = &block.threads[wave * machine.lanes];
    block.at_instruction[wave] += 1;
    if (block.at_instruction[wave] == machine.lanes) {
        block.at_instruction[wave] = 0;
        std::vector<Registers> wave_registers(machine.lanes);
        for (unsigned lane = 0; lane < machine.lanes; ++lane) {
            if (first[lane].registers.instruction != registers.instruction) {
                fail("its wave is at different matrix instructions", thread);
            }
            wave_registers[lane] = first[lane].registers;
        }
        execute(wave_registers.data());
        for (unsigned lane = 0; lane < machine.lanes; ++lane) {
            std::memcpy(first[lane].registers.d, wave_registers[lane].d, sizeof(registers.d));
            first[lane].state = State::runnable;
        }
    } else {
        wait_as(State::at_instruction);
    }
    std::memcpy(registers.d, thread.registers.d, sizeof(registers.d));
}

std::uint64_t next_random(std::uint64_t& state) {
    state += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

} // namespace

void run(const Launch& launch, const std::function<void()>& kernel) {
    machine.kernel = &kernel;
    machine.lanes = launch.lanes;
    std::vector<Block> blocks(launch.blocks);
    std::vector<Thread*> threads;
    for (unsigned index = 0; index < launch.blocks; ++index) {
        Block& block = blocks[index];
        block.index = index;
        block.threads = std::vector<Thread>(launch.threads);
        block.lds.reset(new unsigned char[LDS]);
        // Not a number in f32, f16 and bf16, and no small integer: what is read before it is written shows.
        std::memset(block.lds.get(), 0xff, LDS);
        block.at_instruction.assign(launch.threads / launch.lanes, 0);
        for (unsigned thread = 0; thread < launch.threads; ++thread) {
            block.threads[thread].block = &block;
            block.threads[thread].index = thread;
            threads.push_back(&block.threads[thread]);
        }
    }
    while (machine.stacks.size() < threads.size()) {
        machine.stacks.push_back(std::make_unique<Stack>());
    }

    std::uint64_t random = launch.seed;
    std::size_t ended = 0;
    while (ended < threads.size()) {
        bool progress = false;
        bool paused = false;
        ended = 0;
        // A round visits every thread once: from a random one on, with a random odd stride or its nearest that is coprime.
        std::size_t count = threads.size();
        std::size_t at = next_random(random) % count;
        bool backwards = next_random(random) % 2 == 0;
        for (std::size_t visited = 0; visited < count; ++visited) {
            Thread& thread = *threads[at];
            at = backwards ? (at == 0 ? count - 1 : at - 1) : (at + 1 == count ? 0 : at + 1);
            if (thread.state == State::runnable) {
                machine.current = &thread;
                thread.paused = false;
                if (!thread.started) {
                    thread.started = true;
                    std::size_t number = thread.block->index * std::size_t(launch.threads) + thread.index;
                    thread.fiber.start(*machine.stacks[number], entry, &thread);
                } else {
                    thread.fiber.resume();
                }
                if (thread.paused) {
                    paused = true;
                } else {
                    progress = true;
                }
                release_barrier(*thread.block);
            }
            ended += thread.state == State::ended;
        }
        if (!progress && paused) {
            sched_yield(); // all that can run waits for other ranks
        } else if (!progress && ended < count) {
            for (Thread* thread : threads) {
                if (thread->state == State::at_barrier) {
                    fail("waits at a barrier to which not all threads of its block come", *thread);
                }
                if (thread->state == State::at_instruction) {
                    fail("waits at a matrix instruction to which not all lanes of its wave come", *thread);
                }
            }
        }
    }
    machine.current = nullptr;
}

} // namespace emulator

using emulator::machine;

extern "C" {

unsigned iris_emulator_thread() {
    return machine.current->index;
}

unsigned iris_emulator_block() {
    return machine.current->block->index;
}

void iris_emulator_sync_block() {
    machine.current->block->at_barrier += 1;
    emulator::wait_as(emulator::State::at_barrier);
}

void iris_emulator_pause() {
    machine.current->paused = true;
    machine.current->fiber.switch_away();
}

unsigned long long iris_emulator_now_ns() {
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

void* iris_emulator_shared(std::size_t bytes) {
    if (bytes > emulator::LDS) {
        emulator::fail("its block wants more than 64 KiB of LDS", *machine.current);
    }
    return machine.current->block->lds.get();
}

void iris_emulator_mfma_f32_16x16x16(float (&sum)[4], const unsigned (&a)[2], const unsigned (&b)[2], bool bf16) {
    emulator::Registers registers;
    registers.instruction = emulator::Instruction::mfma_16x16x16;
    registers.bf16 = bf16;
    std::memcpy(registers.a, a, sizeof(a));
    std::memcpy(registers.b, b, sizeof(b));
    std::memcpy(registers.d, sum, sizeof(sum));
    emulator::matrix_instruction(registers);
    std::memcpy(sum, registers.d, sizeof(sum));
}

void iris_emulator_mfma_f32_16x16x32(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[4], bool bf16) {
    emulator::Registers registers;
    registers.instruction = emulator::Instruction::mfma_16x16x32;
    registers.bf16 = bf16;
    std::memcpy(registers.a, a, sizeof(a));
    std::memcpy(registers.b, b, sizeof(b));
    std::memcpy(registers.d, sum, sizeof(sum));
    emulator::matrix_instruction(registers);
    std::memcpy(sum, registers.d, sizeof(sum));
}

void iris_emulator_mma_m16n8k16(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], bool bf16) {
    emulator::Registers registers;
    registers.instruction = emulator::Instruction::mma_m16n8k16;
    registers.bf16 = bf16;
    std::memcpy(registers.a, a, sizeof(a));
    std::memcpy(registers.b, b, sizeof(b));
    std::memcpy(registers.d, sum, sizeof(sum));
    emulator::matrix_instruction(registers);
    std::memcpy(sum, registers.d, sizeof(sum));
}
}
