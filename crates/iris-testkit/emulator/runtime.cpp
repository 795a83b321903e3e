// Runs grids of threads as fibers: a fiber runs until it comes to a barrier, a matrix instruction or a pause, and then another
// one does, in an order that differs from round to round, and now and then a wave stands still for a while. A missing barrier shows as wrong
// data, since whoever should have waited often runs first.

#include "runtime.h"
#include "machine.h"
#include "matrix.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sched.h>
#include <string>

namespace emulator {

thread_local Machine machine;

[[noreturn]] void fail(const char* what, const Thread& thread) {
    std::fprintf(stderr, "emulator: block %u, thread %u: %s\n", thread.block->index, thread.index, what);
    std::fflush(stderr);
    std::_Exit(3);
}

std::uint64_t next_random(std::uint64_t& state) {
    state += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void pause(Pause pause) {
    machine.current->pause = pause;
    machine.current->fiber.switch_away();
}

namespace {

/// LDS that a block can have: what its kernel names, by itself and beside what a launch gives it.
constexpr std::size_t LDS = 64 * 1024;
constexpr std::size_t NAMED = 4 * 1024;

void entry(void* argument) {
    Thread& thread = *static_cast<Thread*>(argument);
    (*machine.kernel)();
    thread.state = State::ended;
    thread.fiber.end();
}

void matrix_instruction(Registers& registers) {
    meet_wave("a matrix instruction", &registers, [](const std::vector<Thread*>& wave) {
        std::vector<Registers> all;
        for (Thread* lane : wave) {
            auto* mine = static_cast<Registers*>(lane->request);
            if (!all.empty() && mine->instruction != all[0].instruction) {
                fail("its wave is at different matrix instructions", *lane);
            }
            all.push_back(*mine);
        }
        execute(all.data());
        for (unsigned lane = 0; lane < wave.size(); ++lane) {
            std::memcpy(static_cast<Registers*>(wave[lane]->request)->d, all[lane].d, sizeof(all[lane].d));
        }
    });
}

/// Nothing will ever happen again: says where all threads stand, and ends the program.
[[noreturn]] void stuck(const std::vector<Thread*>& threads) {
    auto where = [](const Thread& thread) {
        switch (thread.state) {
        case State::waiting: return std::string("at ") + thread.at;
        case State::runnable: return std::string("until a phase or a copy ends, or a flag is raised");
        default: return std::string("no more");
        }
    };
    std::fprintf(stderr, "emulator: threads wait at a barrier or an instruction to which not all come that must, or for each other:\n");
    for (std::size_t first = 0, last = 0; first < threads.size(); first = last) {
        while (last < threads.size() && threads[last]->block == threads[first]->block && where(*threads[last]) == where(*threads[first])) {
            ++last;
        }
        std::fprintf(stderr, "block %u, threads %u to %u wait %s\n", threads[first]->block->index, threads[first]->index,
                     threads[last - 1]->index, where(*threads[first]).c_str());
    }
    std::fflush(stderr);
    std::_Exit(3);
}

} // namespace

void run(const Launch& launch, const std::function<void()>& kernel) {
    machine.kernel = &kernel;
    machine.lanes = launch.lanes;
    machine.random = launch.seed;
    machine.programmatic = launch.programmatic;
    machine.staged_from = launch.staged_from;
    machine.staged_to = launch.staged_to;
    std::vector<Block> blocks(launch.blocks);
    machine.blocks = &blocks;
    std::vector<Thread*> threads;
    for (unsigned index = 0; index < launch.blocks; ++index) {
        Block& block = blocks[index];
        block.index = index;
        block.threads = std::vector<Thread>(launch.threads);
        block.given = launch.shared;
        std::size_t bytes = launch.shared == 0 ? LDS : NAMED + launch.shared;
        block.lds.reset(new unsigned char[bytes]);
        // Not a number in f32, f16 and bf16, and no small integer: what is read before it is written shows.
        std::memset(block.lds.get(), 0xff, bytes);
        block.meetings.resize(BARRIERS + WAVES + WAVES);
        for (unsigned thread = 0; thread < launch.threads; ++thread) {
            block.threads[thread].block = &block;
            block.threads[thread].index = thread;
            threads.push_back(&block.threads[thread]);
        }
    }
    while (machine.stacks.size() < threads.size()) {
        machine.stacks.push_back(std::make_unique<Stack>());
    }

    auto begins = std::chrono::steady_clock::now() + std::chrono::milliseconds(launch.slow_ms);
    std::size_t count = threads.size();
    for (std::size_t ended = 0; ended < count;) {
        bool progress = false;
        bool waits_for_others = false;
        ended = 0;
        // Now and then a wave falls behind the others for some rounds.
        if (next_random(machine.random) % 8 == 0) {
            std::size_t first = next_random(machine.random) % count / launch.lanes * launch.lanes;
            unsigned rounds = unsigned(next_random(machine.random) % 64);
            for (std::size_t lane = first; lane < first + launch.lanes; ++lane) {
                threads[lane]->lag = rounds;
            }
        }
        // A round visits every thread once: from a random one on, one way or the other.
        bool waits_for_slow = launch.slow_ms != 0 && std::chrono::steady_clock::now() < begins;
        waits_for_others = waits_for_slow;
        std::size_t at = next_random(machine.random) % count;
        bool backwards = next_random(machine.random) % 2 == 0;
        for (std::size_t visited = 0; visited < count; ++visited) {
            Thread& thread = *threads[at];
            at = backwards ? (at == 0 ? count - 1 : at - 1) : (at + 1 == count ? 0 : at + 1);
            if (thread.lag > 0) {
                thread.lag -= 1;
                progress = progress || thread.state == State::runnable;
            } else if (thread.state == State::runnable && !(waits_for_slow && thread.block->index == launch.slow_block) &&
                       (thread.awaits == nullptr || thread.awaits->parity != thread.parity)) {
                machine.current = &thread;
                thread.awaits = nullptr;
                thread.pause = Pause::none;
                std::uint64_t events = machine.events;
                if (!thread.started) {
                    thread.started = true;
                    std::size_t number = thread.block->index * std::size_t(launch.threads) + thread.index;
                    thread.fiber.start(*machine.stacks[number], entry, &thread);
                } else {
                    thread.fiber.resume();
                }
                progress = progress || thread.pause == Pause::none || machine.events != events;
                waits_for_others = waits_for_others || thread.pause == Pause::anywhere;
            }
            ended += thread.state == State::ended;
        }
        // Copies are made when they are made, but at last when nobody can do anything before.
        bool nobody = !progress && !waits_for_others;
        for (Block& block : blocks) {
            if (!block.sm90.copies.empty()) {
                machine.current = &block.threads[0];
                progress = make_copies(block, nobody) || progress;
            }
        }
        if (!progress && waits_for_others) {
            sched_yield(); // all that can run waits for other ranks
        } else if (!progress && ended < count) {
            stuck(threads);
        }
    }
    for (Block& block : blocks) {
        end(block);
    }
    machine.current = nullptr;
    machine.blocks = nullptr;
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
    iris_emulator_sync(0, unsigned(machine.current->block->threads.size()));
}

void iris_emulator_pass(unsigned barrier, unsigned threads) {
    emulator::pass(barrier, threads, "a barrier");
}

void iris_emulator_sync(unsigned barrier, unsigned threads) {
    emulator::meet(barrier, threads, "a barrier", nullptr, [](const std::vector<emulator::Thread*>&) {});
}

void iris_emulator_sync_wave() {
    emulator::meet_wave("a wave's barrier", nullptr, [](const std::vector<emulator::Thread*>& wave) {
        bool fenced = std::none_of(wave.begin(), wave.end(), [](emulator::Thread* lane) { return lane->acquired; });
        for (emulator::Thread* lane : wave) {
            lane->fenced = fenced;
        }
    });
}

unsigned iris_emulator_first_lanes(unsigned value) {
    emulator::meet_wave("a shuffle", &value, [](const std::vector<emulator::Thread*>& wave) {
        for (emulator::Thread* lane : wave) {
            *static_cast<unsigned*>(lane->request) = *static_cast<unsigned*>(wave[0]->request);
        }
    });
    return value;
}

void iris_emulator_acquired() {
    machine.current->acquired = true;
}

void iris_emulator_launch_before_ended() {
    machine.current->follows = true;
}

void iris_emulator_accesses() {
    if (machine.programmatic && !machine.current->follows) {
        emulator::fail("it accesses memory before the launch before has ended", *machine.current);
    }
}

void iris_emulator_moves_whole(const void* at) {
    if (reinterpret_cast<std::uintptr_t>(at) % 16 != 0) {
        emulator::fail("it moves 16 bytes together that do not begin at a multiple of 16", *machine.current);
    }
}

void iris_emulator_pause() {
    emulator::pause(emulator::Pause::anywhere);
}

void iris_emulator_spin() {
    emulator::pause(emulator::Pause::here);
}

unsigned long long iris_emulator_now_ns() {
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

void* iris_emulator_shared(std::size_t bytes) {
    emulator::Block& block = *machine.current->block;
    // What it has beside this begins at 16 bytes, and not at more.
    block.dynamic = (bytes + 31) / 32 * 32 + 16;
    if ((block.given == 0 ? bytes : block.dynamic) > (block.given == 0 ? emulator::LDS : emulator::NAMED)) {
        emulator::fail("its block wants more LDS than it has", *machine.current);
    }
    block.lds_bytes = block.dynamic + block.given;
    return block.lds.get();
}

void* iris_emulator_dynamic_shared() {
    return machine.current->block->lds.get() + machine.current->block->dynamic;
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
