// What the emulator runs: blocks and their threads, and how threads of a block come together.
#pragma once

#include "fibers.h"
#include "sm90.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace emulator {

enum class State { runnable, waiting, ended };

/// What a thread was waiting for when it let others run: something that may happen anywhere, or at its own rank alone.
enum class Pause { none, anywhere, here };

struct Block;

struct Thread {
    Fiber fiber;
    Block* block = nullptr;
    unsigned index = 0;
    State state = State::runnable;
    bool started = false;
    /// Rounds that it, like its whole wave, lags behind.
    unsigned lag = 0;
    Pause pause = Pause::none;
    /// The barrier for which it lets others run, as long as that is in a phase of this parity.
    const PhaseBarrier* awaits = nullptr;
    unsigned parity = 0;
    /// Where it waits, if it does; and what it brought there.
    const char* at = "";
    void* request = nullptr;
    /// The number of its current group of copies.
    std::uint64_t copies = 0;
    /// Whether it has waited for the launch before.
    bool follows = false;
    /// Whether it has seen something that others have written, and where in shared memory it has written: since it last made a fence between
    /// that and copies.
    bool acquired = false;
    /// Whether no lane of its wave had, when they last came together.
    bool fenced = true;
    std::vector<unsigned> written;
    /// Whether it has written, since then, what it hands to a warpgroup by a barrier's phase.
    bool filled = false;
};

/// Threads of a block that wait for each other.
struct Meeting {
    const char* at = "";
    unsigned size = 0;
    std::vector<Thread*> here;
    /// Threads that have come and gone on.
    unsigned gone = 0;
};

struct Block {
    unsigned index = 0;
    std::vector<Thread> threads;
    /// Its shared memory: what its kernel names, and from `dynamic` on the `given` bytes that its launch gives, up to `lds_bytes`.
    std::unique_ptr<unsigned char[]> lds;
    std::size_t given = 0;
    std::size_t dynamic = 0;
    std::size_t lds_bytes = 0;
    std::vector<Meeting> meetings;
    Sm90 sm90;
    /// How many of its threads have come to where its partner's come too.
    std::size_t in_pair = 0;
};

/// What one OS thread runs. Kept from launch to launch, for its stacks.
struct Machine {
    std::vector<std::unique_ptr<Stack>> stacks;
    const std::function<void()>* kernel = nullptr;
    /// Those of the launch under way.
    std::vector<Block>* blocks = nullptr;
    unsigned lanes = 64;
    Thread* current = nullptr;
    std::uint64_t random = 0;
    /// Counts what may let some thread of this rank go on.
    std::uint64_t events = 0;
    /// Whether threads must wait for the launch before.
    bool programmatic = false;
    /// Where lies what peers store and copies read.
    std::uint64_t staged_from = 0;
    std::uint64_t staged_to = 0;
};

extern thread_local Machine machine;

[[noreturn]] void fail(const char* what, const Thread& thread);
std::uint64_t next_random(std::uint64_t& state);
/// Lets other threads run.
void pause(Pause pause);

/// Numbers of meetings: a block's 16 barriers, each wave, each 4 waves.
constexpr unsigned BARRIERS = 16;
constexpr unsigned WAVES = 32;
inline unsigned of_wave(unsigned thread) { return BARRIERS + thread / machine.lanes; }
inline unsigned of_group(unsigned thread) { return BARRIERS + WAVES + thread / 128; }

/// The meeting `number` of the current thread's block, to which one more thread comes, of `size`.
inline Meeting& come_to(unsigned number, unsigned size, const char* at) {
    Thread& thread = *machine.current;
    Meeting& meeting = thread.block->meetings[number];
    machine.events += 1;
    if (meeting.here.size() + meeting.gone != 0 && (meeting.at != at || meeting.size != size)) {
        fail("others of those that must go together are at another instruction", thread);
    }
    meeting.at = at;
    meeting.size = size;
    return meeting;
}

/// Lets those who wait go on if all have come: they are returned, in order of their numbers.
inline std::vector<Thread*> open_if_full(Meeting& meeting) {
    std::vector<Thread*> all;
    if (meeting.here.size() + meeting.gone == meeting.size) {
        all.swap(meeting.here);
        meeting.gone = 0;
        std::sort(all.begin(), all.end(), [](Thread* a, Thread* b) { return a->index < b->index; });
        for (Thread* each : all) {
            each->state = State::runnable;
        }
    }
    return all;
}

/// Waits until `size` threads of the block have come to the meeting `number`, all to do the same, which `at` names. Whoever comes last calls
/// `act` with all of them, in order of their numbers.
template <class Act>
void meet(unsigned number, unsigned size, const char* at, void* request, Act act) {
    Thread& thread = *machine.current;
    Meeting& meeting = come_to(number, size, at);
    thread.at = at;
    thread.request = request;
    thread.state = State::waiting;
    meeting.here.push_back(&thread);
    std::vector<Thread*> all = open_if_full(meeting);
    if (!all.empty()) {
        act(all);
    }
    thread.fiber.switch_away();
}

/// The same of one that does not wait for the others, and is not among those with whom `act` is called, which here does nothing.
inline void pass(unsigned number, unsigned size, const char* at) {
    Meeting& meeting = come_to(number, size, at);
    meeting.gone += 1;
    open_if_full(meeting);
}

/// The same of a wave.
template <class Act>
void meet_wave(const char* at, void* request, Act act) {
    meet(of_wave(machine.current->index), machine.lanes, at, request, act);
}

} // namespace emulator
