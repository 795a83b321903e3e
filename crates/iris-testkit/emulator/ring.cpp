// Every rank an OS thread, which makes one launch after the other as the example's host does, and then compares what it holds with
// what a walk around the ring makes of the numbers that it came from.

#include "ring.h"
#include "runtime.h"

#include "iris/ranks.h"
#include "iris/words.h"

#include <chrono>
#include <cstdint>
#include <mutex>
#include <sstream>
#include <thread>
#include <vector>

namespace emulator {
namespace {

using u64 = std::uint64_t;
using u32 = std::uint32_t;

/// The kernel's argument.
struct Argument {
    iris::Ranks ranks;
    u64 held, progress, inbox, words, count, blocks, rounds, first, budget_ns;
};

struct RankMemory {
    std::vector<u32> held;
    std::vector<u64> progress;
    /// The symmetric part: two banks of numbers, and the words.
    std::vector<u64> heap;
};

u32 initial(u64 rank, u64 at, u64 seed) {
    u64 z = seed * 0x9e3779b97f4a7c15u + rank * 0xbf58476d1ce4e5b9u + at * 0x94d049bb133111ebu;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return u32(z ^ z >> 31);
}

} // namespace

std::string run_ring(const std::string& line, void* kernel) {
    std::istringstream numbers(line);
    u64 world, blocks, threads, lanes, count, launches, rounds, first, seed, budget_ms, stalled, stalled_launch, stall_ms;
    numbers >> world >> blocks >> threads >> lanes >> count >> launches >> rounds >> first >> seed >> budget_ms;
    if (!(numbers >> stalled >> stalled_launch >> stall_ms) || world == 0 || world > iris::MAX_RANKS) {
        return "an unusable line";
    }
    // Behind the banks, aligned to 8 bytes.
    u64 words = (2 * count * sizeof(u32) + 7) / 8 * 8;
    std::vector<RankMemory> ranks(world);
    Argument common{};
    common.ranks.world = world;
    for (u64 rank = 0; rank < world; ++rank) {
        RankMemory& memory = ranks[rank];
        for (u64 at = 0; at < count; ++at) {
            memory.held.push_back(initial(rank, at, seed));
        }
        memory.progress.assign(2 * blocks, 0);
        memory.heap.assign(words / 8 + 4 * blocks, 0);
        common.ranks.heap[rank] = reinterpret_cast<u64>(memory.heap.data());
    }
    common.words = words;
    common.count = count;
    common.blocks = blocks;
    common.rounds = rounds;
    common.first = first;
    common.budget_ns = budget_ms * 1000000;

    auto exchange = reinterpret_cast<void (*)(Argument)>(kernel);
    auto run_rank = [&](u64 rank) {
        Argument argument = common;
        argument.ranks.rank = rank;
        argument.held = reinterpret_cast<u64>(ranks[rank].held.data());
        argument.progress = reinterpret_cast<u64>(ranks[rank].progress.data());
        for (u64 launch = 0; launch < launches; ++launch) {
            if (rank == stalled && launch == stalled_launch) {
                std::this_thread::sleep_for(std::chrono::milliseconds(stall_ms));
            }
            Launch shape{unsigned(blocks), unsigned(threads), unsigned(lanes), 0, seed + launch * 97 + rank};
            run(shape, [&] { exchange(argument); });
        }
    };
    std::vector<std::thread> running;
    for (u64 rank = 0; rank < world; ++rank) {
        running.emplace_back(run_rank, rank);
    }
    for (std::thread& thread : running) {
        thread.join();
    }

    std::ostringstream said;
    u64 all = launches * rounds;
    for (u64 rank = 0; rank < world; ++rank) {
        const RankMemory& memory = ranks[rank];
        for (u64 block = 0; block < blocks; ++block) {
            u64 done = memory.progress[2 * block], gave_up = memory.progress[2 * block + 1];
            if (gave_up != 0 || done != all) {
                said << "gave up at rank " << rank << ", block " << block << ", round " << done << ": " << gave_up;
                return said.str();
            }
        }
        u64 origin = (rank + world - all % world) % world;
        for (u64 at = 0; at < count; ++at) {
            u32 expected = initial(origin, at, seed);
            for (u64 step = 1; step <= all; ++step) {
                expected = 3 * expected + u32((origin + step) % world) + 1;
            }
            if (memory.held[at] != expected) {
                said << "wrong rank " << rank << ", number " << at << ": " << memory.held[at] << ", not " << expected;
                return said.str();
            }
        }
    }
    return "ok";
}

} // namespace emulator
